#pragma once

#include <deque>
#include <maestro/messaging/transport.hpp>
#include <memory>
#include <vector>

#include "brokers/redis/entry.hpp"
#include "brokers/redis/session.hpp"
#include "runtime/notifier.hpp"

namespace maestro::messaging::redis {

/// What all subscriptions have in common: a connection of their own, made anew whenever it breaks, and the messages that wait to be
/// taken.
class Reader : public std::enable_shared_from_this<Reader> {
 public:
  Reader(std::shared_ptr<Session> session, SubscribeRequest request);
  virtual ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  /// Completes when its place is known, and nothing from then on is missed. Throws what will not mend by itself.
  virtual awaitable<void> start();

  std::size_t take(std::vector<Message>& into, std::size_t at_most);
  awaitable<void> wait();
  void pause() { paused_ = true; }
  void resume();
  /// Hands out nothing more; whoever waits is told.
  virtual void stop();

  virtual void acknowledge(std::span<const DeliveryTag>) {}
  virtual void release(std::span<const DeliveryTag>, Duration) {}
  virtual awaitable<void> commit() { co_return; }
  virtual awaitable<void> close();
  /// Goes on behind `last_read`, or with what comes from now on.
  virtual awaitable<void> seek(std::string topic, EntryId last_read, bool to_end) = 0;
  /// The offset of the first entry from this moment on; -2 where there is none.
  virtual awaitable<std::int64_t> offset_at(std::string topic, Timestamp time) = 0;
  virtual awaitable<std::vector<PartitionLag>> lag() = 0;
  [[nodiscard]] bool is_paused() const noexcept { return paused_; }
  [[nodiscard]] bool is_connected() const noexcept { return !closed_ && connected_; }

 protected:
  /// On the first connection, before anything is read.
  virtual awaitable<void> prepare(Connection& connection) = 0;
  /// On each further one.
  virtual awaitable<void> recover(Connection& connection) = 0;
  /// Throws when the connection broke; returns when the reader was closed.
  virtual awaitable<void> read_until_broken() = 0;
  /// Messages were taken, or may be taken again: there is room.
  virtual void on_room() { wake_reader(); }

  void wake_reader() { room_changed_.notify(); }
  /// For the reading coroutine, until there is room again or the time has come. Throws when the connection broke meanwhile.
  awaitable<void> wait_for_room(Duration at_most);
  void add_ready(std::vector<Message>& messages);
  /// The command that ends the reading connection at the server; empty where there is none.
  [[nodiscard]] std::vector<std::string> kill_command() const {
    return connection_ ? connection_->kill_command() : std::vector<std::string>{};
  }
  void require_open() const;
  /// The read that is under way does not count: begin again from the new place.
  void begin_again();

  std::shared_ptr<Session> session_;
  SubscribeRequest request_;
  bool is_pattern_;
  std::shared_ptr<Connection> connection_;
  std::deque<Message> ready_messages_;
  bool connected_ = false;
  bool closed_ = false;
  bool paused_ = false;
  bool resumed_ = false;  // and no wait has completed since

 private:
  static awaitable<void> run(std::shared_ptr<Reader> self);

  Notifier ready_;         // for whoever waits for messages
  Notifier room_changed_;  // for the reading coroutine
  bool restart_ = false;   // the place was changed while a read was under way
  std::exception_ptr error_;
  unsigned immediate_ = 0;
};

}  // namespace maestro::messaging::redis

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <deque>
#include <maestro/messaging/transport.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "brokers/redis/entry.hpp"
#include "brokers/redis/session.hpp"
#include "runtime/notifier.hpp"

namespace maestro::messaging::redis {

/// What readers of streams have in common, with a group and without: a connection of their own on which they block, the streams that
/// belong to the topic or the pattern, and the messages that wait to be taken.
class StreamReader : public std::enable_shared_from_this<StreamReader> {
 public:
  StreamReader(std::shared_ptr<Session> session, SubscribeRequest request);
  virtual ~StreamReader();

  /// Completes when the first read may be asked. Throws what will not mend by itself.
  awaitable<void> start();

  std::size_t take(std::vector<Message>& into, std::size_t at_most);
  awaitable<void> wait();
  void pause();
  void resume();
  /// Hands out nothing more; whoever waits is told.
  void stop();

  virtual void acknowledge(std::span<const DeliveryTag>) {}
  virtual void release(std::span<const DeliveryTag>, Duration) {}
  virtual awaitable<void> commit() { co_return; }
  virtual awaitable<void> close();
  /// Goes on behind `last_read`, or with what comes from now on.
  virtual awaitable<void> seek(std::string topic, EntryId last_read, bool to_end) = 0;
  /// The offset of the first entry from this moment on; -2 where there is none.
  awaitable<std::int64_t> offset_at(std::string topic, Timestamp time);
  virtual awaitable<std::vector<PartitionLag>> lag() = 0;
  [[nodiscard]] bool is_paused() const noexcept { return paused_; }
  [[nodiscard]] bool is_connected() const noexcept { return !closed_ && connected_; }

 protected:
  struct Stream {
    std::string key;
    EntryId last_read = {};      ///< Of a reader without a group.
    bool from_end = false;       ///< Where a new group, or a reader without one, starts.
    bool ready = false;          ///< Its group is there, or its place is known.
  };

  /// Makes a stream readable: its group, or its place.
  virtual awaitable<void> prepare(Connection& connection, std::size_t stream) = 0;
  /// After each new connection, before anything is read.
  virtual awaitable<void> recover(Connection& connection) = 0;
  /// What is to be done before the first read.
  virtual awaitable<void> begin() { co_return; }
  /// The blocking read of all streams.
  virtual std::vector<std::string> read_command(std::size_t at_most, Duration block) const = 0;
  /// The number of messages that may be fetched now.
  [[nodiscard]] virtual std::size_t room() const = 0;
  /// Entries of one stream, in order.
  virtual void on_entries(std::size_t stream, std::span<const Value> entries, const Kept& reply) = 0;
  /// Regular work beside the reading, each `tick`.
  virtual awaitable<void> tend() { co_return; }
  [[nodiscard]] virtual Duration tick() const { return std::chrono::seconds(1); }

  void add_ready(EntryBatch& batch);
  void wake_reader() { room_changed_.notify(); }
  void wake_tending() { tending_.notify(); }
  /// The command that ends the reading connection at the server; empty where there is none.
  [[nodiscard]] std::vector<std::string> kill_command() const {
    return connection_ ? connection_->kill_command() : std::vector<std::string>{};
  }
  [[nodiscard]] std::optional<std::size_t> find_stream(std::string_view key) const;
  void require_open() const;
  void fail_for_good(std::exception_ptr error);
  /// Looks for topics that fit the pattern and are new.
  awaitable<void> discover(Connection& connection);

  std::shared_ptr<Session> session_;
  SubscribeRequest request_;
  bool is_pattern_;
  std::vector<Stream> streams_;
  std::deque<Message> ready_messages_;
  bool closed_ = false;
  bool paused_ = false;

 private:
  static awaitable<void> run(std::shared_ptr<StreamReader> self);
  static awaitable<void> run_tending(std::shared_ptr<StreamReader> self);
  awaitable<void> read_until_broken();

  Notifier ready_;          // for whoever waits for messages
  Notifier room_changed_;   // for the reading coroutine
  Notifier tending_;
  std::shared_ptr<Connection> connection_;
  bool connected_ = false;
  bool restart_ = false;    // the place was changed while a read was under way
  std::exception_ptr error_;
  unsigned immediate_ = 0;

 protected:
  /// The read that is under way does not count: begin again from the new place.
  void begin_again();
};

}  // namespace maestro::messaging::redis

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "brokers/redis/session.hpp"
#include "runtime/waiter.hpp"

namespace maestro::messaging::redis {

/// Publishes with pipelined commands, one a message: whoever publishes at the same time shares a write, and nobody waits for another's
/// answer. Which command it is, and what its answer means, is said by those who inherit.
class Publisher : public std::enable_shared_from_this<Publisher> {
 public:
  explicit Publisher(std::shared_ptr<Session> session);
  virtual ~Publisher();
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  awaitable<void> publish(std::span<OutgoingMessage> messages, std::span<PublishResult> results, TimePoint deadline) {
    return attempt(messages, results, deadline);
  }

 protected:
  class Batch;
  /// Why a message cannot be published, ever; none when it can.
  [[nodiscard]] virtual std::optional<Failure> refusal(const OutgoingMessage& message) const;
  /// Appends the command of a message that is not refused.
  virtual void append(std::string& to, const OutgoingMessage& message) = 0;
  /// What an answer that is no error makes of a message, which may be moved from.
  virtual void confirm(PublishResult& result, OutgoingMessage& message, const Value& reply) = 0;
  /// Called before the messages are sent.
  virtual void begin(Batch& batch) = 0;
  /// What is to be done about a batch that has its answers, before its results are the caller's.
  virtual awaitable<void> settle(std::shared_ptr<Connection> connection, std::shared_ptr<Batch> batch, TimePoint deadline) = 0;

  static void refuse(PublishResult& result, const Failure& failure) {
    result.error = failure.code;
    result.detail = failure.detail;
    result.is_of_topic = failure.is_of_topic;
  }
  std::shared_ptr<Session> session_;

 private:
  class InLine;
  /// Where a message stands among all that were sent here.
  using Place = std::uint64_t;
  /// `again`: they were sent before, `places` are theirs from then, and `again` is at the front of the line.
  awaitable<void> attempt(std::span<OutgoingMessage> messages, std::span<PublishResult> results, TimePoint deadline,
                          InLine* again = nullptr, std::vector<Place> places = {});
  /// Completes with a connection once nobody is before this one in the line; without one when `line.failure` says why.
  awaitable<std::shared_ptr<Connection>> wait_for_turn(InLine& line, TimePoint deadline);
  /// Publishes what the server had no memory for, and may have before the time is over, and what a broken connection
  /// has lost for sure. It keeps its turn: what is published later waits, and what a later message of its key has
  /// overtaken on the way is not tried again.
  awaitable<void> publish_again(std::shared_ptr<Batch> batch, InLine& line, TimePoint deadline);
  void note_refused(const OutgoingMessage& message);
  void note_taken(const OutgoingMessage& message, Place place);
  [[nodiscard]] bool is_overtaken(const OutgoingMessage& message, Place place) const;
  /// Tells those whose time is up, four times a second; a timer for each would cost more than the publish.
  void schedule_sweep();
  void sweep();

  std::size_t max_message_bytes_;
  std::vector<InLine*> line_;  // those that were sent before first, in their order
  Place next_place_ = 1;
  // Keys of messages that wait for memory, and the last place of each that the server took since.
  boost::unordered_flat_map<std::uint64_t, Place> short_of_memory_;
  Signal moved_;
  std::deque<std::pair<TimePoint, std::weak_ptr<Batch>>> deadlines_;
  std::unique_ptr<Timer> sweeper_;
  bool sweeping_ = false;
};

/// Messages that were sent together, and what is known of each.
class Publisher::Batch final : public Call {
 public:
  Batch(Publisher& of, InLine& line, std::span<OutgoingMessage> to_send, std::span<PublishResult> outcomes,
        std::vector<Place> places);

  void on_reply(std::size_t index, const Value& reply, ReplyReader&) override;
  void on_broken(std::size_t from, bool was_sent, const Failure& why) override;

  [[nodiscard]] Place place_of(std::size_t message) const noexcept {
    return places_.empty() ? first_ + message : places_[message];
  }
  /// Surely not done, though it was sent: it was looked for at the server, and is not there.
  [[nodiscard]] bool is_lost(const PublishResult& result) const noexcept {
    return broken && result.error == errc::connection_failed;
  }
  [[nodiscard]] bool is_done() const noexcept { return results.empty() || answered == sent.size(); }

  std::span<OutgoingMessage> messages;
  std::span<PublishResult> results;  // empty once nobody waits any more
  std::vector<std::uint32_t> sent;   // those messages that were given to the connection
  std::size_t answered = 0;
  std::int64_t* latest = nullptr;    // where the latest offset of its one topic is kept, that was confirmed; streams have it
  std::int64_t before = 0;           // what that was before it was sent; 0: not known
  bool broken = false;               // sent, and the connection broke before the answers
  bool late = false;
  Waiter waiter;

 private:
  Publisher& publisher_;
  InLine& line_;  // there as long as the results are
  Place first_ = 0;
  std::vector<Place> places_;
};

}  // namespace maestro::messaging::redis

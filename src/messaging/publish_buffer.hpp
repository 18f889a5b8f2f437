#pragma once

#include <deque>
#include <maestro/messaging/broker.hpp>
#include <memory>
#include <vector>

#include "runtime/signal.hpp"

namespace maestro::messaging {

/// What was published with `confirm = false` and is not confirmed yet: bounded, sent in batches, in order. Where the broker keeps
/// the order of publishes that are under way at once, several batches are. A transport that has `Custody` keeps the messages itself,
/// and only those that it could not publish come back.
class PublishBuffer {
 public:
  PublishBuffer(MessageBroker::State& state, std::size_t limit);

  [[nodiscard]] bool has_room() const { return unconfirmed_ < limit_; }
  /// Whether the next message makes a batch full: whoever adds it awaits `let_send()` then.
  [[nodiscard]] bool is_next_last_of_batch() const noexcept;
  /// Completes when the broker had time for what is waiting: after a turn of the loop, or with some progress where it is far behind.
  awaitable<void> let_send();
  /// Completes when there is room, for whoever it is that takes it.
  awaitable<void> wait_for_room();
  /// There must be room.
  Receipt add(OutgoingMessage&& message);
  /// Whether a publish that begins now might overtake some of it: then it has to `wait_behind()` it.
  [[nodiscard]] bool is_in_the_way() const noexcept { return !passing_.empty() || (unconfirmed_ > 0 && !is_all_on_its_way()); }
  /// Completes when all that was added before is on its way to the broker, or has failed; what is added later waits for whoever
  /// waits here, and publishes in the same turn. Cancelling throws `operation_aborted`.
  awaitable<void> wait_behind();
  /// Completes when all is confirmed or has failed.
  awaitable<void> drain();
  awaitable<FlushReport> flush();

 private:
  struct Batch;
  class Charge;
  struct Passing;

  static awaitable<void> run(std::shared_ptr<MessageBroker::State> owner);
  static awaitable<void> send(std::shared_ptr<MessageBroker::State> owner, std::shared_ptr<Batch> batch);
  [[nodiscard]] bool may_send() const;
  [[nodiscard]] bool is_all_on_its_way() const noexcept { return waiting_.empty() && under_way_.empty() && coming_back_ == 0; }
  [[nodiscard]] bool may_pass(const Passing& publish) const;
  void let_pass();
  [[nodiscard]] bool is_held_up() const;
  /// Until when what waits gathers more; now or earlier when it does not.
  [[nodiscard]] TimePoint gathers_until();
  void send_what_may_go();
  /// True when the transport took all of it for good; what it did not take is left in the batch.
  bool hand_over(Batch& batch);
  void on_end(Charge& charge, std::size_t taken);
  awaitable<void> retry();
  void report(Batch& batch);
  std::shared_ptr<Batch> new_batch();
  void recycle(std::shared_ptr<Batch> batch);

  MessageBroker::State& state_;
  Custody* custody_;             // null where the transport has none
  Duration gathering_time_;
  std::size_t limit_;
  std::size_t at_once_;
  std::deque<std::shared_ptr<Batch>> waiting_;  // the last is being filled
  std::deque<std::shared_ptr<Batch>> under_way_;
  std::vector<std::shared_ptr<Batch>> idle_batches_;  // their memory is used again
  std::size_t messages_under_way_ = 0;
  std::size_t charges_ = 0;      // of the transport's, that have not ended
  std::size_t coming_back_ = 0;  // of those, with messages that have to be tried again
  std::uint64_t batches_ = 0;    // that were begun to be sent
  std::deque<Passing*> passing_;  // publishes that wait behind what is here, in order
  std::uint64_t added_ = 0;       // messages, ever
  std::uint64_t left_ = 0;        // of those, that wait no more
  std::size_t unconfirmed_ = 0;  // waiting or under way
  bool running_ = false;
  bool idle_ = false;            // the sender could take another message
  Signal moved_;                 // for publishers
  Signal changed_;               // for the sender
  FlushReport report_;
};

}  // namespace maestro::messaging

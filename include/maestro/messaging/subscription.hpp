#pragma once

#include <maestro/messaging/transport.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace maestro::messaging {

struct SubscribeOptions {
  /// The group that shares the work. Absent: a private reader, which sees everything and settles nothing for others.
  std::optional<std::string> group_id = std::nullopt;
  /// Where a new group, or a private reader, starts. Default: the configured one, else `earliest`.
  std::optional<OffsetReset> auto_offset_reset = std::nullopt;
  /// Asking for the next message acknowledges the last. Default: the configured one, else true.
  std::optional<bool> enable_auto_commit = std::nullopt;
  /// Messages fetched ahead of need, 1 at least. Default: `prefetch`.
  std::optional<std::size_t> prefetch = std::nullopt;
};

/// A subscription read by hand. Use it from the broker's executor, by one coroutine at a time. Destroying it without
/// `close()` is as if this member had died: what it has not settled goes to another.
class Subscription {
 public:
  class State;
  explicit Subscription(std::shared_ptr<State> state);
  Subscription(Subscription&&) noexcept;
  Subscription& operator=(Subscription&&) noexcept;
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;
  ~Subscription();

  /// The next message; none once the subscription was closed or the broker disconnected. Acknowledges the message before
  /// it (unless `enable_auto_commit` is false): at least once, never at most once. Cancelling it loses no message.
  /// Throws `MessagingError(connection_failed | broker_error)` when the subscription is lost for good.
  awaitable<std::optional<Message>> next();

  /// For a caller that has no coroutine: what was fetched already, by `ready()`, `next()` or `next_batch()`. None when
  /// that is used up, and once closed, and nothing was acknowledged then. They never ask the broker: on a fresh
  /// subscription they give nothing, however much waits there, until `ready()` was awaited. That acknowledges what was
  /// handed out, like `next()`, fetches, and completes when there is something to take: false once closed. It hands out
  /// nothing, so that cancelling it loses nothing.
  std::optional<Message> try_next();
  std::vector<Message> try_next_batch(std::size_t at_most = 500);
  awaitable<bool> ready();

  /// At least one message and at most `at_most`, which is 1 or more; empty once closed. Acknowledges the batch before
  /// it, like `next()`.
  awaitable<std::vector<Message>> next_batch(std::size_t at_most = 500);

  /// Accepts the message as done; sent to the broker with the next batch of acknowledgements or `commit()`. Like `release` and `commit`
  /// it throws `closed` once the subscription or its broker is.
  void acknowledge(const Message& message);
  void acknowledge(std::span<const Message> messages);
  /// Gives the message back, to be delivered again after `delay`: 366 days at most. Throws `unsupported` where the
  /// broker cannot.
  void release(const Message& message, Duration delay = Duration::zero());
  /// Acknowledges all that was handed out so far; completes when the broker has it. Throws `not_owned` when a partition was lost
  /// meanwhile, whose messages come again, and `closed` from when on another member uses this one's `group_instance_id`.
  awaitable<void> commit();

  /// Stops deliveries at once, without losing the place in the group: until `resume()`, `next()` waits. Messages fetched ahead are kept.
  void pause();
  void resume();
  /// Goes on from `offset` in one partition of the topic; `beginning` and `end` for either end, which is also where what is
  /// beyond it goes. Throws `invalid_argument` for any other negative offset, and for what the subscription cannot have; `not_owned` for a partition that is
  /// another member's: on Kafka at once while nothing changes in the group, else when the rebalance is over. There the first message
  /// from the new place comes when the fetch that is under way is over, which waits for half a second where nothing is written.
  awaitable<void> seek(std::string topic, std::int32_t partition, std::int64_t offset);
  /// Goes on from the first message of the partition that is not older than `time` by the broker's clock, or from the end. Throws
  /// `unsupported` for a broker that cannot look messages up by time.
  awaitable<void> seek(std::string topic, std::int32_t partition, Timestamp time);
  static constexpr std::int64_t beginning = -1;
  static constexpr std::int64_t end = -2;

  /// Leaves the group; what was handed out and not acknowledged is delivered again to another member. Ends `next()`.
  awaitable<void> close();

 private:
  friend class Transaction;
  std::shared_ptr<State> state_;
};

}  // namespace maestro::messaging

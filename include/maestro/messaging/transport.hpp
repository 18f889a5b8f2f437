#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <maestro/messaging/capabilities.hpp>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/message.hpp>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace maestro::messaging {

template <class T>
using awaitable = boost::asio::awaitable<T>;

enum class OffsetReset { earliest, latest };

struct SubscribeRequest {
  std::string topic;                  ///< A topic or a pattern, validated.
  std::optional<std::string> group;   ///< Absent: a private reader that sees everything.
  OffsetReset auto_offset_reset = OffsetReset::earliest;
  std::size_t prefetch = 1024;        ///< Unsettled deliveries that the transport may hand out.
  bool keeps_shares = false;          ///< A part of `prefetch` is kept for each partition: one may not hold up the others.
};

struct PartitionLag {
  std::string topic;
  std::int32_t partition = -1;
  std::int64_t lag = 0;               ///< Messages that the group has not settled.
  std::optional<std::string> group;   ///< Absent: of a private reader, and by a transport, which knows one only.
};

struct SubscriptionState {
  bool connected = false;
  bool paused = false;
  std::vector<PartitionLag> lag;
};

/// A transport's side of a subscription. One consumer on the transport's executor uses it.
class TransportSubscription {
 public:
  virtual ~TransportSubscription() = default;   ///< Without `close()` first: as if this member had died.

  /// Appends what is ready, at most `at_most`, without waiting. Returns how many; throws when the subscription is lost for good.
  virtual std::size_t take(std::vector<Message>& into, std::size_t at_most) = 0;
  /// Completes when `take` may have something (or throws). Cancelling it loses no message, for it takes none.
  virtual awaitable<void> wait() = 0;

  /// Accepts settled deliveries; sent to the broker in batches. Deliveries that are not this member's any more are ignored.
  /// With `Acknowledgement::cumulative` a tag stands for all in its lane up to it.
  virtual void acknowledge(std::span<const DeliveryTag> tags) = 0;
  /// Gives deliveries back, to be handed out again (to any member) after `delay`.
  virtual void release(std::span<const DeliveryTag> tags, Duration delay) = 0;
  /// Grows when deliveries that were handed out and not settled are another member's from now on, which gets them
  /// again. Whoever keeps some then looks which those are, and handles them no more.
  [[nodiscard]] virtual std::uint64_t losses() const noexcept { return 0; }
  [[nodiscard]] virtual bool is_lost(DeliveryTag tag) const {
    static_cast<void>(tag);
    return false;
  }
  /// Completes when the broker has every acknowledgement accepted so far.
  virtual awaitable<void> commit() = 0;

  virtual void pause() = 0;
  /// Completes a `wait` that is under way, or else the next one.
  virtual void resume() = 0;
  /// Commits, leaves the group; unsettled deliveries go to other members. Nothing is handed out after it was called.
  virtual awaitable<void> close() = 0;

  /// Puts the group's place to `offset` in one partition; -1 is the beginning, -2 the end.
  virtual awaitable<void> seek(std::string topic, std::int32_t partition, std::int64_t offset) = 0;
  /// The offset of the first message of the partition that is not older than `time`; -2 where there is none. Throws `unsupported`
  /// for a broker that cannot look messages up by time.
  virtual awaitable<std::int64_t> offset_at(std::string topic, std::int32_t partition, Timestamp time) {
    static_cast<void>(topic), static_cast<void>(partition), static_cast<void>(time);
    throw MessagingError(errc::unsupported, "this broker does not look messages up by time; seek by offset");
  }
  virtual awaitable<SubscriptionState> state() = 0;
};

/// The connections of a transport that shares some among all that it does.
struct PoolFigures {
  std::size_t open = 0;
  std::size_t size = 0;               ///< That may be open at most.
  std::size_t outstanding = 0;        ///< Commands without an answer.
};

/// What a transport says beside its answers. Called on its executor.
struct TransportReports {
  /// A connection, its own or a subscription's, broke, or none could be made, and why. Whether a server still answers is for `ping` to say.
  std::function<void(const std::string& why)> lost = [](const auto&) {};
  /// A lost connection, its own or a subscription's, is there again.
  std::function<void()> reconnected = [] {};
  /// Every server that is needed answers.
  std::function<void()> whole = [] {};
  /// Something went wrong that no call throws: labels of `messaging_errors_total`.
  std::function<void(const std::string& operation, const std::string& error)> failed = [](const auto&, const auto&) {};
  std::function<void(const PoolFigures&)> pool = [](const PoolFigures&) {};
  /// A connection of the pool was closed, because it was idle, silent or broken.
  std::function<void(const std::string& reason)> pool_closed = [](const std::string&) {};
};

/// One broker's client as this library sees it. Lives on one executor (a strand, or an `io_context` run by one thread),
/// knows nothing of retries, dead letters, formats or metrics.
class Transport {
 public:
  virtual ~Transport() = default;
  [[nodiscard]] virtual Capabilities capabilities() const = 0;
  /// Throws `invalid_topic` for a name that is a topic's, but that this broker cannot carry.
  virtual void check_topic(std::string_view topic) const { static_cast<void>(topic); }
  /// Whether it is a topic in which a broker keeps its own books: nothing is replayed into it.
  [[nodiscard]] virtual bool is_internal(std::string_view topic) const {
    static_cast<void>(topic);
    return false;
  }
  /// The place that `Position::to_string()` shows like this.
  [[nodiscard]] virtual std::optional<Position> parse_position(std::string_view text) const {
    return Position::parse(text);
  }
  /// Learns again what `capabilities()` says of the server's settings, where it says anything. Throws when there is no
  /// server.
  virtual awaitable<void> learn() { co_return; }

  virtual awaitable<void> connect() = 0;
  /// Drains: nothing that was accepted is dropped.
  virtual awaitable<void> disconnect() = 0;
  /// A round trip to the server; throws when there is none.
  virtual awaitable<void> ping() = 0;
  /// Called once, before `connect()`.
  virtual void report_to(TransportReports reports) = 0;

  /// Completes when the broker has answered for every message, or at `deadline`: `results[i]` then says for each
  /// whether it was done, surely not done, or `outcome_unknown`. What was done may be moved from; a message with an error is as it
  /// was. When the connection breaks, everything after the first message that met it fails too, so that a retry keeps the order. Messages are taken in order before the first suspension,
  /// so that a caller may start the next batch without waiting. Throws only when cancelled.
  virtual awaitable<void> publish(std::span<OutgoingMessage> messages, std::span<PublishResult> results,
                                  TimePoint deadline) = 0;

  /// Publishes one message if the broker's answer is there without waiting: the way around a coroutine for a broker in this
  /// process. False when it would have to wait; then nothing was done.
  virtual bool publish_now(OutgoingMessage& message, PublishResult& result) {
    static_cast<void>(message);
    static_cast<void>(result);
    return false;
  }

  virtual awaitable<std::unique_ptr<TransportSubscription>> subscribe(SubscribeRequest request) = 0;
};

// Abilities that only some brokers have; a transport that has one inherits it too.

struct PartitionInfo {
  std::int32_t partition = 0;
  std::int64_t first = 0;             ///< The oldest position that is kept.
  std::int64_t next = 0;              ///< The position that the next message will get.
};

struct GroupInfo {
  std::string group;
  std::size_t members = 0;
  std::int64_t lag = 0;
};

struct TopicInfo {
  std::string name;
  std::vector<PartitionInfo> partitions;
  std::vector<GroupInfo> groups;
  std::int64_t messages = 0;          ///< Kept at the moment. Kafka counts what takes a place: a transaction's end, and what it dropped, too.
};

struct TopicSettings {
  std::optional<std::int32_t> partitions = std::nullopt;
  /// In the broker's own words, such as Kafka's `retention.ms`.
  std::map<std::string, std::string> configuration = {};
};

/// What changes something throws `outcome_unknown` where the answer does not come in time, or the change is not seen everywhere: it may
/// be made nevertheless.
class Administration {
 public:
  virtual ~Administration() = default;
  /// Those that this library can carry.
  virtual awaitable<std::vector<std::string>> list_topics() = 0;
  /// Throws `topic_not_found`.
  virtual awaitable<TopicInfo> describe_topic(std::string topic) = 0;
  /// Throws `already_exists`; `invalid_argument` for a setting that the broker does not take, `unsupported` where it has none.
  virtual awaitable<void> create_topic(std::string topic, TopicSettings settings) = 0;
  /// Completes when the brokers know it no more.
  virtual awaitable<void> delete_topic(std::string topic) = 0;
  /// Removes what is kept in the topic at the moment of the call; returns how many. The topic and its groups stay.
  virtual awaitable<std::int64_t> purge_topic(std::string topic) = 0;
};

/// Hears what became of messages that were handed over together. Called on the transport's executor.
class HandedOver {
 public:
  virtual ~HandedOver() = default;
  /// The one that was number `index` of them was not published: made anew from what was kept of it. They fail in any order.
  virtual void on_failure(std::size_t index, OutgoingMessage message, PublishResult result) = 0;
  /// The last call: every message has its answer, and `taken` of them are the broker's.
  virtual void on_end(std::size_t taken) = 0;
};

/// A transport whose client keeps by itself what waits to be published, tries it again and gives it up after `publish_timeout`.
class Custody {
 public:
  virtual ~Custody() = default;
  /// Takes for good as many of the first messages as it can without waiting, and returns how many; `outcome` hears of them, perhaps
  /// before this returns, and of nothing when there are none. Where one cannot be taken, the usual way is `Transport::publish`, and
  /// nothing is taken until what went that way before is the client's.
  virtual std::size_t hand_over(std::span<OutgoingMessage> messages, std::shared_ptr<HandedOver> outcome) = 0;
  /// For how long messages had better wait for others while what was handed over before has no answer: few large requests cost less.
  [[nodiscard]] virtual Duration gathering_time() const = 0;
};

struct TransactionAcknowledgement {
  TransportSubscription* subscription = nullptr;
  DeliveryTag tag;
};

class Transactions {
 public:
  virtual ~Transactions() = default;
  /// All of it takes effect at once, or nothing does; throws `transaction_aborted` with the reason, or the cause's own code where trying
  /// again is of no use: `not_owned` for a delivery that is no longer this member's. Deliveries are of groups.
  virtual awaitable<void> commit_transaction(std::span<OutgoingMessage> messages,
                                             std::span<const TransactionAcknowledgement> acknowledgements) = 0;
};

}  // namespace maestro::messaging

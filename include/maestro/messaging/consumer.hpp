#pragma once

#include <functional>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/circuit_breaker.hpp>
#include <maestro/messaging/deduplication.hpp>
#include <maestro/messaging/event.hpp>
#include <maestro/messaging/serializer.hpp>
#include <maestro/messaging/typed.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace maestro::messaging {

/// Which messages run one after the other.
enum class Ordering {
  key,        ///< Those of one key; without a key, those of one partition.
  partition,  ///< Those of one partition or queue.
  none,       ///< Any may run at once.
};

/// Options that are absent take the configured value (`consumer_config`, environment), else the default of the options table.
struct EventConsumerOptions {
  /// Default: `group_id`, else `client_id`, else `maestro`; logged.
  std::optional<std::string> group_id = std::nullopt;
  std::optional<std::size_t> concurrency = std::nullopt;   ///< Handlers that may run at once, over all topics. Default 1.
  Ordering ordering = Ordering::key;
  std::optional<int> max_retry_attempts = std::nullopt;    ///< After the first try. Default 3.
  std::optional<bool> enable_dead_letter_queue = std::nullopt;  ///< Default true.
  std::optional<Duration> initial_backoff = std::nullopt;  ///< Default 100 ms.
  std::optional<double> backoff_multiplier = std::nullopt; ///< Default 2.
  std::optional<Duration> max_backoff = std::nullopt;      ///< Default 30 s.
  std::optional<Duration> drain_timeout = std::nullopt;    ///< Default 30 s.
  std::optional<std::size_t> prefetch = std::nullopt;      ///< Unsettled messages held in this process. Default 1024.
  std::optional<OffsetReset> auto_offset_reset = std::nullopt;
  std::shared_ptr<DeduplicationStore> deduplication = nullptr;  ///< By message id, within the group. Default: none.
  Duration deduplication_lease = std::chrono::minutes(5);  ///< A claim older than this is a crashed one. A day at most.
  /// Pauses deliveries after failures in a row. Default: none.
  std::optional<CircuitBreakerOptions> circuit_breaker = std::nullopt;
  /// Where handlers run. Default: the broker's executor.
  std::optional<boost::asio::any_io_executor> handler_executor = std::nullopt;
  std::shared_ptr<Serializer> serializer = nullptr;        ///< Default: JSON.
};

using EventHandler = std::function<awaitable<void>(const Event&)>;

/// Thrown by a handler to dead-letter the message without retries.
class Rejected : public MessagingError {
 public:
  explicit Rejected(const std::string& reason) : MessagingError(errc::rejected, reason) {}
};
/// `throw Rejected(reason)`.
[[noreturn]] void reject(const std::string& reason);

/// An exception of another language, thrown by a handler that is written in it: what it says of itself goes into the
/// dead letter. `verdict` is `broker_error` for what may be tried again, else `rejected`, `undecodable` or
/// `invalid_event`. `cancelled`: the handler was cancelled, which is no failure of the message when the consumer stops.
class HandlerError : public MessagingError {
 public:
  HandlerError(errc verdict, std::string type, const std::string& text, std::string stack, bool cancelled = false)
      : MessagingError(verdict, text), type_(std::move(type)), stack_(std::move(stack)), cancelled_(cancelled) {}
  [[nodiscard]] const std::string& type() const noexcept { return type_; }
  [[nodiscard]] const std::string& stack() const noexcept { return stack_; }
  [[nodiscard]] bool cancelled() const noexcept { return cancelled_; }

 private:
  std::string type_;
  std::string stack_;
  bool cancelled_;
};

struct ConsumerCounts {
  std::uint64_t received = 0;       ///< Deliveries, redeliveries included.
  std::uint64_t handled = 0;        ///< Settled after the handler returned.
  std::uint64_t retried = 0;        ///< Tries after the first.
  std::uint64_t dead_lettered = 0;
  std::uint64_t discarded = 0;      ///< Exhausted with dead letters switched off.
  std::uint64_t duplicates = 0;     ///< Settled without the handler, for their id was done.
};

/// Runs handlers over the events of its topics: in parallel, in order for each key, with retries, dead letters,
/// deduplication and a circuit breaker.
class EventConsumer {
 public:
  class Route {
   public:
    /// Failed messages go to this topic, instead of `{topic}.{group}.dlq`.
    Route& on_error(std::string dead_letter_topic);

   private:
    friend class EventConsumer;
    struct State;
    explicit Route(std::shared_ptr<State> state) : state_(std::move(state)) {}
    std::shared_ptr<State> state_;
  };

  /// Throws `invalid_option` for an option out of the range that the options table has for it, `invalid_argument` for a
  /// group whose name cannot be part of a topic's.
  explicit EventConsumer(MessageBroker broker, EventConsumerOptions options = {});

  /// Registers a handler; before `start()`. A handler that returns has succeeded, one that throws is retried. Throws
  /// `invalid_argument` when this consumer has a handler for the same topic, or for a pattern that stands for it or is
  /// stood for by it: the two would share the messages. Patterns that may meet in a topic (`*.created` and `orders.*`)
  /// are not told apart: each message of such a topic goes to one of their handlers. The handler must be copyable and
  /// outlive nothing: it is kept by the consumer.
  Route subscribe(std::string topic_or_pattern, EventHandler handler);

  /// The same with the event's data as a described struct. What does not fit is dead-lettered, every wrong field named.
  template <DescribedEvent T, class Handler>
  Route subscribe(std::string topic_or_pattern, Handler handler) {
    return add(std::move(topic_or_pattern), [handler = std::move(handler)](const Event& event) {
      return typed_call<T>(handler, event);
    });
  }

  /// Consumes until `stop()` or cancellation, then drains: stops fetching, lets running handlers finish for up to
  /// `drain_timeout`, settles, leaves the group. First logs `explain()`. Throws `already_started` while it runs,
  /// `unsupported` when the broker cannot keep a promise that the options ask for, `invalid_topic` when a dead-letter
  /// topic cannot be, and what ended a subscription for good.
  awaitable<void> start();
  /// Ends `start()`, also one that waits for the broker or has not begun; returns at once. Before the first `start()` it
  /// ends that one; when the consumer has run and does not any more, it does nothing. May be called from any
  /// thread and from within a handler.
  void stop();

  /// What is in force for each subscription: guarantee, owner of the retries, dead-letter topic, contradictions.
  [[nodiscard]] std::string explain() const;
  /// The group in force: the option's, else the configured one, else the default.
  [[nodiscard]] const std::string& group() const noexcept;
  [[nodiscard]] ConsumerCounts counts() const;
  [[nodiscard]] CircuitState circuit() const;
  /// Whether it runs and its circuit lets messages through: a check for `MonitoringServer::add_readiness`. Any executor. Whether its
  /// subscriptions make progress is the broker's `readiness()`.
  awaitable<ReadinessReport> readiness();
  /// Stops and goes on with deliveries, keeping the place in the group.
  void pause();
  void resume();

  class State;

 private:
  template <class T, class Handler>
  static awaitable<void> typed_call(const Handler& handler, const Event& event) {
    const auto data = from_value<T>(event.data());
    if constexpr (std::is_invocable_v<const Handler&, const T&, const Event&>) {
      co_await handler(data, event);
    } else {
      co_await handler(data);
    }
  }
  Route add(std::string topic_or_pattern, EventHandler handler);

  std::shared_ptr<State> state_;
};

}  // namespace maestro::messaging

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/unordered/unordered_flat_map.hpp>
#include <maestro/messaging/broker.hpp>
#include <memory>
#include <random>

#include "messaging/checked_administration.hpp"
#include "messaging/lag_reporter.hpp"
#include "messaging/publish_buffer.hpp"
#include "messaging/telemetry.hpp"
#include "runtime/signal.hpp"

namespace maestro::messaging {

/// What a subscription is to its broker: something that counts for health and status, and that is closed with it.
class Attached {
 public:
  Attached() = default;
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;
  virtual ~Attached() { end_lag_reports(); }
  [[nodiscard]] virtual const std::string& topic() const noexcept = 0;
  [[nodiscard]] virtual const std::optional<std::string>& group() const noexcept = 0;
  virtual awaitable<SubscriptionState> subscription_state() = 0;
  /// When it last took or settled something.
  [[nodiscard]] virtual TimePoint last_progress() const noexcept = 0;
  virtual awaitable<void> commit_handed_out() = 0;
  virtual awaitable<void> close() = 0;

  void report_lag(std::shared_ptr<LagReporter> reporter) { lag_reporter_ = std::move(reporter); }
  void end_lag_reports() {
    if (const auto reporter = std::exchange(lag_reporter_, nullptr)) reporter->stop();
  }

 private:
  std::shared_ptr<LagReporter> lag_reporter_;
};

class MessageBroker::State : public std::enable_shared_from_this<MessageBroker::State> {
 public:
  State(boost::asio::any_io_executor executor, MessagingConfig config);
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State();

  awaitable<void> connect();
  awaitable<void> disconnect();
  /// Connects, and waits for a broker that is not there yet.
  awaitable<void> await_connection();
  /// `began`: a recent reading of the clock, if the caller has one.
  awaitable<Receipt> publish(OutgoingMessage message, std::optional<TimePoint> began = std::nullopt);
  std::optional<Receipt> try_publish(OutgoingMessage& message, bool confirm);
  awaitable<std::vector<PublishResult>> publish_many(std::vector<OutgoingMessage> messages);
  awaitable<Receipt> enqueue(OutgoingMessage message);
  awaitable<FlushReport> flush();
  awaitable<std::unique_ptr<TransportSubscription>> open(SubscribeRequest request);
  awaitable<void> commit_all();
  awaitable<void> transaction(std::function<awaitable<void>(Transaction&)> body);
  awaitable<bool> health_check();
  awaitable<BrokerStatus> status();
  awaitable<ReadinessReport> readiness();

  /// Throws `closed` after `disconnect()`.
  void require_open() const {
    if (closed_) throw_closed();
  }
  void attach(const std::shared_ptr<Attached>& attached);
  void count_received(std::uint64_t messages) noexcept { received_ += messages; }
  /// Publishes on this executor, for the library itself: no hop, no exception for a failed message.
  awaitable<PublishResult> publish_result(OutgoingMessage message);
  /// The same for a message that takes the place of a delivery. Where the broker has transactions and settles each delivery by itself,
  /// both happen in one step; the caller settles it in any case, which changes nothing then.
  awaitable<PublishResult> publish_for(OutgoingMessage message, TransportSubscription& subscription, DeliveryTag tag);

  boost::asio::any_io_executor executor;
  MessagingConfig config;
  std::shared_ptr<Clock> clock;
  Options options;
  std::mt19937_64 random;
  std::unique_ptr<Transport> transport;
  std::optional<CheckedAdministration> administration;
  Capabilities capabilities;
  /// Null without `enable_monitoring`.
  std::shared_ptr<Telemetry> telemetry;
  PublishBuffer buffer;

 private:
  friend class PublishBuffer;
  /// A publish that the breaker allowed, with its number among all.
  struct PublishCall : CircuitBreaker::Call {
    std::uint64_t number = 0;
  };
  [[nodiscard]] bool on_executor() const noexcept { return is_running_here_(executor); }
  [[noreturn]] static void throw_closed();
  /// Counts a message that the broker took; says once a topic that nobody is there to get them.
  void count_published(TopicTelemetry& cells, const Receipt& receipt);
  /// Runs the same member on this broker's executor, for a caller on another.
  template <class Result, class... Arguments>
  awaitable<Result> hop(awaitable<Result> (State::*work)(Arguments...), Arguments... arguments);
  /// Checks the name once, and keeps what is counted for it.
  TopicTelemetry& topic(const std::string& name);
  awaitable<void> ensure_connected();
  PublishCall require_closed_circuit() {
    const auto number = ++begun_;
    return circuit_suspect_ ? ask_breaker(number) : PublishCall{{}, number};
  }
  /// The same; messages that it refuses are counted as failed.
  PublishCall require_closed_circuit(std::span<const OutgoingMessage> messages);
  PublishCall ask_breaker(std::uint64_t number);
  /// One or many messages: transport, retries until `publish_timeout`, counts, the breaker's verdict. All topics are known.
  awaitable<void> send(std::span<OutgoingMessage> messages, std::span<PublishResult> results, PublishCall call);
  /// Connects where that is needed, and tries them once.
  awaitable<void> transmit(std::span<OutgoingMessage> messages, std::span<PublishResult> results, TimePoint began);
  /// The rest of `send` for messages that were tried once.
  awaitable<void> settle_failed(std::span<OutgoingMessage> messages, std::span<PublishResult> results, TimePoint began,
                                PublishCall call);
  /// Counts them and tells the breaker. True when all went well.
  bool finish(std::span<const OutgoingMessage> messages, std::span<const PublishResult> results, TimePoint began,
              PublishCall call);
  /// The same for messages of one topic that the broker took, of which nothing else is left.
  void finish_taken(TopicTelemetry& cells, std::size_t count, TimePoint began, PublishCall call);
  void count_ordinary(std::span<const PublishResult> results, TimePoint began);
  /// Tries again what surely was not done, until `publish_timeout` after `began`.
  awaitable<void> retry_failed(std::span<OutgoingMessage> messages, std::span<PublishResult> results, TimePoint began);
  void judge(std::span<const OutgoingMessage> messages, std::span<const PublishResult> results, TimePoint began,
             PublishCall call);
  /// The breaker has heard all that a call says; `all_ok` closes the case when it is closed.
  void conclude(TimePoint now, PublishCall call, bool all_ok);
  std::vector<std::shared_ptr<Attached>> open_subscriptions();
  /// In the metrics, when it has changed: other brokers show theirs in the same gauge.
  void show_circuit(CircuitState state);
  /// A round trip to the server. One that takes too long counts as unhealthy while it lasts, for whoever asked may give
  /// up.
  awaitable<void> ping();
  /// Asks a server that may be gone until it answers, so that the metrics tell of its return too.
  void watch_for_answer();
  static awaitable<void> ask_until_answered(std::weak_ptr<State> weak, std::shared_ptr<Clock> clock, TimePoint begin);

  using IsRunningHere = bool (*)(const boost::asio::any_io_executor&) noexcept;
  IsRunningHere is_running_here_;
  boost::unordered_flat_map<std::string, std::unique_ptr<TopicTelemetry>> topics_;
  std::pair<std::string, TopicTelemetry*> last_topic_;  // messages of a topic come in runs
  CircuitBreaker breaker_;
  /// Publishes begun, and those of them that had begun when the last failure was counted: what was under way together fails together,
  /// with one broken connection, and counts once.
  std::uint64_t begun_ = 0;
  std::uint64_t counted_until_ = 0;
  /// False while the breaker is surely closed, so that nobody asks the clock.
  bool circuit_suspect_ = false;
  CircuitState shown_circuit_ = CircuitState::closed;
  Duration publish_timeout_;
  std::vector<std::weak_ptr<Attached>> attached_;
  bool connected_ = false;
  bool closed_ = false;
  bool connecting_ = false;
  Signal connected_or_not_;
  bool answers_ = false;  // at the last health check
  bool watching_ = false;
  TimePoint next_watch_ = TimePoint::min();  // a server that answers and hangs up is not asked without a pause
  bool ask_again_ = false;                   // a connection broke since the watch began, perhaps after it was answered
  /// The watch may outlive this.
  std::shared_ptr<boost::asio::cancellation_signal> end_of_watch_ =
      std::make_shared<boost::asio::cancellation_signal>();
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
  std::string last_error_;
  std::string lost_;  // why a connection was lost, or none could be made; empty once all is well again
  /// For a transport's reports: what of it outlives this must not reach it.
  std::shared_ptr<State*> here_ = std::make_shared<State*>(this);
};

}  // namespace maestro::messaging

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <concepts>
#include <functional>
#include <maestro/messaging/circuit_breaker.hpp>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/message.hpp>
#include <maestro/messaging/monitoring.hpp>
#include <maestro/messaging/subscription.hpp>
#include <maestro/messaging/transaction.hpp>
#include <maestro/messaging/transport.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace maestro::messaging {

struct PublishOptions {
  std::optional<std::string> key = std::nullopt;  ///< Same key, same partition, in order.
  Headers headers = {};
  std::optional<std::int32_t> partition = std::nullopt;
  std::optional<Timestamp> timestamp = std::nullopt;
  /// False: completes when the bounded buffer has it; `flush()` reports what became of it.
  bool confirm = true;
};

/// What became of everything that was published with `confirm = false` since the last flush.
struct FlushReport {
  std::size_t confirmed = 0;
  struct Failure {
    OutgoingMessage message;
    boost::system::error_code error;
    std::string detail;
  };
  std::vector<Failure> failures;
};

struct BrokerStatus {
  bool connected = false;
  std::size_t subscription_count = 0;
  std::uint64_t messages_sent = 0;
  std::uint64_t messages_received = 0;
  std::vector<PartitionLag> lag;
  CircuitState circuit = CircuitState::closed;
  std::string last_error;
  /// What an acknowledged publish survives on this broker.
  std::string acknowledged_means;
};

/// The one door to a broker. A cheap handle: copies share the connection. Its state lives on the executor that it is given,
/// which must run one thing at a time: a strand, or an `io_context` run by one thread. `publish`, `publish_many`, `flush`,
/// `health_check`, `get_status` and `readiness` may be called from any executor; everything else belongs to the broker's own.
class MessageBroker {
 public:
  /// Throws `MessagingError(unknown_option | invalid_option)` for a bad configuration or the URL of another broker,
  /// `unsupported` for one that this build lacks. Connects to nothing yet.
  MessageBroker(boost::asio::any_io_executor executor, BrokerType type, std::string connection_string,
                ConfigMap connection_config = {}, bool enable_monitoring = false);
  MessageBroker(boost::asio::any_io_executor executor, std::string_view type, std::string connection_string,
                ConfigMap connection_config = {}, bool enable_monitoring = false);
  MessageBroker(boost::asio::any_io_executor executor, MessagingConfig config);
  static MessageBroker from_config(boost::asio::any_io_executor executor, MessagingConfig config);

  /// Completes when the broker has answered. Everything else connects by itself on first use. Throws
  /// `connection_failed`, `authentication_failed` or `tls_failed` within `connect_timeout`.
  awaitable<void> connect();
  /// Flushes, closes the subscriptions, leaves the groups. Afterwards every call throws `closed` but `flush()`, which tells what failed,
  /// and `next()` ends.
  awaitable<void> disconnect();

  /// Publishes a JSON value. Completes when the broker has it by the strongest means that it offers.
  /// Throws `invalid_topic`, `message_too_large`, `circuit_open`, `queue_full`, `timed_out` (surely not done) or
  /// `outcome_unknown` within `publish_timeout`. Cancelling it leaves the outcome unknown.
  awaitable<Receipt> publish(std::string topic, Value value, PublishOptions options = {});
  /// Publishes bytes as they are.
  template <std::same_as<Payload> Bytes>
  awaitable<Receipt> publish(std::string topic, Bytes payload, PublishOptions options = {}) {
    return publish_bytes(topic, payload, options);
  }
  awaitable<Receipt> publish(OutgoingMessage message);
  /// One round trip where the broker allows; a result for each message, in order.
  awaitable<std::vector<PublishResult>> publish_many(std::vector<OutgoingMessage> messages);
  /// Publishes, or with `confirm` false buffers, what needs no waiting: the way around a coroutine for a caller that has none. None
  /// when it would have to wait; the message is then as it was. On the broker's executor. Throws like `publish`.
  std::optional<Receipt> try_publish(OutgoingMessage& message, bool confirm = true);
  /// Buffers a message like `publish` with `confirm = false`.
  awaitable<Receipt> enqueue(OutgoingMessage message);
  /// Waits for everything that was published with `confirm = false`.
  awaitable<FlushReport> flush();

  /// Subscribes to a topic or a pattern; connects by itself.
  awaitable<Subscription> subscribe(std::string topic_or_pattern, SubscribeOptions options = {});
  /// Acknowledges all that every open subscription of this broker has handed out; completes when the broker has it.
  awaitable<void> commit();

  /// Runs the body; then everything that it put into the transaction takes effect at once. When the body throws,
  /// nothing does. Throws `unsupported` on a broker without transactions; `transaction_aborted` with the reason, when another
  /// try may help, else the cause's own code, such as `message_too_large` or `invalid_argument`; `not_owned` when a delivery is no longer
  /// this member's: leave what was read with it and read on; `outcome_unknown` when the answer to the commit did not come within
  /// `publish_timeout`: close the subscription and subscribe again, which goes on where the group stands; and `closed` when another
  /// program has taken over this one's `transactional_id`. Whoever reads on after any other of these, and settles what comes later,
  /// has settled what was in the transaction too: try again, or subscribe anew.
  awaitable<void> transaction(std::function<awaitable<void>(Transaction&)> body);

  /// A round trip to the broker; false when it fails, or when a subscription no longer makes progress. Never throws but for cancellation.
  awaitable<bool> health_check();
  awaitable<BrokerStatus> get_status();
  /// `health_check()` with its reasons, and whether the circuit is open: a check for `MonitoringServer::add_readiness`. Any executor.
  awaitable<ReadinessReport> readiness();

  [[nodiscard]] Capabilities capabilities() const;
  /// Its functions throw `invalid_topic` for a pattern and for what no topic can be called. Throws `unsupported` where
  /// the broker has no administration.
  [[nodiscard]] Administration& administration();
  [[nodiscard]] const MessagingConfig& config() const noexcept;
  [[nodiscard]] const Options& options() const noexcept;
  [[nodiscard]] boost::asio::any_io_executor executor() const noexcept;
  [[nodiscard]] const std::shared_ptr<Clock>& clock() const noexcept;

  class State;
  [[nodiscard]] const std::shared_ptr<State>& state() const noexcept { return state_; }

 private:
  /// Takes all of it over before it returns.
  awaitable<Receipt> publish_bytes(std::string& topic, Payload& payload, PublishOptions& options);

  std::shared_ptr<State> state_;
};

}  // namespace maestro::messaging

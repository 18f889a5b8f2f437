#include <boost/json/serialize.hpp>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/serializer.hpp>

#include "core/option_range.hpp"
#include "messaging/broker_state.hpp"
#include "messaging/subscription_state.hpp"

namespace maestro::messaging {

namespace {

MessagingConfig make_config(BrokerType type, std::string connection_string, ConfigMap connection_config, bool monitoring) {
  MessagingConfig config;
  config.broker_type = type;
  config.connection_string = std::move(connection_string);
  config.connection_config = std::move(connection_config);
  config.enable_monitoring = monitoring;
  return config;
}

boost::asio::any_io_executor not_empty(boost::asio::any_io_executor executor) {
  if (executor) return executor;
  throw MessagingError(errc::invalid_argument,
                       "executor: an empty one; allowed is one that runs, such as an io_context's");
}

OutgoingMessage make_message(std::string& topic, Payload& payload, PublishOptions& options) {
  return {std::move(topic),           std::move(payload), std::move(options.key),
          std::move(options.headers), options.partition,  options.timestamp};
}

}  // namespace

MessageBroker::MessageBroker(boost::asio::any_io_executor executor, MessagingConfig config)
    : state_(std::make_shared<State>(not_empty(std::move(executor)), std::move(config))) {}

MessageBroker::MessageBroker(boost::asio::any_io_executor executor, BrokerType type, std::string connection_string,
                             ConfigMap connection_config, bool enable_monitoring)
    : MessageBroker(std::move(executor),
                    make_config(type, std::move(connection_string), std::move(connection_config), enable_monitoring)) {}

MessageBroker::MessageBroker(boost::asio::any_io_executor executor, std::string_view type, std::string connection_string,
                             ConfigMap connection_config, bool enable_monitoring)
    : MessageBroker(std::move(executor), parse_broker_type(type), std::move(connection_string),
                    std::move(connection_config), enable_monitoring) {}

MessageBroker MessageBroker::from_config(boost::asio::any_io_executor executor, MessagingConfig config) {
  return {std::move(executor), std::move(config)};
}

awaitable<ReadinessReport> MessageBroker::readiness() { return state_->readiness(); }
awaitable<void> MessageBroker::connect() { return state_->connect(); }
awaitable<void> MessageBroker::disconnect() { return state_->disconnect(); }

awaitable<Receipt> MessageBroker::publish(std::string topic, Value value, PublishOptions options) {
  auto payload = JsonSerializer().serialize(value);
  return publish_bytes(topic, payload, options);
}

awaitable<Receipt> MessageBroker::publish_bytes(std::string& topic, Payload& payload, PublishOptions& options) {
  return options.confirm ? state_->publish(make_message(topic, payload, options))
                         : state_->enqueue(make_message(topic, payload, options));
}

awaitable<Receipt> MessageBroker::publish(OutgoingMessage message) { return state_->publish(std::move(message)); }

awaitable<std::vector<PublishResult>> MessageBroker::publish_many(std::vector<OutgoingMessage> messages) {
  return state_->publish_many(std::move(messages));
}

std::optional<Receipt> MessageBroker::try_publish(OutgoingMessage& message, bool confirm) {
  return state_->try_publish(message, confirm);
}
awaitable<Receipt> MessageBroker::enqueue(OutgoingMessage message) { return state_->enqueue(std::move(message)); }

awaitable<FlushReport> MessageBroker::flush() { return state_->flush(); }

awaitable<Subscription> MessageBroker::subscribe(std::string topic_or_pattern, SubscribeOptions options) {
  auto state = state_;
  const auto& configured = state->options;
  SubscribeRequest request;
  request.topic = std::move(topic_or_pattern);
  request.group = std::move(options.group_id);
  request.auto_offset_reset = options.auto_offset_reset.value_or(
      configured.text("auto_offset_reset") == "latest" ? OffsetReset::latest : OffsetReset::earliest);
  request.prefetch = options.prefetch.value_or(static_cast<std::size_t>(configured.integer("prefetch")));
  require_in_range("prefetch", request.prefetch);
  require_one_of("auto_offset_reset", static_cast<int>(request.auto_offset_reset), {"earliest", "latest"});
  const bool auto_commit = options.enable_auto_commit.value_or(configured.boolean("enable_auto_commit"));
  auto transport = co_await state->open(request);
  auto subscription = std::make_shared<Subscription::State>(state, std::move(request), auto_commit, std::move(transport));
  state->attach(subscription);
  co_return Subscription(std::move(subscription));
}

awaitable<void> MessageBroker::commit() { return state_->commit_all(); }

awaitable<void> MessageBroker::transaction(std::function<awaitable<void>(Transaction&)> body) {
  return state_->transaction(std::move(body));
}

awaitable<bool> MessageBroker::health_check() { return state_->health_check(); }
awaitable<BrokerStatus> MessageBroker::get_status() { return state_->status(); }

Capabilities MessageBroker::capabilities() const { return state_->capabilities; }

Administration& MessageBroker::administration() {
  state_->require_open();
  if (state_->administration) return *state_->administration;
  throw MessagingError(errc::unsupported, state_->capabilities.broker + " has no administration of topics");
}

const MessagingConfig& MessageBroker::config() const noexcept { return state_->config; }
const Options& MessageBroker::options() const noexcept { return state_->options; }
boost::asio::any_io_executor MessageBroker::executor() const noexcept { return state_->executor; }
const std::shared_ptr<Clock>& MessageBroker::clock() const noexcept { return state_->clock; }

}  // namespace maestro::messaging

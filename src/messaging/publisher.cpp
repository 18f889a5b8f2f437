#include <maestro/messaging/publisher.hpp>

#include "messaging/broker_state.hpp"

namespace maestro::messaging {

struct EventPublisher::State {
  std::shared_ptr<Serializer> serializer;
  std::string content_type;
  std::string source;
  IdGenerator ids;
  std::mt19937_64 traces;
};

EventPublisher::EventPublisher(MessageBroker broker, PublisherOptions options)
    : EventPublisher(std::move(broker), std::make_shared<JsonSerializer>(), std::move(options)) {}

EventPublisher::EventPublisher(MessageBroker broker, std::shared_ptr<Serializer> serializer, PublisherOptions options)
    : broker_(std::move(broker)) {
  auto& random = broker_.state()->random;
  state_ = std::make_shared<State>(State{serializer, serializer->content_type(),
                                         options.source.value_or(broker_.options().text_if("client_id").value_or("maestro")),
                                         IdGenerator(random()), std::mt19937_64(random())});
}

OutgoingMessage EventPublisher::make_message(std::string topic, const Value& data, EventOptions options) {
  const auto now = broker_.clock()->wall();
  auto& attributes = options.attributes;
  if (!attributes.id) attributes.id = state_->ids.next(now);
  if (!attributes.source) attributes.source = state_->source;
  if (!attributes.type) attributes.type = std::string(event_type_of(data, topic));
  if (!attributes.time) attributes.time = now;
  OutgoingMessage message;
  write_event_headers(message.headers, attributes, state_->content_type);
  for (const auto& [name, value] : options.headers) message.headers.set(name, value);
  if (!options.headers.find("traceparent")) {
    const auto trace = make_traceparent(state_->traces);
    message.headers.add("traceparent", {trace.data(), trace.size()});
  }
  message.topic = std::move(topic);
  message.payload = state_->serializer->serialize(data);
  message.key = std::move(options.key);
  return message;
}

awaitable<Receipt> EventPublisher::publish(std::string topic, Value data, EventOptions options) {
  const bool confirm = options.confirm;
  auto message = make_message(std::move(topic), data, std::move(options));
  const auto& state = broker_.state();
  return confirm ? state->publish(std::move(message)) : state->enqueue(std::move(message));
}

}  // namespace maestro::messaging

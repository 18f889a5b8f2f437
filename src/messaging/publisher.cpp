#include <fmt/format.h>

#include <maestro/messaging/publisher.hpp>
#include <maestro/messaging/utf8.hpp>

#include "core/control_characters.hpp"
#include "core/readable.hpp"
#include "messaging/broker_state.hpp"
#include "serialization/event_envelope.hpp"

namespace maestro::messaging {

namespace {

std::string checked_source(std::string source) {
  if (!source.empty() && is_utf8(source) && without_control_characters(source) == source) return source;
  throw MessagingError(
      errc::invalid_option,
      fmt::format("source: \"{}\"; allowed is text that is not empty, without control characters", readable(source)));
}

std::shared_ptr<Serializer> not_null(std::shared_ptr<Serializer> serializer) {
  if (serializer) return serializer;
  throw MessagingError(errc::invalid_argument, "serializer: none; allowed is JsonSerializer or one of your own");
}

/// CloudEvents has none that are empty, and who deduplicates takes all of them for one.
void check(const EventAttributes& attributes) {
  for (const auto& [name, value] :
       {std::pair("id", &attributes.id), {"source", &attributes.source}, {"type", &attributes.type}})
    if (*value && (*value)->empty())
      throw MessagingError(
          errc::invalid_argument,
          fmt::format("attributes.{}: \"\"; allowed is text that is not empty, or none for the publisher's own", name));
}

}  // namespace

struct EventPublisher::State {
  State(std::shared_ptr<Serializer> with, std::string from, std::mt19937_64& random)
      : serializer(not_null(std::move(with))),
        content_type(serializer->content_type()),
        source(std::move(from)),
        ids(random()),
        traces(random()),
        envelope(source, content_type, traces) {}

  /// `type`: of an event whose attributes name none.
  Headers headers(std::string_view type, Timestamp now, EventOptions& options);

  std::shared_ptr<Serializer> serializer;
  std::string content_type;
  std::string source;
  IdGenerator ids;
  std::mt19937_64 traces;
  EventEnvelope envelope;
};

Headers EventPublisher::State::headers(std::string_view type, Timestamp now, EventOptions& options) {
  auto& attributes = options.attributes;
  check(attributes);
  const bool ordinary = !attributes.id && !attributes.source && !attributes.subject && !attributes.time;
  if (ordinary && options.headers.empty())
    return envelope.make(attributes.type ? *attributes.type : type, now, ids, traces);
  if (!attributes.id) attributes.id = ids.next(now);
  if (!attributes.source) attributes.source = source;
  if (!attributes.type) attributes.type = std::string(type);
  if (!attributes.time) attributes.time = now;
  Headers headers;
  write_event_headers(headers, attributes, content_type);
  // What is given stands in place of what is made here, repeated names and all.
  for (const auto& [name, value] : options.headers) headers.remove(name);
  for (const auto& [name, value] : options.headers) headers.add(name, value);
  if (!options.headers.find("traceparent")) {
    const auto trace = make_traceparent(traces);
    headers.add("traceparent", {trace.data(), trace.size()});
  }
  return headers;
}

EventPublisher::EventPublisher(MessageBroker broker, PublisherOptions options)
    : EventPublisher(std::move(broker), std::make_shared<JsonSerializer>(), std::move(options)) {}

EventPublisher::EventPublisher(MessageBroker broker, std::shared_ptr<Serializer> serializer, PublisherOptions options)
    : broker_(std::move(broker)),
      state_(std::make_shared<State>(
          std::move(serializer),
          checked_source(options.source.value_or(broker_.options().text_if("client_id").value_or("maestro"))),
          broker_.state()->random)) {}

OutgoingMessage EventPublisher::make_message(std::string topic, const Value& data, EventOptions options) {
  return make(topic, data, options, broker_.clock()->wall());
}

OutgoingMessage EventPublisher::make_message(std::string topic, Payload payload, std::string_view type, EventOptions options) {
  return make(topic, std::move(payload), type, options, broker_.clock()->wall());
}

OutgoingMessage EventPublisher::make(std::string& topic, const Value& data, EventOptions& options, Timestamp now) {
  auto payload = state_->serializer->serialize(data);
  return make(topic, std::move(payload), event_type_of(data, topic), options, now);
}

OutgoingMessage EventPublisher::make(std::string& topic, Payload payload, std::string_view type, EventOptions& options,
                                     Timestamp now) {
  auto headers = state_->headers(type, now, options);  // before the topic is moved, for the type may be a view of it
  return {std::move(topic), std::move(payload), std::move(options.key), std::move(headers), std::nullopt, now};
}

awaitable<Receipt> EventPublisher::publish(std::string topic, Value data, EventOptions options) {
  const auto& state = broker_.state();
  const auto now = state->clock->now();
  const auto wall = state->clock->wall_at(now);
  return options.confirm ? state->publish(make(topic, data, options, wall), now) : state->enqueue(make(topic, data, options, wall));
}

}  // namespace maestro::messaging

#pragma once

#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/event.hpp>
#include <maestro/messaging/serializer.hpp>
#include <maestro/messaging/typed.hpp>
#include <memory>

namespace maestro::messaging {

struct EventOptions {
  std::optional<std::string> key = std::nullopt;
  /// Attributes that are absent are filled in: a fresh id, the publisher's source, the type from the data, the time.
  EventAttributes attributes = {};
  /// Come after the event's own; one under a name of the event's own stands in its place. Names may repeat.
  Headers headers = {};
  bool confirm = true;
};

struct PublisherOptions {
  /// `ce_source`; default: `client_id`, else `maestro`.
  std::optional<std::string> source = std::nullopt;
};

/// Publishes events: a serialized payload with its CloudEvents 1.0 attributes (binary mode) and a trace context.
class EventPublisher {
 public:
  /// Throws `MessagingError(invalid_option)` for an empty source, or one with control characters, `invalid_argument`
  /// without a serializer.
  explicit EventPublisher(MessageBroker broker, PublisherOptions options = {});
  EventPublisher(MessageBroker broker, std::shared_ptr<Serializer> serializer, PublisherOptions options = {});

  /// Completes and fails like `MessageBroker::publish`.
  awaitable<Receipt> publish(std::string topic, Value data, EventOptions options = {});

  template <DescribedEvent T>
  awaitable<Receipt> publish(std::string topic, const T& event, EventOptions options = {}) {
    return publish(std::move(topic), to_value(event), std::move(options));
  }

  /// The message that `publish` would send.
  [[nodiscard]] OutgoingMessage make_message(std::string topic, const Value& data, EventOptions options = {});
  /// The message of an event whose data is serialized already, in the publisher's format; `type` where the attributes have none.
  [[nodiscard]] OutgoingMessage make_message(std::string topic, Payload payload, std::string_view type, EventOptions options = {});

 private:
  struct State;
  OutgoingMessage make(std::string& topic, const Value& data, EventOptions& options, Timestamp now);
  OutgoingMessage make(std::string& topic, Payload payload, std::string_view type, EventOptions& options, Timestamp now);
  MessageBroker broker_;
  std::shared_ptr<State> state_;
};

}  // namespace maestro::messaging

#include <maestro/messaging/serializer.hpp>
#include <maestro/messaging/transaction.hpp>

namespace maestro::messaging {

void Transaction::publish(std::string topic, Value value, std::optional<std::string> key) {
  OutgoingMessage message;
  message.topic = std::move(topic);
  message.payload = JsonSerializer().serialize(value);
  message.key = std::move(key);
  publish(std::move(message));
}

void Transaction::publish(OutgoingMessage message) { messages_.push_back(std::move(message)); }

void Transaction::acknowledge(const Subscription& subscription, const Message& message) {
  settled_.push_back({subscription.state_, message.tag()});
}

}  // namespace maestro::messaging

#pragma once

#include <maestro/messaging/message.hpp>
#include <maestro/messaging/subscription.hpp>
#include <string>
#include <vector>

namespace maestro::messaging {

/// Publishes and acknowledgements that take effect together, or not at all. Collected here; sent by
/// `MessageBroker::transaction()` when its body returns, dropped when the body throws.
class Transaction {
 public:
  void publish(std::string topic, Value value, std::optional<std::string> key = std::nullopt);
  void publish(OutgoingMessage message);
  /// Acknowledges a message of this subscription, and all before it in its partition where the broker keeps positions.
  /// Of one without a group nothing is kept, and so nothing takes effect.
  void acknowledge(const Subscription& subscription, const Message& message);

 private:
  friend class MessageBroker;
  std::vector<OutgoingMessage> messages_;
  struct Settled {
    std::shared_ptr<Subscription::State> subscription;
    DeliveryTag tag;
  };
  std::vector<Settled> settled_;
};

}  // namespace maestro::messaging

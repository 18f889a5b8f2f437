#pragma once

#include "brokers/redis/publisher.hpp"

namespace maestro::messaging::redis {

/// Publishes with `PUBLISH`: the answer says how many connections were listening.
class ChannelPublisher final : public Publisher {
 public:
  explicit ChannelPublisher(std::shared_ptr<Session> session);

 protected:
  [[nodiscard]] std::optional<Failure> refusal(const OutgoingMessage& message) const override;
  void append(std::string& to, const OutgoingMessage& message) override;
  void confirm(PublishResult& result, OutgoingMessage& message, const Value& reply) override;
  void begin(Batch&) override {}
  awaitable<void> settle(std::shared_ptr<Connection>, std::shared_ptr<Batch>, TimePoint) override { co_return; }

 private:
  bool envelope_;
  std::string topic_;      // messages of a topic come in runs,
  std::string beginning_;  // whose commands begin alike
  bool require_routing_;
};

}  // namespace maestro::messaging::redis

#pragma once

#include <memory>

#include "brokers/kafka/consumer.hpp"

namespace maestro::messaging::kafka {

/// The port's face of a `Consumer`, which may outlive it while it leaves the group.
class KafkaSubscription final : public TransportSubscription {
 public:
  explicit KafkaSubscription(std::shared_ptr<Consumer> consumer) : consumer_(std::move(consumer)) {}
  ~KafkaSubscription() override { consumer_->abandon(); }
  KafkaSubscription(const KafkaSubscription&) = delete;
  KafkaSubscription& operator=(const KafkaSubscription&) = delete;

  std::size_t take(std::vector<Message>& into, std::size_t at_most) override { return consumer_->take(into, at_most); }
  awaitable<void> wait() override { return consumer_->wait(); }
  void acknowledge(std::span<const DeliveryTag> tags) override { consumer_->acknowledge(tags); }
  void release(std::span<const DeliveryTag> tags, Duration delay) override { consumer_->release(tags, delay); }
  [[nodiscard]] std::uint64_t losses() const noexcept override { return consumer_->losses(); }
  [[nodiscard]] bool is_lost(DeliveryTag tag) const override { return consumer_->is_lost(tag); }
  awaitable<void> commit() override { return consumer_->commit(); }
  void pause() override { consumer_->pause(); }
  void resume() override { consumer_->resume(); }
  awaitable<void> close() override { return consumer_->close(); }
  awaitable<void> seek(std::string topic, std::int32_t partition, std::int64_t offset) override {
    return consumer_->seek(std::move(topic), partition, offset);
  }
  awaitable<std::int64_t> offset_at(std::string topic, std::int32_t partition, Timestamp time) override {
    return consumer_->offset_at(std::move(topic), partition, time);
  }
  awaitable<SubscriptionState> state() override { return consumer_->state(); }

  [[nodiscard]] const std::shared_ptr<Consumer>& consumer() const noexcept { return consumer_; }

 private:
  std::shared_ptr<Consumer> consumer_;
};

}  // namespace maestro::messaging::kafka

#include <maestro/messaging/subscription.hpp>

#include "messaging/subscription_state.hpp"

namespace maestro::messaging {

Subscription::Subscription(std::shared_ptr<State> state) : state_(std::move(state)) {}
Subscription::Subscription(Subscription&&) noexcept = default;
Subscription& Subscription::operator=(Subscription&&) noexcept = default;
Subscription::~Subscription() = default;

awaitable<std::optional<Message>> Subscription::next() { return state_->next(); }
std::optional<Message> Subscription::try_next() { return state_->try_next(); }
std::vector<Message> Subscription::try_next_batch(std::size_t at_most) { return state_->try_next_batch(at_most); }
awaitable<bool> Subscription::ready() { return state_->ready(); }
awaitable<std::vector<Message>> Subscription::next_batch(std::size_t at_most) { return state_->next_batch(at_most); }
void Subscription::acknowledge(const Message& message) { state_->acknowledge({&message, 1}); }
void Subscription::acknowledge(std::span<const Message> messages) { state_->acknowledge(messages); }
void Subscription::release(const Message& message, Duration delay) { state_->release(message, delay); }
awaitable<void> Subscription::commit() {
  state_->require_open();
  return state_->commit_handed_out();
}
void Subscription::pause() { state_->pause(); }
void Subscription::resume() { state_->resume(); }
awaitable<void> Subscription::seek(std::string topic, std::int32_t partition, std::int64_t offset) {
  return state_->seek(std::move(topic), partition, offset);
}
awaitable<void> Subscription::seek(std::string topic, std::int32_t partition, Timestamp time) {
  return state_->seek(std::move(topic), partition, time);
}
awaitable<void> Subscription::close() { return state_->close(); }

}  // namespace maestro::messaging

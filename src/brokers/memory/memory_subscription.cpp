#include "brokers/memory/memory_subscription.hpp"

#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/log.hpp>

namespace maestro::messaging::memory {

namespace asio = boost::asio;

MemorySubscription::MemorySubscription(std::shared_ptr<Session> session, SubscribeRequest request)
    : session_(std::move(session)),
      request_(std::move(request)),
      waker_(std::make_shared<Waker>(*session_->clock, session_->executor)) {
  // A private reader is a group of its own that nobody else can name, for a space cannot be in a group's name.
  group_ = request_.group ? *request_.group : fmt::format("private {}", static_cast<const void*>(waker_.get()));
  session_->hub->join(member(), request_, group_, session_->limits);
}

MemorySubscription::~MemorySubscription() { leave(); }

void MemorySubscription::leave() {
  if (std::exchange(closed_, true)) return;
  session_->hub->leave(member(), group_, !request_.group);
  waker_->wake();
}

void MemorySubscription::require_open() const {
  if (closed_) throw MessagingError(errc::closed, fmt::format("the subscription to \"{}\" was closed", request_.topic));
}

void MemorySubscription::reconnect() {
  log(LogLevel::warning, "connection lost; reconnected",
      {{"broker", "memory"}, {"topic", request_.topic}, {"group", group_}});
  session_->hub->leave(member(), group_, false);
  session_->hub->join(member(), request_, group_, session_->limits);
  session_->reports.reconnected();
}

std::size_t MemorySubscription::take(std::vector<Message>& into, std::size_t at_most) {
  require_open();
  if (paused_) return 0;
  auto& faults = session_->faults;
  if (faults.connection_breaks()) reconnect();
  Hub::TakeOptions options{session_->clock->now(), session_->rebalance_timeout, {}, {}};
  if (faults.may_duplicate()) options.duplicate = [&faults] { return faults.duplicates(); };
  if (faults.may_delay()) options.delay = [&faults] { return faults.delay(); };
  return session_->hub->take(member(), group_, into, at_most, options);
}

awaitable<void> MemorySubscription::wait() {
  // Messages may always be ready: others on this executor get their turn now and then.
  constexpr unsigned turns = 16;
  if (++immediate_ % turns == 0) co_await asio::post(session_->executor, asio::use_awaitable);
  for (;;) {
    require_open();
    waker_->park();
    const auto ready = paused_ ? TimePoint::max() : session_->hub->ready_at(member(), group_);
    if (std::exchange(resumed_, false) || ready <= session_->clock->now()) {
      waker_->unpark();
      co_return;
    }
    co_await waker_->notifier().wait_until(ready);
  }
}

void MemorySubscription::acknowledge(std::span<const DeliveryTag> tags) {
  if (!closed_) session_->hub->acknowledge(member(), tags);
}

void MemorySubscription::release(std::span<const DeliveryTag> tags, Duration delay) {
  if (!closed_) session_->hub->release(member(), tags, session_->clock->now() + delay);
}

awaitable<void> MemorySubscription::commit() { co_return; }

void MemorySubscription::pause() { paused_ = true; }

void MemorySubscription::resume() {
  paused_ = false;
  resumed_ = true;
  waker_->wake();
}

awaitable<void> MemorySubscription::close() {
  leave();
  co_return;
}

awaitable<void> MemorySubscription::seek(std::string topic, std::int32_t partition, std::int64_t offset) {
  require_open();
  session_->hub->seek(member(), group_, topic, partition, offset);
  co_return;
}

awaitable<std::int64_t> MemorySubscription::offset_at(std::string topic, std::int32_t partition, Timestamp time) {
  require_open();
  co_return session_->hub->offset_at(topic, partition, time);
}

awaitable<SubscriptionState> MemorySubscription::state() {
  SubscriptionState state;
  state.connected = !closed_;
  state.paused = paused_;
  if (!closed_) state.lag = session_->hub->lag(member());
  co_return state;
}

}  // namespace maestro::messaging::memory

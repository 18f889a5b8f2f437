#include "messaging/subscription_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <maestro/messaging/topic.hpp>

namespace maestro::messaging {

namespace {
// Acknowledgements go out when there is nothing more to hand out, when this many are waiting, or at the next turn of the loop.
constexpr std::size_t flush_count = 256;
constexpr Duration longest_delay = std::chrono::days(366);

/// An empty batch would say that the subscription was closed.
void require_some(std::size_t at_most) {
  if (at_most == 0) throw MessagingError(errc::invalid_argument, "at_most: 0; allowed is 1 and more");
}
}  // namespace

Subscription::State::State(std::shared_ptr<MessageBroker::State> broker, SubscribeRequest request, bool auto_commit,
                           std::unique_ptr<TransportSubscription> transport)
    : broker_(std::move(broker)),
      request_(std::move(request)),
      auto_commit_(auto_commit),
      transport_(std::move(transport)),
      acknowledger_(request_.group ? broker_->capabilities.acknowledgement : Acknowledgement::none),
      last_progress_(broker_->clock->now()) {}

Subscription::State::~State() {
  if (!closed_) acknowledger_.flush(*transport_);
}

void Subscription::State::settle(DeliveryTag tag) {
  has_settled_lost_ |= transport_->is_lost(tag);
  acknowledger_.settle(tag);
}

void Subscription::State::settle_handed_out() {
  if (!auto_commit_ || handed_out_.empty()) return;
  for (const auto tag : handed_out_) acknowledger_.settle(tag);
  handed_out_.clear();
  flush_when_due();
}

bool Subscription::State::is_turn_over() {
  const auto now = broker_->clock->now();
  turn_.go_on(now);
  return turn_.is_over(now);
}

void Subscription::State::flush_when_due() {
  if (acknowledger_.pending() == 0) return;
  if (acknowledger_.pending() >= flush_count) {
    flush();
  } else if (!std::exchange(flush_scheduled_, true)) {
    boost::asio::post(broker_->executor, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->flush();
    });
  }
}

void Subscription::State::flush() {
  flush_scheduled_ = false;
  if (closed_) return;
  last_progress_ = broker_->clock->now();
  acknowledger_.flush(*transport_);
}

void Subscription::State::hand_out(const Message& message) {
  if (!request_.group) return;
  const auto tag = message.tag();
  if (last_lane_ != tag.lane) {
    lanes_.try_emplace(tag.lane, Source{std::string(message.topic()), message.position().partition});
    last_lane_ = tag.lane;
  }
  acknowledger_.track(tag);
  handed_out_.push_back(tag);
}

void Subscription::State::drop_fetched(const std::function<bool(const Message&)>& which) {
  fetched_.erase(fetched_.begin(), fetched_.begin() + static_cast<std::ptrdiff_t>(at_));
  at_ = 0;
  for (auto* messages : {&fetched_, &set_aside_}) std::erase_if(*messages, which);
}

bool Subscription::State::has_fetched() {
  if (const auto losses = transport_->losses(); std::exchange(losses_, losses) != losses)
    drop_fetched([&](const Message& message) { return transport_->is_lost(message.tag()); });
  return at_ < fetched_.size();
}

void Subscription::State::forget(std::string_view topic, std::int32_t partition) {
  const auto is_meant = [&](std::string_view of, std::int32_t index) {
    return of == topic && (index < 0 || index == partition);
  };
  drop_fetched([&](const Message& message) { return is_meant(message.topic(), message.position().partition); });
  for (const auto& [lane, source] : lanes_) {
    if (!is_meant(source.topic, source.partition)) continue;
    std::erase_if(handed_out_, [&](DeliveryTag tag) { return tag.lane == lane; });
    acknowledger_.forget(lane);
  }
}

awaitable<bool> Subscription::State::refill(std::size_t at_most) {
  fetched_.clear();
  at_ = 0;
  while (!closed_) {
    acknowledger_.flush(*transport_);
    try {
      if (const auto count = transport_->take(fetched_, at_most); count > 0) {
        broker_->count_received(count);
        last_progress_ = broker_->clock->now();
        turn_.go_on(last_progress_);
        co_return true;
      }
      co_await transport_->wait();
      turn_.waited();
      if (has_fetched()) co_return true;  // what was set aside when it was paused
    } catch (const MessagingError&) {
      if (!closed_) throw;
    }
  }
  co_return false;
}

awaitable<std::optional<Message>> Subscription::State::next() {
  settle_handed_out();
  if (closed_) co_return std::nullopt;
  std::shared_ptr<State> self;  // outlives the wait, should the subscription be destroyed meanwhile
  if (is_turn_over()) {
    self = shared_from_this();
    co_await turn_.let_pass(broker_->executor);
    if (closed_) co_return std::nullopt;
  }
  if (!has_fetched()) {
    self = shared_from_this();
    if (!co_await refill(std::min<std::size_t>(request_.prefetch, 512))) co_return std::nullopt;
  }
  co_return take_one();
}

std::optional<Message> Subscription::State::try_next() {
  if (closed_ || !has_fetched()) return std::nullopt;
  settle_handed_out();
  return take_one();
}

Message Subscription::State::take_one() {
  auto& message = fetched_[at_++];
  hand_out(message);
  return std::move(message);
}

awaitable<bool> Subscription::State::ready() {
  settle_handed_out();
  if (closed_) co_return false;
  if (has_fetched()) co_return true;
  const auto self = shared_from_this();
  co_return co_await refill(std::min<std::size_t>(request_.prefetch, 512));
}

awaitable<std::vector<Message>> Subscription::State::next_batch(std::size_t at_most) {
  require_some(at_most);
  settle_handed_out();
  if (closed_) co_return std::vector<Message>{};
  std::shared_ptr<State> self;
  if (is_turn_over()) {
    self = shared_from_this();
    co_await turn_.let_pass(broker_->executor);
    if (closed_) co_return std::vector<Message>{};
  }
  if (!has_fetched()) {
    self = shared_from_this();
    if (!co_await refill(at_most)) co_return std::vector<Message>{};
  }
  co_return take_batch(at_most);
}

std::vector<Message> Subscription::State::try_next_batch(std::size_t at_most) {
  require_some(at_most);
  if (closed_ || !has_fetched()) return {};
  settle_handed_out();
  return take_batch(at_most);
}

std::vector<Message> Subscription::State::take_batch(std::size_t at_most) {
  std::vector<Message> batch;
  if (at_ == 0 && fetched_.size() <= at_most) {
    batch = std::exchange(fetched_, {});
    fetched_.reserve(batch.size());  // the next is often as large
  } else {
    const auto count = std::min(at_most, fetched_.size() - at_);
    const auto from = fetched_.begin() + static_cast<std::ptrdiff_t>(at_);
    batch.assign(std::make_move_iterator(from), std::make_move_iterator(from + static_cast<std::ptrdiff_t>(count)));
    at_ += count;
  }
  for (const auto& message : batch) hand_out(message);
  return batch;
}

void Subscription::State::require_open() const {
  if (closed_) throw MessagingError(errc::closed, fmt::format("the subscription to \"{}\" was closed; what was not acknowledged goes to another", request_.topic));
}

void Subscription::State::acknowledge(std::span<const Message> messages) {
  require_open();
  if (!request_.group) return;
  for (const auto& message : messages) {
    std::erase(handed_out_, message.tag());
    settle(message.tag());
  }
  flush_when_due();
}

void Subscription::State::release(const Message& message, Duration delay) {
  if (!broker_->capabilities.release_with_delay)
    throw MessagingError(errc::unsupported,
                         fmt::format("{} cannot give a message back; leave it unsettled", broker_->capabilities.broker));
  require_open();
  if (delay < Duration::zero() || delay > longest_delay)
    throw MessagingError(errc::invalid_argument,
                         fmt::format("delay: {} ns; allowed is 0 to {} ns", delay.count(), longest_delay.count()));
  std::erase(handed_out_, message.tag());
  const auto tag = message.tag();
  transport_->release({&tag, 1}, delay);
}

void Subscription::State::settled_elsewhere(DeliveryTag tag) {
  std::erase(handed_out_, tag);
  acknowledger_.settle(tag);
}

void Subscription::State::pause() {
  transport_->pause();
  set_aside_.insert(set_aside_.end(), std::make_move_iterator(fetched_.begin() + static_cast<std::ptrdiff_t>(at_)),
                    std::make_move_iterator(fetched_.end()));
  fetched_.clear();
  at_ = 0;
}

void Subscription::State::resume() {
  fetched_.insert(fetched_.begin(), std::make_move_iterator(set_aside_.begin()), std::make_move_iterator(set_aside_.end()));
  set_aside_.clear();
  transport_->resume();
}

void Subscription::State::require_topic(const std::string& topic) const {
  if (!matches(request_.topic, topic))
    throw MessagingError(errc::invalid_argument, fmt::format("seek: \"{}\" is no topic of the subscription to \"{}\"", topic, request_.topic));
}

awaitable<void> Subscription::State::seek(std::string topic, std::int32_t partition, std::int64_t offset) {
  require_topic(topic);
  if (offset < Subscription::end)
    throw MessagingError(errc::invalid_argument,
                         fmt::format("offset: {}; allowed is 0 and more, -1 (the beginning) and -2 (the end)", offset));
  // What was fetched ahead is from before the jump; it stays unsettled and comes again where the new place says so.
  settle_handed_out();
  acknowledger_.flush(*transport_);
  forget(topic, partition);
  co_await transport_->seek(std::move(topic), partition, offset);
}

awaitable<void> Subscription::State::seek(std::string topic, std::int32_t partition, Timestamp time) {
  require_topic(topic);
  const auto offset = co_await transport_->offset_at(topic, partition, time);
  co_await seek(std::move(topic), partition, offset);
}

awaitable<SubscriptionState> Subscription::State::subscription_state() {
  if (closed_) co_return SubscriptionState{};
  if (acknowledger_.pending() > 0) flush();
  co_return co_await transport_->state();
}

awaitable<void> Subscription::State::commit_handed_out() {
  if (closed_ || !request_.group) co_return;
  for (const auto tag : handed_out_) settle(tag);
  handed_out_.clear();
  last_progress_ = broker_->clock->now();
  acknowledger_.flush(*transport_);
  const bool has_lost = std::exchange(has_settled_lost_, false);
  co_await transport_->commit();
  if (has_lost)
    throw MessagingError(errc::not_owned,
                         fmt::format("a partition of \"{}\" was lost before what came of it was settled; that is "
                                     "delivered again, to whoever has the partition now",
                                     request_.topic));
}

awaitable<void> Subscription::State::close() {
  if (closed_) co_return;
  closed_ = true;
  acknowledger_.flush(*transport_);
  co_await transport_->close();
  end_lag_reports();
}

}  // namespace maestro::messaging

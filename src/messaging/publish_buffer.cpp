#include "messaging/publish_buffer.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/log.hpp>

#include "messaging/broker_state.hpp"

namespace maestro::messaging {

namespace asio = boost::asio;

namespace {
constexpr std::size_t most_in_batch = 1000;
constexpr std::size_t most_under_way = 200'000;
constexpr std::size_t most_idle_batches = 64;
// A broker that answers keeps no one waiting by this, and what is further ahead of it has left the cache by the time that it is sent.
constexpr std::size_t most_ahead = 32'000;
constexpr Duration longest_wait = std::chrono::milliseconds(10);
}  // namespace

struct PublishBuffer::Batch {
  std::vector<OutgoingMessage> messages;
  std::vector<PublishResult> results;
  TimePoint began;  // when its first message came
  MessageBroker::State::PublishCall call;
  bool answered = false;

  // All after the first message that met a broken connection failed with it, so the last one tells.
  [[nodiscard]] bool has_to_be_retried() const {
    return results.back().error.failed() && std::ranges::any_of(results, [](const auto& result) { return result.error == errc::connection_failed; });
  }
  /// To be used again.
  void reset() {
    messages.clear();
    answered = false;
    if (!std::ranges::all_of(results, &PublishResult::ok)) results.clear();
    // What an answer leaves behind is told from none by these; making results anew costs more than filling them in.
    for (auto& result : results) {
      result.receipt.topic.clear();
      result.receipt.offset = -1;
      result.receipt.routed = true;
    }
  }
  void fail_what_has_no_answer(const boost::system::system_error& failure) {
    const auto* known = dynamic_cast<const MessagingError*>(&failure);
    for (auto& result : results) {
      if (result.error || !result.receipt.topic.empty()) continue;
      result.error = known ? failure.code() : make_error_code(errc::outcome_unknown);
      result.detail = known ? known->detail() : failure.what();
    }
  }
};

PublishBuffer::PublishBuffer(MessageBroker::State& state, std::size_t limit)
    : state_(state),
      limit_(limit),
      at_once_(state.capabilities.orders_concurrent_publishes ? most_under_way : most_in_batch),
      moved_(state.clock, state.executor),
      changed_(state.clock, state.executor) {}

awaitable<void> PublishBuffer::wait_for_room() {
  while (!has_room()) co_await moved_.wait_until(TimePoint::max());
}

awaitable<void> PublishBuffer::let_send() {
  if (unconfirmed_ < most_ahead) {
    co_await asio::post(state_.executor, asio::use_awaitable);
  } else {
    co_await moved_.wait_until(state_.clock->now() + longest_wait);
  }
}

bool PublishBuffer::is_next_last_of_batch() const noexcept {
  return !waiting_.empty() && waiting_.back()->messages.size() + 1 == most_in_batch;
}

Receipt PublishBuffer::add(OutgoingMessage&& message) {
  if (waiting_.empty() || waiting_.back()->messages.size() >= most_in_batch) waiting_.push_back(new_batch());
  waiting_.back()->messages.push_back(std::move(message));
  ++unconfirmed_;
  if (!std::exchange(running_, true)) asio::co_spawn(state_.executor, run(state_.shared_from_this()), asio::detached);
  if (std::exchange(idle_, false)) changed_.ring();
  Receipt receipt;
  receipt.confirmed = false;
  return receipt;
}

std::shared_ptr<PublishBuffer::Batch> PublishBuffer::new_batch() {
  std::shared_ptr<Batch> batch;
  if (idle_batches_.empty()) {
    batch = std::make_shared<Batch>();
    batch->messages.reserve(most_in_batch);
  } else {
    batch = std::move(idle_batches_.back());
    idle_batches_.pop_back();
  }
  batch->began = state_.clock->now();
  return batch;
}

awaitable<void> PublishBuffer::drain() {
  while (unconfirmed_ > 0) co_await moved_.wait_until(TimePoint::max());
}

awaitable<FlushReport> PublishBuffer::flush() {
  co_await drain();
  co_return std::exchange(report_, {});
}

awaitable<void> PublishBuffer::run(std::shared_ptr<MessageBroker::State> owner) {
  auto& self = owner->buffer;
  while (self.unconfirmed_ > 0) {
    self.send_what_may_go();
    if (self.under_way_.front()->answered) {
      if (self.under_way_.front()->has_to_be_retried()) co_await self.retry();
      auto batch = std::move(self.under_way_.front());
      self.under_way_.pop_front();
      self.report(*batch);
      if (batch.use_count() > 1 || self.idle_batches_.size() >= most_idle_batches) continue;
      batch->reset();
      self.idle_batches_.push_back(std::move(batch));
      continue;
    }
    self.idle_ = self.waiting_.empty();
    co_await self.changed_.wait_until(TimePoint::max());
    self.idle_ = false;
  }
  self.running_ = false;
}

void PublishBuffer::send_what_may_go() {
  // Where one failed, what comes after it waits until that is settled: else it would overtake what is tried again.
  const auto fails = [](const auto& batch) { return batch->results.back().error.failed(); };
  if (std::ranges::any_of(under_way_, fails)) return;
  while (!waiting_.empty() && (messages_under_way_ == 0 || messages_under_way_ + most_in_batch <= at_once_)) {
    auto batch = std::move(waiting_.front());
    waiting_.pop_front();
    batch->results.resize(batch->messages.size());
    messages_under_way_ += batch->messages.size();
    under_way_.push_back(batch);
    asio::co_spawn(state_.executor, send(state_.shared_from_this(), std::move(batch)), asio::detached);
  }
}

awaitable<void> PublishBuffer::send(std::shared_ptr<MessageBroker::State> owner, std::shared_ptr<Batch> batch) {
  try {
    batch->call = owner->require_closed_circuit();
    co_await owner->transmit(batch->messages, batch->results, batch->began);
  } catch (const boost::system::system_error& failure) {
    batch->fail_what_has_no_answer(failure);
  }
  batch->answered = true;
  owner->buffer.changed_.ring();
}

// What surely was not done is tried again only when nothing else is under way, oldest first, and so keeps its order.
awaitable<void> PublishBuffer::retry() {
  while (!std::ranges::all_of(under_way_, &Batch::answered)) co_await changed_.wait_until(TimePoint::max());
  std::vector<std::pair<Batch*, std::size_t>> which;
  std::vector<OutgoingMessage> messages;
  std::vector<PublishResult> results;
  for (const auto& batch : under_way_) {
    for (std::size_t i = 0; i < batch->results.size(); ++i) {
      if (batch->results[i].error != errc::connection_failed) continue;
      which.emplace_back(batch.get(), i);
      messages.push_back(std::move(batch->messages[i]));
      results.push_back(std::move(batch->results[i]));
    }
  }
  try {
    co_await state_.retry_failed(messages, results, under_way_.front()->began);
  } catch (const boost::system::system_error& failure) {
    log(LogLevel::warning, "buffered messages could not be tried again", {{"error", failure.what()}});
  }
  for (std::size_t k = 0; k < which.size(); ++k) {
    which[k].first->messages[which[k].second] = std::move(messages[k]);
    which[k].first->results[which[k].second] = std::move(results[k]);
  }
}

void PublishBuffer::report(Batch& batch) {
  const bool all = state_.finish(batch.messages, batch.results, batch.began, batch.call);
  if (all) report_.confirmed += batch.messages.size();
  for (std::size_t i = all ? batch.messages.size() : 0; i < batch.messages.size(); ++i) {
    auto& result = batch.results[i];
    if (result.ok()) {
      ++report_.confirmed;
      continue;
    }
    log(LogLevel::error, "a buffered message was not published",
        {{"topic", batch.messages[i].topic}, {"error", result.error.message()}, {"detail", result.detail}});
    report_.failures.push_back({std::move(batch.messages[i]), result.error, std::move(result.detail)});
  }
  messages_under_way_ -= batch.messages.size();
  unconfirmed_ -= batch.messages.size();
  moved_.ring();
}

}  // namespace maestro::messaging

#include "messaging/publish_buffer.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/log.hpp>
#include <map>

#include "messaging/broker_state.hpp"
#include "runtime/waiter.hpp"

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
  std::uint64_t number = 0;     // in the order in which they were sent
  bool gathers = false;         // waits for more messages
  bool closed = false;          // takes no more: a publish waits behind it
  bool begun = false;           // the transport has its messages, or a line for them
  bool answered = false;

  // All after the first message that met a broken connection failed with it, so the last one tells.
  [[nodiscard]] bool has_to_be_retried() const {
    return results.back().error.failed() && std::ranges::any_of(results, [](const auto& result) { return result.error == errc::connection_failed; });
  }
  /// To be used again.
  void reset() {
    messages.clear();
    gathers = false;
    closed = false;
    begun = false;
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

/// Messages that the transport has in custody: who they were counted for, and those of them that came back.
class PublishBuffer::Charge final : public HandedOver {
 public:
  Charge(std::weak_ptr<MessageBroker::State> owner, TimePoint began) : began(began), owner_(std::move(owner)) {}

  void on_failure(std::size_t index, OutgoingMessage message, PublishResult result) override {
    if (result.error == errc::connection_failed && !std::exchange(has_to_be_retried, true))
      if (const auto owner = owner_.lock()) ++owner->buffer.coming_back_;
    failures.push_back({index, std::move(message), std::move(result)});
  }
  void on_end(std::size_t taken) override {
    if (const auto owner = owner_.lock()) owner->buffer.on_end(*this, taken);
  }

  struct Topic {
    TopicTelemetry* cells;
    std::size_t count;
  };
  struct Failure {
    std::size_t index;
    OutgoingMessage message;
    PublishResult result;
  };
  /// So many of the last messages are not its own.
  void forget_last(std::size_t messages_too_many) {
    for (; messages_too_many > 0; --messages_too_many)
      if (--topics.back().count == 0) topics.pop_back();
  }
  void forget(const TopicTelemetry* cells) {
    const auto of_it = std::ranges::find_if(topics, [&](const Topic& each) { return each.cells == cells && each.count > 0; });
    if (of_it != topics.end()) --of_it->count;
  }

  TimePoint began;
  MessageBroker::State::PublishCall call;
  std::uint64_t number = 0;
  std::vector<Topic> topics;
  std::vector<Failure> failures;
  bool has_to_be_retried = false;  // some of those

 private:
  std::weak_ptr<MessageBroker::State> owner_;
};

/// A publish that waits behind so many messages.
struct PublishBuffer::Passing {
  Passing(PublishBuffer& buffer, std::uint64_t messages) : of(buffer), before(messages) { of.passing_.push_back(this); }
  Passing(const Passing&) = delete;
  ~Passing() {
    std::erase(of.passing_, this);
    of.changed_.ring();
  }
  PublishBuffer& of;
  std::uint64_t before;
  Waiter waiter;
};

PublishBuffer::PublishBuffer(MessageBroker::State& state, std::size_t limit)
    : state_(state),
      custody_(dynamic_cast<Custody*>(state.transport.get())),
      gathering_time_(custody_ ? custody_->gathering_time() : Duration::zero()),
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
  return !waiting_.empty() && !waiting_.back()->closed && waiting_.back()->messages.size() + 1 == most_in_batch;
}

Receipt PublishBuffer::add(OutgoingMessage&& message) {
  if (waiting_.empty() || waiting_.back()->closed || waiting_.back()->messages.size() >= most_in_batch) waiting_.push_back(new_batch());
  waiting_.back()->messages.push_back(std::move(message));
  ++unconfirmed_;
  ++added_;
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

awaitable<void> PublishBuffer::wait_behind() {
  Passing mine(*this, added_);
  if (!waiting_.empty()) waiting_.back()->closed = true;
  changed_.ring();
  while (passing_.front() != &mine || !may_pass(mine)) {
    co_await mine.waiter.async_wait(asio::deferred);
    const auto cancellation = co_await asio::this_coro::cancellation_state;
    if (cancellation.cancelled() != asio::cancellation_type::none) throw boost::system::system_error(asio::error::operation_aborted);
  }
}

bool PublishBuffer::may_pass(const Passing& publish) const {
  auto on_their_way = left_;
  for (const auto& batch : under_way_)
    if (!batch->answered && !(batch->begun && state_.capabilities.orders_concurrent_publishes)) on_their_way -= batch->messages.size();
  return on_their_way >= publish.before && !is_held_up();
}

// Each goes on within the call, and so none that comes later gets before it.
void PublishBuffer::let_pass() {
  while (!passing_.empty() && may_pass(*passing_.front())) {
    const auto* first = passing_.front();
    passing_.front()->waiter.wake();
    if (!passing_.empty() && passing_.front() == first) return;  // it was woken for something else, and will look by itself
  }
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
    self.let_pass();
    if (!self.under_way_.empty() && self.under_way_.front()->answered) {
      if (self.under_way_.front()->has_to_be_retried()) co_await self.retry();
      auto batch = std::move(self.under_way_.front());
      self.under_way_.pop_front();
      self.report(*batch);
      self.recycle(std::move(batch));
      continue;
    }
    self.idle_ = self.waiting_.empty();
    co_await self.changed_.wait_until(self.may_send() ? self.gathers_until() : TimePoint::max());
    self.idle_ = false;
  }
  self.running_ = false;
  self.let_pass();
}

void PublishBuffer::recycle(std::shared_ptr<Batch> batch) {
  if (batch.use_count() > 1 || idle_batches_.size() >= most_idle_batches) return;
  batch->reset();
  idle_batches_.push_back(std::move(batch));
}

// Where one failed, what comes after it waits until that is settled: else it would overtake what is tried again.
bool PublishBuffer::may_send() const {
  if (waiting_.empty() || is_held_up() || (!passing_.empty() && left_ >= passing_.front()->before)) return false;
  return messages_under_way_ == 0 || messages_under_way_ + most_in_batch <= at_once_;
}

bool PublishBuffer::is_held_up() const {
  return coming_back_ > 0 || std::ranges::any_of(under_way_, [](const auto& batch) { return batch->results.back().error.failed(); });
}

TimePoint PublishBuffer::gathers_until() {
  constexpr std::size_t enough_batches = 8;
  constexpr std::size_t few = 64;
  if (!custody_ || waiting_.empty() || waiting_.size() >= enough_batches || !passing_.empty()) return TimePoint::min();
  auto& first = *waiting_.front();
  const auto count = unconfirmed_ - messages_under_way_;
  first.gathers = (first.gathers && count < few) || (charges_ > 0 && count < messages_under_way_);
  if (!first.gathers) return TimePoint::min();
  constexpr Duration soon = std::chrono::milliseconds(1);
  return first.began + (charges_ > 0 ? gathering_time_ : std::min(gathering_time_, soon));
}

void PublishBuffer::send_what_may_go() {
  if (gathers_until() > state_.clock->now()) return;
  while (may_send()) {
    auto batch = std::move(waiting_.front());
    waiting_.pop_front();
    left_ += batch->messages.size();
    if (hand_over(*batch)) {
      recycle(std::move(batch));
      continue;
    }
    batch->number = ++batches_;
    batch->results.resize(batch->messages.size());
    messages_under_way_ += batch->messages.size();
    under_way_.push_back(batch);
    asio::co_spawn(state_.executor, send(state_.shared_from_this(), std::move(batch)), asio::detached);
  }
}

bool PublishBuffer::hand_over(Batch& batch) {
  if (!custody_ || !state_.connected_ || state_.circuit_suspect_) return false;
  // Not past what has to be sent first, nor what has used up some of its time already: the transport gives it all of it.
  if (!std::ranges::all_of(under_way_, [](const auto& each) { return each->begun || each->answered; })) return false;
  if (state_.clock->now() - batch.began > std::min<Duration>(state_.publish_timeout_ / 8, std::chrono::seconds(1))) return false;
  const auto size = batch.messages.size();
  const auto charge = std::make_shared<Charge>(state_.weak_from_this(), batch.began);
  charge->call = state_.require_closed_circuit();
  charge->number = ++batches_;
  for (const auto& message : batch.messages) {
    auto* cells = &state_.topic(message.topic);
    if (charge->topics.empty() || charge->topics.back().cells != cells) charge->topics.push_back({cells, 0});
    ++charge->topics.back().count;
  }
  ++charges_;
  messages_under_way_ += size;
  const auto taken = custody_->hand_over(batch.messages, charge);
  messages_under_way_ -= size - taken;
  if (taken == 0) --charges_;
  charge->forget_last(size - taken);
  batch.messages.erase(batch.messages.begin(), batch.messages.begin() + static_cast<std::ptrdiff_t>(taken));
  return taken == size;
}

// What came back is a batch like one that was sent and failed.
void PublishBuffer::on_end(Charge& charge, std::size_t taken) {
  --charges_;
  coming_back_ -= charge.has_to_be_retried;
  for (const auto& failure : charge.failures) charge.forget(&state_.topic(failure.message.topic));
  if (taken > 0)
    for (const auto& [cells, count] : charge.topics) state_.finish_taken(*cells, count, charge.began, charge.call);
  report_.confirmed += taken;
  messages_under_way_ -= taken;
  unconfirmed_ -= taken;
  if (!charge.failures.empty()) {
    std::ranges::sort(charge.failures, {}, &Charge::Failure::index);
    auto batch = std::make_shared<Batch>();
    for (auto& failure : charge.failures) {
      batch->messages.push_back(std::move(failure.message));
      batch->results.push_back(std::move(failure.result));
    }
    batch->began = charge.began;
    batch->call = charge.call;
    batch->number = charge.number;
    batch->answered = true;
    const auto later = std::ranges::find_if(under_way_, [&](const auto& each) { return each->number > charge.number; });
    under_way_.insert(later, std::move(batch));
  }
  moved_.ring();
  if (unconfirmed_ == 0 || !waiting_.empty() || !under_way_.empty()) changed_.ring();
}

awaitable<void> PublishBuffer::send(std::shared_ptr<MessageBroker::State> owner, std::shared_ptr<Batch> batch) {
  try {
    batch->call = owner->require_closed_circuit();
    if (owner->buffer.is_held_up()) throw MessagingError(errc::connection_failed, "what was published before it has to be tried again first");
    batch->begun = owner->connected_;
    if (!owner->buffer.passing_.empty()) owner->buffer.changed_.ring();
    co_await owner->transmit(batch->messages, batch->results, batch->began);
  } catch (const boost::system::system_error& failure) {
    batch->fail_what_has_no_answer(failure);
  }
  batch->answered = true;
  owner->buffer.changed_.ring();
}

// What surely was not done is tried again only when nothing else is under way, oldest first, and so keeps its order.
awaitable<void> PublishBuffer::retry() {
  while (charges_ > 0 || !std::ranges::all_of(under_way_, &Batch::answered)) co_await changed_.wait_until(TimePoint::max());
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
  std::map<std::pair<std::string, int>, std::size_t> told;  // by topic and error
  for (std::size_t i = all ? batch.messages.size() : 0; i < batch.messages.size(); ++i) {
    auto& result = batch.results[i];
    if (result.ok()) {
      ++report_.confirmed;
      continue;
    }
    const auto& topic = batch.messages[i].topic;
    if (++told[{topic, result.error.value()}] == 1)
      log(LogLevel::error, "a buffered message was not published",
          {{"topic", topic}, {"error", result.error.message()}, {"detail", result.detail}});
    report_.failures.push_back({std::move(batch.messages[i]), result.error, std::move(result.detail)});
  }
  for (const auto& [cause, messages] : told)
    if (messages > 1)
      log(LogLevel::error, "more buffered messages were not published for the same reason",
          {{"topic", cause.first}, {"messages", std::to_string(messages - 1)}});
  messages_under_way_ -= batch.messages.size();
  unconfirmed_ -= batch.messages.size();
  moved_.ring();
}

}  // namespace maestro::messaging

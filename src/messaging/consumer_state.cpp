#include "messaging/consumer_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <iterator>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>
#include <maestro/messaging/utf8.hpp>
#include <set>

#include "core/option_range.hpp"
#include "messaging/failure.hpp"
#include "messaging/turn.hpp"

namespace maestro::messaging {

namespace asio = boost::asio;

namespace {

// So many acknowledgements go out at once; fewer, at the next turn of the loop.
constexpr std::size_t flush_count = 256;
// What a crash may repeat at most of one partition, while one message of it is stuck.
constexpr std::size_t window_limit = 100'000;

// What a message takes beside its key and payload.
constexpr std::size_t bytes_beside = 512;

constexpr Duration first_busy_look = std::chrono::milliseconds(10);
constexpr Duration longest_busy_look = std::chrono::seconds(1);
// How long a message waits for a deduplication store that is away: as long as that takes, whatever the handler's
// retries are.
const RetryPolicy store_policy({.initial_backoff = std::chrono::milliseconds(100),
                                .max_backoff = std::chrono::seconds(5)});

std::uint64_t mix(std::uint64_t value) {
  value ^= value >> 33U;
  value *= 0xff51afd7ed558ccdULL;
  value ^= value >> 33U;
  return value * 0xc4ceb9fe1a85ec53ULL;
}

/// How a failure is called in `messaging_errors_total`.
std::string label_of(DeadLetterReason reason) {
  return reason == DeadLetterReason::retries_exhausted ? "handler_error" : std::string(to_string(reason));
}

/// Leaves what a dead letter cannot do without; whether it is shorter now.
bool shorten(Failure& failure) {
  constexpr std::size_t least = 128;
  if (failure.stack.empty() && failure.message.size() <= least) return false;
  failure.stack.clear();
  failure.message.resize(cut_utf8(failure.message, least).size());
  return true;
}

bool was_cancelled(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const HandlerError& failure) {
    return failure.cancelled();
  } catch (const boost::system::system_error& failure) {
    return failure.code() == asio::error::operation_aborted;
  } catch (...) {
    return false;
  }
}

}  // namespace

struct EventConsumer::State::Feed final : public Attached {
  Feed(State& consumer, std::shared_ptr<Route::State> from, std::size_t number)
      : broker(consumer.broker_),
        route(std::move(from)),
        group_id(consumer.group_),
        index(number),
        acknowledger(broker->capabilities.acknowledgement),
        leaves_out_dead_letters(is_pattern(route->topic)),
        room(*broker->clock, broker->executor),
        progress(broker->clock->now()),
        stop(consumer.weak_from_this()) {
    if (broker->telemetry) cells = broker->telemetry->consumer(route->topic, consumer.group_);
  }

  [[nodiscard]] const std::string& topic() const noexcept override { return route->topic; }
  [[nodiscard]] const std::optional<std::string>& group() const noexcept override { return group_id; }
  awaitable<SubscriptionState> subscription_state() override {
    if (!subscription) co_return SubscriptionState{};
    co_return co_await subscription->state();
  }
  [[nodiscard]] TimePoint last_progress() const noexcept override { return progress; }
  awaitable<void> commit_handed_out() override { co_return; }
  awaitable<void> close() override {
    if (const auto consumer = stop.lock()) consumer->request_stop();
    co_return;
  }

  std::shared_ptr<MessageBroker::State> broker;
  std::shared_ptr<Route::State> route;
  std::optional<std::string> group_id;
  std::size_t index;
  std::unique_ptr<TransportSubscription> subscription;
  std::uint64_t losses = 0;  // of the subscription's, those that were seen
  Acknowledger acknowledger;
  bool leaves_out_dead_letters;
  Notifier room;
  TimePoint progress;
  std::weak_ptr<State> stop;
  ConsumeTelemetry cells;
  asio::cancellation_signal cancel;
};

EventConsumer::State::State(std::shared_ptr<MessageBroker::State> broker, EventConsumerOptions options)
    : broker_(std::move(broker)),
      options_(std::move(options)),
      concurrency_(options_.concurrency.value_or(static_cast<std::size_t>(broker_->options.integer("concurrency")))),
      prefetch_(options_.prefetch.value_or(static_cast<std::size_t>(broker_->options.integer("prefetch")))),
      most_held_bytes_(static_cast<std::size_t>(broker_->options.integer("fetch_buffer_bytes")) / 2),
      dead_letters_(options_.enable_dead_letter_queue.value_or(broker_->options.boolean("enable_dead_letter_queue"))),
      drain_timeout_(options_.drain_timeout.value_or(broker_->options.duration("drain_timeout"))),
      reset_(options_.auto_offset_reset.value_or(
          broker_->options.text("auto_offset_reset") == "latest" ? OffsetReset::latest : OffsetReset::earliest)),
      retry_options_{
          options_.max_retry_attempts.value_or(static_cast<int>(broker_->options.integer("max_retry_attempts"))),
          options_.initial_backoff.value_or(broker_->options.duration("initial_backoff")),
          options_.backoff_multiplier.value_or(broker_->options.number("backoff_multiplier")),
          options_.max_backoff.value_or(broker_->options.duration("max_backoff"))},
      retry_(retry_options_),
      serializer_(options_.serializer ? options_.serializer : std::make_shared<JsonSerializer>()),
      stop_(*broker_->clock, broker_->executor),
      drained_(*broker_->clock, broker_->executor),
      timekeeper_(*broker_->clock, broker_->executor) {
  retry_options_.validate();
  require_in_range("concurrency", concurrency_);
  require_in_range("prefetch", prefetch_);
  require_in_range("drain_timeout", drain_timeout_);
  require_span("deduplication_lease", options_.deduplication_lease, std::chrono::milliseconds(1),
               std::chrono::hours(24));
  require_one_of("ordering", static_cast<int>(options_.ordering), {"key", "partition", "none"});
  require_one_of("auto_offset_reset", static_cast<int>(reset_), {"earliest", "latest"});
  if (options_.handler_executor && !*options_.handler_executor)
    throw MessagingError(errc::invalid_option,
                         "handler_executor: an empty one; allowed is one that runs, or none for the broker's");
  prefetch_ = std::max(prefetch_, concurrency_);
  if (options_.circuit_breaker) {
    options_.circuit_breaker->validate();
    circuit_.emplace(*options_.circuit_breaker);
  }
  const auto& configured = broker_->options;
  if (options_.group_id) {
    group_ = *options_.group_id;
    group_origin_ = "group_id";
  } else if (auto group = configured.text_if("group_id")) {
    group_ = *std::move(group);
    group_origin_ = "the configured group_id";
  } else if (auto client = configured.text_if("client_id")) {
    group_ = *std::move(client);
    group_origin_ = "client_id";
  } else {
    group_ = "maestro";
    group_origin_ = "the default";
  }
  validate_group(group_, group_origin_);
}

void EventConsumer::State::add(std::shared_ptr<Route::State> route) {
  if (running_)
    throw MessagingError(errc::already_started, fmt::format("subscribe(\"{}\") after start(); subscribe first", route->topic));
  validate_topic_or_pattern(route->topic);
  if (!route->handler) throw MessagingError(errc::invalid_argument, fmt::format("the handler of \"{}\" is empty", route->topic));
  for (const auto& other : routes_) {
    // One as the other's text: * and > stand for themselves then, and whatever they stand for is shared.
    if (!matches(route->topic, other->topic) && !matches(other->topic, route->topic)) continue;
    throw MessagingError(errc::invalid_argument, fmt::format("subscribe(\"{}\"): this consumer has a handler for "
                                                             "\"{}\" already, and each message goes to one of the two; "
                                                             "use one handler, or a consumer with another group_id",
                                                             route->topic, other->topic));
  }
  routes_.push_back(std::move(route));
}

void EventConsumer::State::check_promises() const {
  const auto& can = broker_->capabilities;
  const auto refuse = [&](std::string_view promise, std::string_view instead) {
    throw MessagingError(errc::unsupported, fmt::format("{} cannot keep {}: {}", can.broker, promise, instead));
  };
  if (!can.groups) refuse("a consumer group in this mode", "use a durable mode, or MessageBroker::subscribe without a group");
  if (can.acknowledgement == Acknowledgement::none)
    refuse("at-least-once delivery in this mode", "use a durable mode, or MessageBroker::subscribe without a group");
  if (routes_.empty()) throw MessagingError(errc::invalid_argument, "start() without any subscribe()");
  if (dead_letters_) check_dead_letter_topics();
}

void EventConsumer::State::check_dead_letter_topics() const {
  for (const auto& route : routes_) {
    // The topics of a pattern are not known yet; they are as long as the pattern at least.
    const bool one_of_many = !route->dead_letter_topic && is_pattern(route->topic);
    auto name = route->dead_letter_topic.value_or(dead_letter_topic(route->topic, group_));
    try {
      if (one_of_many) std::ranges::replace_if(name, [](char c) { return c == '*' || c == '>' || c == '#'; }, 'x');
      validate_topic(name);
      broker_->transport->check_topic(name);
    } catch (const MessagingError& refusal) {
      throw MessagingError(errc::invalid_topic,
                           fmt::format("the dead letters of \"{}\" cannot go to {}; choose a shorter or plainer "
                                       "group_id, or another topic with on_error()",
                                       route->topic, refusal.detail()));
    }
  }
  // A message that always fails would go round for ever.
  for (const auto& first : routes_) {
    std::set<const Route::State*> seen;
    for (const auto* route = first.get(); route && route->dead_letter_topic;) {
      if (!seen.insert(route).second)
        throw MessagingError(errc::invalid_argument,
                             fmt::format("on_error(\"{}\") of \"{}\": its dead letters would come back to it; name a topic from which no "
                                         "handler of this consumer leads back",
                                         *first->dead_letter_topic, first->topic));
      const auto next = std::ranges::find_if(routes_, [&](const auto& each) { return each->topic == *route->dead_letter_topic; });
      route = next == routes_.end() ? nullptr : next->get();
    }
  }
}

bool EventConsumer::State::is_dead_letter_of_pattern(const Route::State& route, std::string_view topic) const {
  const auto is_dead_letters = [](std::string_view name) { return name.ends_with(".dlq"); };
  if (is_dead_letters(route.topic)) return false;
  return is_dead_letters(topic) ||
         std::ranges::any_of(routes_, [&](const auto& each) { return each->dead_letter_topic && *each->dead_letter_topic == topic; });
}

awaitable<void> EventConsumer::State::start(std::uint64_t stops) {
  broker_->require_open();
  if (running_) throw MessagingError(errc::already_started, "this consumer is running; stop() it first, or make another");
  check_promises();
  begun_ = true;
  if (stops != stops_) co_return;
  running_ = true;
  stopping_ = false;
  fatal_ = nullptr;
  const auto self = shared_from_this();
  struct Finish {
    State& state;
    ~Finish() {
      state.running_ = false;
      state.show_circuit();
      // A handler that did not end in time still refers to the one its message came from.
      for (auto* feeds : {&state.feeds_, &state.opening_}) {
        if (state.tasks_ > 0) std::ranges::move(*feeds, std::back_inserter(state.left_behind_));
        feeds->clear();
      }
    }
  } const finish{*this};
  if (circuit_ && broker_->telemetry) broker_->telemetry->circuit_gauge("consume");
  show_circuit();
  spawn(open(self), cancel_opening_);

  co_await asio::this_coro::throw_if_cancelled(false);
  bool cancelled = false;
  while (!stopping_ && !cancelled) {
    try {
      co_await stop_.wait();
    } catch (const boost::system::system_error&) {
      cancelled = true;
    }
  }
  // The drain is not cancelled with us: it has a limit of its own.
  co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
  co_await drain();
  co_await asio::this_coro::reset_cancellation_state();
  co_await asio::this_coro::throw_if_cancelled(true);
  if (fatal_) std::rethrow_exception(fatal_);
  if (cancelled) throw boost::system::system_error(asio::error::operation_aborted);
}

awaitable<void> EventConsumer::State::open(std::shared_ptr<State> self) {
  const auto& broker = self->broker_;
  co_await broker->await_connection();  // before that, what the server promises is not known
  log(LogLevel::info, self->explain(), {{"broker", broker->capabilities.broker}, {"group", self->group_}});
  // At once: a group shares its partitions anew for each that joins alone.
  for (std::size_t i = 0; i < self->routes_.size(); ++i)
    self->opening_.push_back(std::make_shared<Feed>(*self, self->routes_[i], i));
  for (const auto& feed : std::vector(self->opening_)) self->spawn(run_feed(self, feed), feed->cancel);
  self->spawn(run_timekeeper(self), self->cancel_timekeeper_);
}

awaitable<void> EventConsumer::State::run_feed(std::shared_ptr<State> self, std::shared_ptr<Feed> feed) {
  feed->subscription = co_await self->broker_->open({feed->route->topic, self->group_, self->reset_, self->prefetch_, true});
  if (self->paused_) feed->subscription->pause();
  self->broker_->attach(feed);
  // From here on the drain closes it, whenever we are cancelled.
  std::erase(self->opening_, feed);
  self->feeds_.push_back(feed);
  co_await self->fetch(*feed);
}

void EventConsumer::State::spawn(awaitable<void> task, asio::cancellation_signal& signal) {
  ++tasks_;
  asio::co_spawn(broker_->executor, std::move(task),
                 asio::bind_cancellation_slot(signal.slot(), [self = shared_from_this()](std::exception_ptr error) {
                   --self->tasks_;
                   if (error && !was_cancelled(error)) self->fail_for_good(error);
                   self->drained_.notify();
                 }));
}

void EventConsumer::State::request_stop() {
  ++stops_;
  if (!running_) return;
  stopping_ = true;
  stop_.notify();
}

awaitable<ReadinessReport> EventConsumer::State::readiness(std::shared_ptr<State> self) {
  ReadinessReport report;
  if (!self->running_ || self->stopping_) report.not_ready.push_back(fmt::format("the consumer of group \"{}\" does not run", self->group_));
  if (self->circuit() == CircuitState::open)
    report.not_ready.push_back(fmt::format("the consumer of group \"{}\" pauses, for its circuit is open", self->group_));
  if (self->unwritten_ > 0)
    report.not_ready.push_back(fmt::format("the consumer of group \"{}\" cannot write dead letters: {} of its messages wait for that",
                                           self->group_, self->unwritten_));
  co_return report;
}

void EventConsumer::State::fail_for_good(std::exception_ptr error) {
  if (!fatal_) fatal_ = error;
  stopping_ = true;
  stop_.notify();
}

awaitable<void> EventConsumer::State::drain() {
  stopping_ = true;
  cancel_opening_.emit(asio::cancellation_type::terminal);
  for (const auto& feed : std::vector(opening_)) feed->cancel.emit(asio::cancellation_type::terminal);
  for (const auto& feed : feeds_) feed->cancel.emit(asio::cancellation_type::terminal);
  cancel_timekeeper_.emit(asio::cancellation_type::terminal);
  const auto all = [](const Item&) { return true; };
  co_await drop_waiting(all);
  for (auto* worker : std::exchange(idle_, {})) worker->wake.notify();
  const auto deadline = broker_->clock->now() + drain_timeout_;
  bool in_time = true;
  while (tasks_ > 0 && in_time) in_time = co_await drained_.wait_until(deadline);
  if (tasks_ > 0) {
    log(LogLevel::warning, "handlers did not finish within drain_timeout; their messages will be delivered again",
        {{"group", group_}, {"handlers", std::to_string(handlers_)}});
    for (const auto& worker : workers_) worker->cancel.emit(asio::cancellation_type::terminal);
    // Those that heed the cancellation end now; the others are left behind, unsettled.
    const auto grace = broker_->clock->now() + std::chrono::seconds(1);
    in_time = true;
    while (tasks_ > 0 && in_time) in_time = co_await drained_.wait_until(grace);
  }
  co_await drop_waiting(all);  // handlers that failed meanwhile left their messages to be tried again
  flush_acknowledgements();
  for (std::size_t i = 0; i < feeds_.size(); ++i) {  // one that opens late may come to them
    const auto feed = feeds_[i];
    try {
      co_await feed->subscription->commit();
    } catch (...) {
      if (!fatal_) fatal_ = std::current_exception();  // what the broker has not, it delivers again: `start()` says so
    }
    co_await feed->subscription->close();
    feed->end_lag_reports();
  }
}

bool EventConsumer::State::has_lost() const {
  return std::ranges::any_of(feeds_, [](const auto& feed) { return feed->losses != feed->subscription->losses(); });
}

awaitable<void> EventConsumer::State::drop_lost() {
  for (const auto& feed : feeds_) feed->losses = feed->subscription->losses();
  co_await drop_waiting([](const Item& item) {
    if (!item.feed->subscription->is_lost(item.tag)) return false;
    item.feed->acknowledger.settle(item.tag);  // which is ignored, and the window does not stay open
    return true;
  });
  wake_fetchers();
}

awaitable<void> EventConsumer::State::drop_waiting(std::function<bool(const Item&)> which) {
  std::vector<Item> dropped;
  lanes_.remove_waiting(which, [&](Item& item) {
    held_bytes_ -= item.bytes;
    if (item.dead_letter_tries > 0 && !item.is_done) --unwritten_;
    dropped.push_back(std::move(item));
  });
  // A store that is away frees what was claimed when the leases end.
  bool answers = true;
  for (auto& item : dropped) {
    if (!item.claim || !answers) continue;
    auto& store = *options_.deduplication;
    answers = co_await told(item.is_done ? store.complete(group_, item.message.id(), *item.claim)
                                         : store.abandon(group_, item.message.id(), *item.claim));
    if (!answers || !item.is_done) continue;
    count_done(item);
    item.feed->acknowledger.settle(item.tag);
  }
}

awaitable<void> EventConsumer::State::fetch(Feed& feed) {
  std::vector<Message> batch;
  while (!stopping_) {
    const bool stuck = feed.acknowledger.widest_window() > window_limit;
    if (is_full() || stuck || (circuit_ && circuit_->state(broker_->clock->now()) == CircuitState::open)) {
      co_await feed.room.wait();
      continue;
    }
    const auto count = feed.subscription->take(batch, prefetch_ - lanes_.size());
    if (count == 0) {
      co_await feed.subscription->wait();
      continue;
    }
    counts.received += count;
    broker_->count_received(count);
    if (feed.cells.received) feed.cells.received->add_alone(count);
    for (auto& message : batch) push(feed, std::move(message));
    batch.clear();
    wake_one();
    if (!is_full()) co_await feed.subscription->wait();
  }
}

void EventConsumer::State::push(Feed& feed, Message&& message) {
  feed.acknowledger.track(message.tag());
  if (feed.leaves_out_dead_letters && is_dead_letter_of_pattern(*feed.route, message.topic())) {
    feed.acknowledger.settle(message.tag());
    schedule_flush();
    return;
  }
  const auto partition = mix(message.tag().lane * 31 + feed.index + 1);
  std::uint64_t lane = partition;
  if (options_.ordering == Ordering::none) {
    lane = mix(++unkeyed_) ^ partition;
  } else if (options_.ordering == Ordering::key && message.key()) {
    lane = mix(std::hash<std::string_view>{}(*message.key()) + feed.index);
  }
  const auto bytes = message.body().size() + message.key().value_or("").size() + bytes_beside;
  held_bytes_ += bytes;
  lanes_.emplace(lane, feed, bytes, std::move(message));
}

bool EventConsumer::State::may_take() {
  if (stopping_ || paused_ || !lanes_.has_runnable()) return false;
  if (!circuit_) return true;
  const auto call = circuit_->allow(broker_->clock->now());
  if (call) call_ = *call;
  return call.has_value();
}

void EventConsumer::State::wake_one() {
  if (wake_pending_ || stopping_ || paused_) return;
  if (!idle_.empty()) {
    wake_pending_ = true;
    auto* worker = idle_.back();
    idle_.pop_back();
    worker->wake.notify();
  } else if (workers_.size() < concurrency_) {
    wake_pending_ = true;
    auto worker = std::make_shared<Worker>(*broker_->clock, broker_->executor);
    workers_.push_back(worker);
    ++tasks_;
    asio::co_spawn(broker_->executor, run_worker(shared_from_this(), worker),
                   asio::bind_cancellation_slot(
                       worker->cancel.slot(), [self = shared_from_this(), worker](std::exception_ptr error) {
                         --self->tasks_;
                         self->workers_.remove(worker);
                         std::erase(self->idle_, worker.get());
                         if (error && !was_cancelled(error)) self->fail_for_good(error);
                         self->drained_.notify();
                       }));
  }
}

awaitable<void> EventConsumer::State::run_worker(std::shared_ptr<State> self, std::shared_ptr<Worker> worker) {
  self->wake_pending_ = false;
  const auto& clock = self->broker_->clock;
  std::optional<TimePoint> now;  // none where it was something else's turn since it was read
  Turn turn;
  while (!self->stopping_) {
    if (!now) now = clock->now();
    if (turn.is_over(*now)) {
      now.reset();
      co_await turn.let_pass(self->broker_->executor);
      continue;
    }
    if (self->has_lost()) {
      now.reset();
      co_await self->drop_lost();
      continue;
    }
    if (!self->may_take()) {
      self->idle_.push_back(worker.get());
      now.reset();
      co_await worker->wake.wait();
      self->wake_pending_ = false;
      turn.waited();
      continue;
    }
    turn.go_on(*now);
    // The lane is ours until it is finished or parked: its front stays where it is.
    const auto lane = self->lanes_.take_runnable();
    if (self->circuit_) {
      auto& taken = self->lanes_.front(lane);
      taken.call = self->call_;
      taken.circuit_opened = self->circuit_->opened();
    }
    if (self->lanes_.has_runnable()) self->wake_one();
    ++self->handlers_;
    struct Done {
      State& state;
      ~Done() { --state.handlers_; }
    } const done{*self};
    auto& item = self->lanes_.front(lane);
    if (!self->is_plain(item)) {
      now.reset();
      if (!co_await self->prepare(lane)) continue;
    }
    auto& cells = item.feed->cells;
    const auto began = now ? *now : clock->now();
    if (cells.in_flight) cells.in_flight->add_alone(1);
    std::optional<Event> event;
    std::exception_ptr error;
    try {
      auto data = self->serializer_->deserialize(item.message);
      event.emplace(std::move(item.message), std::move(data), item.failures + 1);
      const auto& handler = item.feed->route->handler;
      co_await (self->options_.handler_executor ? self->handle(*event, handler) : handler(*event));
    } catch (...) {
      error = std::current_exception();
    }
    if (cells.in_flight) cells.in_flight->add_alone(-1);
    now = clock->now();
    if (cells.processing) cells.processing->observe_alone(*now - began);
    if (error) {
      if (event) item.message = event->message();
      co_await self->failed(lane, error);
      now.reset();
      continue;
    }
    if (item.claim) {
      now.reset();
      item.message = event->message();
      item.is_done = true;
      if (const auto call = item.call; !co_await self->recorded(lane)) {
        self->tell_circuit_of_success(call);
        continue;
      }
    }
    self->succeeded(lane);
  }
}

awaitable<bool> EventConsumer::State::prepare(Lanes::LaneId lane) {
  auto& item = lanes_.front(lane);
  const auto probe = item.call;  // the item may be gone afterwards
  bool call = false;
  if (item.is_done) {
    if (co_await recorded(lane)) finish_done(lane);
  } else if (item.dead_letter) {
    co_await write_dead_letter(lane);
  } else {
    call = co_await claimed(lane, item);
  }
  if (!call && circuit_) circuit_->on_abandoned(probe);
  co_return call;
}

awaitable<void> EventConsumer::State::handle(const Event& event, const EventHandler& handler) {
  auto work = handler(event);
  co_await asio::co_spawn(*options_.handler_executor, std::move(work), asio::use_awaitable);
}

void EventConsumer::State::succeeded(Lanes::LaneId lane) {
  const auto call = lanes_.front(lane).call;
  finish_done(lane);
  tell_circuit_of_success(call);
}

void EventConsumer::State::tell_circuit_of_success(CircuitBreaker::Call call) {
  if (!circuit_) return;
  circuit_->on_success(broker_->clock->now(), call);
  show_circuit();
  if (lanes_.has_runnable()) wake_one();
  wake_fetchers();
}

void EventConsumer::State::finish_done(Lanes::LaneId lane) {
  count_done(lanes_.front(lane));
  settle(lane);
}

void EventConsumer::State::count_done(const Item& item) {
  if (item.dead_letter) return;  // counted when it was written
  ++counts.handled;
  if (item.feed->cells.handled) item.feed->cells.handled->add_alone();
}

awaitable<bool> EventConsumer::State::claimed(Lanes::LaneId lane, Item& item) {
  Claim claim;
  std::exception_ptr error;
  const auto id = item.message.id();
  try {
    claim = co_await options_.deduplication->claim(group_, id, options_.deduplication_lease);
  } catch (...) {
    error = std::current_exception();
  }
  auto& held = lanes_.front(lane);
  if (error) {
    if (was_cancelled(error)) std::rethrow_exception(error);
    judge_store(error);
    await_store(lane);
    co_return false;
  }
  judge_store(nullptr);
  held.store_failures = 0;
  switch (claim.outcome) {
    case Claim::Outcome::claimed:
      held.claim = claim.token;
      co_return true;
    case Claim::Outcome::duplicate:
      ++counts.duplicates;
      if (held.feed->cells.duplicate) held.feed->cells.duplicate->add();
      settle(lane);
      co_return false;
    case Claim::Outcome::busy:
      // Another handles it, or died with it: then its lease decides. Until that ends, now and then a look whether it is done.
      park(lane, std::clamp<Duration>(claim.retry_at - broker_->clock->now(), std::chrono::milliseconds(1),
                                      std::min<Duration>(first_busy_look * (1 << std::min(held.busy++, 10)), longest_busy_look)));
      co_return false;
  }
  co_return false;
}

awaitable<bool> EventConsumer::State::recorded(Lanes::LaneId lane) {
  auto& item = lanes_.front(lane);
  if (!item.claim || co_await told(options_.deduplication->complete(group_, item.message.id(), *item.claim)))
    co_return true;
  await_store(lane);
  co_return false;
}

awaitable<bool> EventConsumer::State::told(awaitable<void> store) {
  std::exception_ptr error;
  try {
    co_await std::move(store);
  } catch (...) {
    error = std::current_exception();
  }
  if (error && was_cancelled(error)) std::rethrow_exception(error);
  judge_store(error);
  co_return !error;
}

// The message stays unsettled, and is tried again, less and less often.
void EventConsumer::State::await_store(Lanes::LaneId lane) {
  park(lane, store_policy.backoff(++lanes_.front(lane).store_failures, broker_->random));
}

void EventConsumer::State::judge_store(const std::exception_ptr& error) {
  if (std::exchange(store_is_away_, error != nullptr) == (error != nullptr)) return;
  if (error) {
    log(LogLevel::warning, "the deduplication store failed; messages stay unsettled until it answers",
        {{"group", group_}, {"cause", describe_failure(error).message}});
  } else {
    log(LogLevel::warning, "the deduplication store answers again", {{"group", group_}});
  }
}

awaitable<void> EventConsumer::State::failed(Lanes::LaneId lane, std::exception_ptr error) {
  if (was_cancelled(error) && stopping_) {
    // Left unsettled: it will be delivered again.
    auto& item = lanes_.front(lane);
    if (circuit_) circuit_->on_abandoned(item.call);
    if (item.claim) co_await told(options_.deduplication->abandon(group_, item.message.id(), *item.claim));
    finish(lane);
    co_return;
  }
  auto& item = lanes_.front(lane);
  auto failure = describe_failure(error);
  const auto now = broker_->clock->now();
  const auto wall = broker_->clock->wall();
  const bool final_verdict = failure.reason != DeadLetterReason::retries_exhausted;
  // A probe, and what was under way when the circuit opened, fail for what opened it: that costs a message no try, or an
  // outage would empty the topic by as many as are handled at once, and then probe by probe.
  const bool opened_meanwhile = circuit_ && circuit_->opened() != item.circuit_opened;
  const bool costs_a_try = final_verdict || !(item.call.is_probe() || opened_meanwhile);
  if (item.first_failed_at == Timestamp{}) item.first_failed_at = wall;
  if (costs_a_try) ++item.failures;
  failure.attempts = item.failures;
  failure.first_failed_at = item.first_failed_at;
  failure.failed_at = wall;
  if (circuit_) {
    if (final_verdict) {
      circuit_->on_abandoned(item.call);
    } else {
      circuit_->on_failure(now, item.call);
      if (circuit_->state(now) == CircuitState::open) timekeeper_.notify();
    }
    show_circuit();
  }
  if (broker_->telemetry) broker_->telemetry->error("handle", label_of(failure.reason));
  if (item.feed->cells.failed) item.feed->cells.failed->add();
  if (!costs_a_try || (!final_verdict && !retry_.exhausted(item.failures))) {
    ++counts.retried;
    if (item.feed->cells.retries) item.feed->cells.retries->add();
    park(lane, retry_.backoff(std::max(item.failures, 1), broker_->random));
    co_return;
  }
  item.dead_letter = std::make_unique<Failure>(std::move(failure));
  co_await write_dead_letter(lane);
}

std::string EventConsumer::State::dead_letter_topic_of(const Feed& feed, const Message& message) const {
  return feed.route->dead_letter_topic.value_or(dead_letter_topic(message.topic(), group_));
}

// Copy before settle: the dead letter is confirmed first.
awaitable<void> EventConsumer::State::write_dead_letter(Lanes::LaneId lane) {
  auto& item = lanes_.front(lane);
  const auto reason = item.dead_letter->reason;
  const auto describe = [&] {
    const auto& front = lanes_.front(lane);
    return std::vector<std::pair<std::string, std::string>>{
        {"topic", std::string(front.message.topic())},
        {"group", group_},
        {"position", front.message.position().to_string()},
        {"reason", std::string(to_string(front.dead_letter->reason))},
        {"error", front.dead_letter->message}};
  };
  if (!dead_letters_) {
    log(LogLevel::error, "a message failed for good; dead letters are switched off, so it is settled and gone", describe());
    ++counts.discarded;
  } else {
    const auto topic = dead_letter_topic_of(*item.feed, item.message);
    const auto write = [&] {
      return broker_->publish_for(make_dead_letter(item.message, topic, group_, *item.dead_letter), *item.feed->subscription,
                                  item.tag);
    };
    auto result = co_await write();
    // The broker may have a limit of its own, and the original be just below it.
    if (result.error == errc::message_too_large && shorten(*item.dead_letter)) result = co_await write();
    if (!result.ok()) {
      auto fields = describe();
      fields.emplace_back("cause", result.detail);
      log(LogLevel::error, "a dead letter could not be written; its message stays unsettled", std::move(fields));
      auto& front = lanes_.front(lane);
      if (front.dead_letter_tries == 0) ++unwritten_;
      park(lane, std::max<Duration>(retry_.backoff(++front.dead_letter_tries, broker_->random), std::chrono::milliseconds(10)));
      co_return;
    }
    if (lanes_.front(lane).dead_letter_tries > 0) --unwritten_;
    ++counts.dead_lettered;
    log(LogLevel::warning, "dead-lettered", describe());
    if (broker_->telemetry)
      broker_->telemetry->dead_letter(lanes_.front(lane).feed->route->topic, group_, std::string(to_string(reason)));
  }
  auto& written = lanes_.front(lane);
  if (written.feed->cells.dead_lettered) written.feed->cells.dead_lettered->add();
  written.is_done = true;
  if (co_await recorded(lane)) finish_done(lane);
}

void EventConsumer::State::settle(Lanes::LaneId lane) {
  auto& item = lanes_.front(lane);
  auto& feed = *item.feed;
  feed.acknowledger.settle(item.tag);
  finish(lane);
  if (feed.acknowledger.pending() >= flush_count) {
    flush_acknowledgements();
  } else if (feed.acknowledger.pending() > 0) {
    schedule_flush();
  }
  // Also where what is held waits for a handler, and nothing is left for the others to do.
  if (lanes_.size() == prefetch_ / 2 || (lanes_.size() > prefetch_ / 2 && !lanes_.has_runnable())) wake_fetchers();
}

void EventConsumer::State::finish(Lanes::LaneId lane) {
  const auto before = held_bytes_;
  held_bytes_ -= lanes_.front(lane).bytes;
  lanes_.finish(lane);
  if (before > most_held_bytes_ / 2 && held_bytes_ <= most_held_bytes_ / 2) wake_fetchers();
}

void EventConsumer::State::wake_fetchers() {
  for (const auto& feed : feeds_) feed->room.notify();
}

// One flush a turn of the loop: a burst of handlers that complete at once is acknowledged together.
void EventConsumer::State::schedule_flush() {
  if (std::exchange(flush_scheduled_, true)) return;
  asio::post(broker_->executor, [self = shared_from_this()] { self->flush_acknowledgements(); });
}

void EventConsumer::State::flush_acknowledgements() {
  flush_scheduled_ = false;
  const auto now = broker_->clock->now();
  for (const auto& feed : feeds_) {
    if (feed->acknowledger.pending() == 0 || !feed->subscription) continue;
    feed->acknowledger.flush(*feed->subscription);
    feed->progress = now;
    feed->room.notify();
  }
}

void EventConsumer::State::park(Lanes::LaneId lane, Duration pause) {
  const auto due = broker_->clock->now() + pause;
  const auto next = lanes_.next_due();
  lanes_.park(lane, due);
  if (!next || due < *next) timekeeper_.notify();
}

awaitable<void> EventConsumer::State::run_timekeeper(std::shared_ptr<State> self) {
  while (!self->stopping_) {
    const auto now = self->broker_->clock->now();
    self->show_circuit();  // half open by the time alone
    self->lanes_.unpark_due(now);
    if (self->lanes_.has_runnable()) self->wake_one();
    auto next = self->lanes_.next_due().value_or(TimePoint::max());
    if (self->circuit_ && self->circuit_->state(now) == CircuitState::open) {
      next = std::min(next, self->circuit_->open_until());
    } else if (self->circuit_) {
      self->wake_fetchers();
    }
    co_await self->timekeeper_.wait_until(next);
  }
}

CircuitState EventConsumer::State::circuit() const {
  return circuit_ ? circuit_->state(broker_->clock->now()) : CircuitState::closed;
}

void EventConsumer::State::show_circuit() {
  const auto state = running_ ? circuit() : CircuitState::closed;
  if (std::exchange(shown_circuit_, state) == state || !broker_->telemetry) return;
  broker_->telemetry->circuit("consume", static_cast<int>(state));
}

void EventConsumer::State::pause() {
  paused_ = true;
  for (const auto& feed : feeds_)
    if (feed->subscription) feed->subscription->pause();
}

void EventConsumer::State::resume() {
  paused_ = false;
  for (const auto& feed : feeds_)
    if (feed->subscription) feed->subscription->resume();
  if (lanes_.has_runnable()) wake_one();
}

std::string EventConsumer::State::explain() const {
  const auto ms = [](Duration d) { return std::chrono::duration_cast<std::chrono::milliseconds>(d).count(); };
  const auto& can = broker_->capabilities;
  std::string text;
  for (const auto& route : routes_) {
    if (!text.empty()) text += '\n';
    if (!can.groups) {
      text += fmt::format("\"{}\" on {}: no groups in this mode, start() will refuse it", route->topic, can.broker);
      continue;
    }
    text += fmt::format("\"{}\" on {} as group \"{}\" (from {}): at least once, {} handlers at once, in order by {}; ",
                        route->topic, can.broker, group_, group_origin_, concurrency_,
                        options_.ordering == Ordering::key         ? "key"
                        : options_.ordering == Ordering::partition ? "partition"
                                                                   : "nothing");
    text += fmt::format("retries by this library: {} after the first try, {} ms times {} up to {} ms, {} ms in all at most; ",
                        retry_options_.max_attempts_after_first, ms(retry_options_.initial_backoff), retry_options_.multiplier,
                        ms(retry_options_.max_backoff), ms(retry_.longest_total()));
    if (dead_letters_) {
      text += fmt::format("dead letters to \"{}\"; ", route->dead_letter_topic.value_or(
                                                            is_pattern(route->topic) ? "{topic}." + group_ + ".dlq"
                                                                                     : dead_letter_topic(route->topic, group_)));
      if (is_pattern(route->topic) && !route->topic.ends_with(".dlq")) text += "topics of dead letters are left out of the pattern; ";
    } else {
      text += "dead letters are off: a message that failed for good is logged and gone; ";
    }
    text += options_.deduplication ? "duplicates are told by message id; " : "no deduplication; ";
    text += fmt::format("an acknowledged publish: {}", can.acknowledged_means);
    if (options_.deduplication && retry_.longest_total() > options_.deduplication_lease)
      text += fmt::format("; CONTRADICTION: retries may last {} ms, the deduplication lease only {} ms",
                          ms(retry_.longest_total()), ms(options_.deduplication_lease));
  }
  return text;
}

}  // namespace maestro::messaging

#include "messaging/broker_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/foreign_loop.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/retry.hpp>
#include <maestro/messaging/topic.hpp>

#include "messaging/registry.hpp"
#include "messaging/subscription_state.hpp"

namespace maestro::messaging {

namespace asio = boost::asio;

namespace {

// How long a subscription with messages waiting may stand still before it counts as stalled.
constexpr Duration stall_limit = std::chrono::seconds(60);
// How long a server may take for a sign of life before the metrics say that it gives none. Shorter than the patience of
// `/readyz`.
constexpr Duration longest_silence = std::chrono::seconds(1);
constexpr Duration between_pings = std::chrono::seconds(1);

CircuitBreakerOptions breaker_options(const Options& options) {
  CircuitBreakerOptions breaker;
  breaker.failure_threshold = static_cast<int>(options.integer("circuit_failure_threshold"));
  breaker.reset_timeout = options.duration("circuit_reset_timeout");
  return breaker;
}

// A failure that says something about the broker, and not about the message.
bool is_brokers_fault(const boost::system::error_code& code) {
  return code == errc::connection_failed || code == errc::timed_out || code == errc::outcome_unknown ||
         code == errc::broker_error;
}

template <class Executor>
bool is_running_in(const asio::any_io_executor& executor) noexcept {
  return executor.target<Executor>()->running_in_this_thread();
}

/// How to ask whether this is a thread that an executor runs on right now; of one that cannot be asked, it never is.
template <class... Known>
auto how_to_ask(const asio::any_io_executor& executor) noexcept {
  bool (*how)(const asio::any_io_executor&) noexcept = [](const asio::any_io_executor&) noexcept { return false; };
  ((executor.target<Known>() ? static_cast<void>(how = &is_running_in<Known>) : void()), ...);
  return how;
}

}  // namespace

MessageBroker::State::State(asio::any_io_executor ex, MessagingConfig given)
    : executor(std::move(ex)),
      config(with_options_of_url(std::move(given))),
      clock(config.clock ? config.clock : Clock::real()),
      options(config),
      random(config.seed ? *config.seed : std::random_device{}()),
      transport(make_transport(executor, clock, config, options)),
      capabilities(transport->capabilities()),
      buffer(*this, static_cast<std::size_t>(options.integer("buffer_messages"))),
      is_running_here_(how_to_ask<asio::io_context::executor_type, asio::strand<asio::io_context::executor_type>, ForeignLoop::Executor,
                                  asio::strand<asio::any_io_executor>>(executor)),
      breaker_(breaker_options(options)),
      publish_timeout_(options.duration("publish_timeout")),
      connected_or_not_(clock, executor) {
  if (auto* topics = dynamic_cast<Administration*>(transport.get())) administration.emplace(*topics);
  if (config.enable_monitoring) telemetry = std::make_shared<Telemetry>(metrics_registry(), capabilities.broker);
  auto reports = telemetry ? Telemetry::reports(telemetry) : TransportReports();
  reports.lost = [here = std::weak_ptr(here_)](const std::string& why) {
    const auto state = here.lock();
    if (!state) return;
    (*state)->lost_ = why;
    (*state)->watch_for_answer();
  };
  reports.whole = [here = std::weak_ptr(here_)] {
    if (const auto state = here.lock()) (*state)->lost_.clear();
  };
  transport->report_to(std::move(reports));
}

MessageBroker::State::~State() {
  show_circuit(CircuitState::closed);
}

template <class Result, class... Arguments>
awaitable<Result> MessageBroker::State::hop(awaitable<Result> (State::*work)(Arguments...), Arguments... arguments) {
  // A coroutine of its own keeps the state and the arguments alive.
  constexpr auto run = [](std::shared_ptr<State> state, auto member, Arguments... moved) -> awaitable<Result> {
    co_return co_await ((*state).*member)(std::move(moved)...);
  };
  auto hopped = run(shared_from_this(), work, std::move(arguments)...);
  return asio::co_spawn(executor, std::move(hopped), asio::use_awaitable);
}

void MessageBroker::State::throw_closed() {
  throw MessagingError(errc::closed, "the broker was disconnected; make a new MessageBroker");
}

TopicTelemetry& MessageBroker::State::topic(const std::string& name) {
  if (last_topic_.second && last_topic_.first == name) return *last_topic_.second;
  auto found = topics_.find(name);
  if (found == topics_.end()) {
    validate_topic(name);
    auto cells = std::make_unique<TopicTelemetry>(telemetry ? telemetry->topic(name) : TopicTelemetry{});
    found = topics_.emplace(name, std::move(cells)).first;
  }
  last_topic_ = {name, found->second.get()};
  return *found->second;
}

void MessageBroker::State::count_published(TopicTelemetry& cells, const Receipt& receipt) {
  if (receipt.routed) {
    if (telemetry) cells.published->add_alone();
    return;
  }
  if (!std::exchange(cells.unrouted_logged, true)) {
    log(LogLevel::warning, "nobody was there to get a message; it is gone, and further ones of this topic are only counted",
        {{"broker", capabilities.broker}, {"topic", receipt.topic}});
    if (telemetry) cells.unrouted = &telemetry->published(receipt.topic, "unrouted");
  }
  if (telemetry) cells.unrouted->add();
}

awaitable<void> MessageBroker::State::ensure_connected() {
  while (!connected_) {
    require_open();
    if (connecting_) {
      co_await connected_or_not_.wait_until(TimePoint::max());
      continue;
    }
    connecting_ = true;
    struct Done {
      State& state;
      ~Done() {
        state.connecting_ = false;
        state.connected_or_not_.ring();
      }
    } const done{*this};
    try {
      co_await transport->connect();
      capabilities = transport->capabilities();  // what is known once connected
      connected_ = true;
      if (telemetry) telemetry->health(true);
    } catch (const boost::system::system_error& failure) {
      last_error_ = failure.what();
      if (telemetry) {
        telemetry->health(false);
        telemetry->error("connect", failure.code());
      }
      throw;
    }
  }
}

// A subscriber waits for a broker that is not there yet. What will not mend by itself (a password, a certificate) is thrown.
awaitable<void> MessageBroker::State::await_connection() {
  const RetryPolicy policy({.initial_backoff = std::chrono::milliseconds(250), .max_backoff = std::chrono::seconds(5)});
  for (int failures = 1;; ++failures) {
    try {
      co_await ensure_connected();
      co_return;
    } catch (const MessagingError& failure) {
      if (failure.code() != errc::connection_failed) throw;
      log(LogLevel::warning, "the broker is not there; a subscription waits for it",
          {{"broker", capabilities.broker}, {"cause", failure.detail()}});
    }
    co_await sleep_for(*clock, policy.backoff(failures, random));
    require_open();
  }
}

awaitable<void> MessageBroker::State::connect() {
  require_open();
  co_await ensure_connected();
}

MessageBroker::State::PublishCall MessageBroker::State::ask_breaker(std::uint64_t number) {
  const auto now = clock->now();
  if (const auto call = breaker_.allow(now)) {
    show_circuit(breaker_.state(now));
    return {*call, number};
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(breaker_.open_until() - now);
  throw MessagingError(
      errc::circuit_open,
      fmt::format("{} publishes failed in a row (the last: {}); {}", options.integer("circuit_failure_threshold"),
                  last_error_, left.count() > 0 ? fmt::format("the next try is in {} ms", left.count())
                                                : "another publish is trying whether it works again"));
}

// What the buffer is refused is counted with its batch.
MessageBroker::State::PublishCall MessageBroker::State::require_closed_circuit(
    std::span<const OutgoingMessage> messages) {
  try {
    return require_closed_circuit();
  } catch (const MessagingError& refusal) {
    if (telemetry) {
      for (const auto& message : messages) {
        topic(message.topic).failed->add();
        telemetry->error("publish", refusal.code());
      }
    }
    throw;
  }
}

awaitable<Receipt> MessageBroker::State::publish(OutgoingMessage message, std::optional<TimePoint> began) {
  if (!on_executor()) co_return co_await hop(&State::publish, std::move(message), std::move(began));
  require_open();
  auto& cells = topic(message.topic);
  const auto call = require_closed_circuit({&message, 1});
  PublishResult result;
  if (connected_ && !circuit_suspect_ && !buffer.is_in_the_way()) {
    // The common case, in as few coroutines as it can be.
    const bool at_once = transport->publish_now(message, result);
    if (!at_once) {
      if (!began) began = clock->now();
      co_await transport->publish({&message, 1}, {&result, 1}, *began + publish_timeout_);
    }
    if (result.ok()) {
      ++sent_;
      count_published(cells, result.receipt);
      if (telemetry) cells.publish_duration->observe_alone(at_once ? Duration::zero() : clock->now() - *began);
      co_return std::move(result.receipt);
    }
  }
  if (!result.error) {
    co_await send({&message, 1}, {&result, 1}, call);
  } else {
    co_await settle_failed({&message, 1}, {&result, 1}, began.value_or(clock->now()), call);
  }
  result.value();
  co_return std::move(result.receipt);
}

std::optional<Receipt> MessageBroker::State::try_publish(OutgoingMessage& message, bool confirm) {
  require_open();
  auto& cells = topic(message.topic);
  if (!confirm) {
    if (!buffer.has_room() || buffer.is_next_last_of_batch()) return std::nullopt;
    return buffer.add(std::move(message));
  }
  if (!connected_ || circuit_suspect_ || buffer.is_in_the_way()) return std::nullopt;
  PublishResult result;
  if (!transport->publish_now(message, result) || result.error == errc::connection_failed) return std::nullopt;
  if (!result.ok()) {
    finish({&message, 1}, {&result, 1}, clock->now(), {{}, ++begun_});
    result.value();  // throws
  }
  ++sent_;
  count_published(cells, result.receipt);
  if (telemetry) cells.publish_duration->observe_alone(Duration::zero());
  return std::move(result.receipt);
}

awaitable<PublishResult> MessageBroker::State::publish_result(OutgoingMessage message) {
  PublishResult result;
  try {
    require_open();
    topic(message.topic);
    const auto call = require_closed_circuit({&message, 1});
    co_await send({&message, 1}, {&result, 1}, call);
  } catch (const MessagingError& failure) {
    result.error = failure.code();
    result.detail = failure.detail();
  }
  co_return result;
}

awaitable<PublishResult> MessageBroker::State::publish_for(OutgoingMessage message, TransportSubscription& subscription,
                                                           DeliveryTag tag) {
  auto* transactions = dynamic_cast<Transactions*>(transport.get());
  if (!transactions || capabilities.acknowledgement != Acknowledgement::individual) co_return co_await publish_result(std::move(message));
  PublishResult result;
  try {
    require_open();
    auto& cells = topic(message.topic);
    result.receipt.topic = message.topic;
    const TransactionAcknowledgement acknowledgement{&subscription, tag};
    co_await transactions->commit_transaction({&message, 1}, {&acknowledgement, 1});
    ++sent_;
    count_published(cells, result.receipt);
    co_return result;
  } catch (const MessagingError& failure) {
    result.error = failure.code();
    result.detail = failure.detail();
  }
  // Nothing of it took effect: perhaps the delivery is another member's by now, or this user may make no transactions.
  if (result.error == errc::transaction_aborted || (result.error != errc::outcome_unknown && !is_retriable(result.error)))
    co_return co_await publish_result(std::move(message));
  co_return result;
}

awaitable<std::vector<PublishResult>> MessageBroker::State::publish_many(std::vector<OutgoingMessage> messages) {
  if (!on_executor()) co_return co_await hop(&State::publish_many, std::move(messages));
  require_open();
  // All or none: a bad name sends nothing.
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (i == 0 || messages[i].topic != messages[i - 1].topic) topic(messages[i].topic);
  const auto call = require_closed_circuit(messages);
  std::vector<PublishResult> results(messages.size());
  co_await send(messages, results, call);
  co_return results;
}

awaitable<void> MessageBroker::State::send(std::span<OutgoingMessage> messages, std::span<PublishResult> results,
                                           PublishCall call) {
  const auto began = clock->now();
  try {
    if (buffer.is_in_the_way()) co_await buffer.wait_behind();
    co_await transmit(messages, results, began);
    if (!std::ranges::all_of(results, &PublishResult::ok)) co_await retry_failed(messages, results, began);
  } catch (...) {
    breaker_.on_abandoned(call);
    throw;
  }
  finish(messages, results, began, call);
}

awaitable<void> MessageBroker::State::transmit(std::span<OutgoingMessage> messages, std::span<PublishResult> results,
                                               TimePoint began) {
  if (!connected_) co_await ensure_connected();
  const auto deadline = began + publish_timeout_;
  if (clock->now() >= deadline)
    throw MessagingError(errc::queue_full, "what was published before took all of publish_timeout");
  // A message that was taken is moved from, its topic into the receipt.
  co_await transport->publish(messages, results, deadline);
}

awaitable<void> MessageBroker::State::settle_failed(std::span<OutgoingMessage> messages, std::span<PublishResult> results,
                                                    TimePoint began, PublishCall call) {
  co_await retry_failed(messages, results, began);
  finish(messages, results, began, call);
}

bool MessageBroker::State::finish(std::span<const OutgoingMessage> messages, std::span<const PublishResult> results,
                                  TimePoint began, PublishCall call) {
  std::size_t done = 0;
  std::size_t routed = 0;
  for (const auto& result : results) {
    done += result.ok();
    routed += result.ok() && result.receipt.routed;
  }
  sent_ += done;
  if (circuit_suspect_ || routed < results.size()) {
    judge(messages, results, began, call);
  } else if (telemetry) {
    count_ordinary(results, began);
  }
  return done == results.size();
}

void MessageBroker::State::count_ordinary(std::span<const PublishResult> results, TimePoint began) {
  const auto took = clock->now() - began;
  while (!results.empty()) {
    const auto& name = results.front().receipt.topic;
    const auto other = std::ranges::find_if(results, [&name](const auto& result) { return result.receipt.topic != name; });
    const auto count = static_cast<std::size_t>(other - results.begin());
    auto& cells = topic(name);
    cells.published->add_alone(count);
    cells.publish_duration->observe_alone(took, count);
    results = results.subspan(count);
  }
}

// Only what surely was not done and may go well later is tried again; in order, for the transport fails everything
// that comes after a broken connection.
awaitable<void> MessageBroker::State::retry_failed(std::span<OutgoingMessage> messages, std::span<PublishResult> results,
                                                   TimePoint began) {
  const auto deadline = began + publish_timeout_;
  for (int failures = 1;; ++failures) {
    std::vector<std::size_t> again;
    for (std::size_t i = 0; i < results.size(); ++i)
      if (results[i].error == errc::connection_failed) again.push_back(i);
    if (again.empty()) co_return;
    last_error_ = results[again.front()].detail;
    if (telemetry) telemetry->error("publish", results[again.front()].error);
    const RetryPolicy policy({.initial_backoff = std::chrono::milliseconds(20), .max_backoff = std::chrono::seconds(1)});
    const auto pause = policy.backoff(failures, random);
    if (clock->now() + pause >= deadline) co_return;
    co_await sleep_for(*clock, pause);
    require_open();
    std::vector<OutgoingMessage> batch;
    for (const auto i : again) batch.push_back(std::move(messages[i]));
    std::vector<PublishResult> outcome(batch.size());
    co_await transport->publish(batch, outcome, deadline);
    for (std::size_t k = 0; k < again.size(); ++k) {
      messages[again[k]] = std::move(batch[k]);
      results[again[k]] = std::move(outcome[k]);
    }
  }
}

void MessageBroker::State::judge(std::span<const OutgoingMessage> messages, std::span<const PublishResult> results,
                                 TimePoint began, PublishCall call) {
  const auto now = clock->now();
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto& result = results[i];
    if (result.ok()) {
      if (circuit_suspect_) breaker_.on_success(now, call);
    } else if (result.is_of_topic) {
      if (!circuit_suspect_) last_error_ = result.detail;  // else it would be told as what opened the circuit
    } else if (is_brokers_fault(result.error)) {
      if (call.number > counted_until_) {
        breaker_.on_failure(now, call);
        counted_until_ = begun_;
      }
      circuit_suspect_ = true;
      last_error_ = result.detail;
    }
    if (!telemetry && result.receipt.routed) continue;
    auto& cells = topic(result.ok() ? result.receipt.topic : messages[i].topic);
    if (result.ok()) count_published(cells, result.receipt);
    if (!telemetry) continue;
    cells.publish_duration->observe_alone(now - began);
    if (result.ok()) continue;
    (result.error == errc::outcome_unknown ? cells.unknown : cells.failed)->add();
    telemetry->error("publish", result.error);
  }
  if (circuit_suspect_) conclude(now, call, std::ranges::all_of(results, &PublishResult::ok));
}

void MessageBroker::State::finish_taken(TopicTelemetry& cells, std::size_t count, TimePoint began, PublishCall call) {
  const auto now = clock->now();
  sent_ += count;
  if (telemetry) {
    cells.published->add_alone(count);
    cells.publish_duration->observe_alone(now - began, count);
  }
  if (!circuit_suspect_) return;
  breaker_.on_success(now, call);
  conclude(now, call, true);
}

void MessageBroker::State::conclude(TimePoint now, PublishCall call, bool all_ok) {
  breaker_.on_abandoned(call);  // should no result have said anything about the broker
  const auto state = breaker_.state(now);
  if (state == CircuitState::closed && all_ok) circuit_suspect_ = false;
  show_circuit(closed_ ? CircuitState::closed : state);
}

void MessageBroker::State::show_circuit(CircuitState state) {
  if (std::exchange(shown_circuit_, state) == state || !telemetry) return;
  telemetry->circuit("publish", static_cast<int>(state));
}

awaitable<Receipt> MessageBroker::State::enqueue(OutgoingMessage message) {
  if (!on_executor()) co_return co_await hop(&State::enqueue, std::move(message));
  require_open();
  topic(message.topic);
  while (!buffer.has_room()) {
    co_await buffer.wait_for_room();
    require_open();
  }
  const bool full = buffer.is_next_last_of_batch();
  auto receipt = buffer.add(std::move(message));
  if (full) co_await buffer.let_send();
  co_return receipt;
}

awaitable<FlushReport> MessageBroker::State::flush() {
  if (!on_executor()) co_return co_await hop(&State::flush);
  co_return co_await buffer.flush();
}

awaitable<std::unique_ptr<TransportSubscription>> MessageBroker::State::open(SubscribeRequest request) {
  require_open();
  validate_topic_or_pattern(request.topic);
  const auto cannot = [&](std::string_view promise, std::string_view instead) {
    return MessagingError(errc::unsupported, fmt::format("{} has no {} in this mode (subscription to \"{}\"): {}",
                                                         capabilities.broker, promise, request.topic, instead));
  };
  if (request.group && !capabilities.groups) throw cannot("groups", "subscribe without one, or use a durable mode");
  if (is_pattern(request.topic) && !capabilities.patterns) throw cannot("patterns", "name each topic");
  if (request.group) validate_group(*request.group);
  co_await await_connection();
  co_return co_await transport->subscribe(std::move(request));
}

void MessageBroker::State::attach(const std::shared_ptr<Attached>& attached) {
  attached_.push_back(attached);
  if (!telemetry || !attached->group()) return;
  auto reporter = std::make_shared<LagReporter>(telemetry, clock, capabilities.broker, attached->topic(), *attached->group());
  reporter->start(executor, attached);
  attached->report_lag(std::move(reporter));
}

std::vector<std::shared_ptr<Attached>> MessageBroker::State::open_subscriptions() {
  std::vector<std::shared_ptr<Attached>> open;
  std::erase_if(attached_, [&open](const std::weak_ptr<Attached>& weak) {
    auto attached = weak.lock();
    if (!attached) return true;
    open.push_back(std::move(attached));
    return false;
  });
  return open;
}

awaitable<void> MessageBroker::State::commit_all() {
  require_open();
  for (const auto& attached : open_subscriptions()) co_await attached->commit_handed_out();
}

awaitable<void> MessageBroker::State::disconnect() {
  if (closed_) co_return;
  co_await buffer.drain();
  closed_ = true;
  end_of_watch_->emit(asio::cancellation_type::terminal);
  for (const auto& attached : open_subscriptions()) co_await attached->close();
  if (connected_) co_await transport->disconnect();
  connected_ = false;
  if (telemetry) telemetry->health(false);
  show_circuit(CircuitState::closed);
}

awaitable<void> MessageBroker::State::transaction(std::function<awaitable<void>(Transaction&)> body) {
  require_open();
  if (!body) throw MessagingError(errc::invalid_argument, "transaction: the body is empty");
  auto* transactions = dynamic_cast<Transactions*>(transport.get());
  if (!transactions)
    throw MessagingError(errc::unsupported, fmt::format("{} has no transactions; publish and acknowledge one by one, "
                                                        "and let the consumer deduplicate",
                                                        capabilities.broker));
  co_await ensure_connected();
  Transaction collected;
  co_await body(collected);
  for (const auto& message : collected.messages_) topic(message.topic);
  std::vector<TransactionAcknowledgement> acknowledgements;
  for (const auto& [subscription, tag] : collected.settled_)
    if (subscription->group())  // else there is nothing that the broker keeps
      acknowledgements.push_back({&subscription->transport_subscription(), tag});
  const auto count = collected.messages_.size();
  co_await transactions->commit_transaction(collected.messages_, acknowledgements);
  for (const auto& [subscription, tag] : collected.settled_) subscription->settled_elsewhere(tag);
  sent_ += count;
}

awaitable<bool> MessageBroker::State::health_check() {
  if (!on_executor()) co_return co_await hop(&State::health_check);
  co_await asio::post(executor, asio::use_awaitable);  // who asks in a loop may wait nowhere else
  bool healthy = false;
  bool answers = false;
  try {
    require_open();
    co_await ensure_connected();
    co_await ping();
    answers = healthy = true;
    for (const auto& attached : open_subscriptions()) {
      const auto state = co_await attached->subscription_state();
      std::int64_t lag = 0;
      for (const auto& each : state.lag) lag += each.lag;
      if (state.connected && (state.paused || lag == 0 || clock->now() - attached->last_progress() < stall_limit)) continue;
      healthy = false;
      last_error_ = fmt::format("the subscription to \"{}\" makes no progress: {} messages wait", attached->topic(), lag);
      log(LogLevel::warning, last_error_);
    }
  } catch (const MessagingError& failure) {
    healthy = false;
    last_error_ = failure.what();
  }
  answers_ = answers;
  if (telemetry && !closed_) telemetry->health(healthy);
  co_return healthy;
}

awaitable<void> MessageBroker::State::ping() {
  std::shared_ptr<Timer> patience;
  if (telemetry) {
    patience = clock->make_timer(executor);
    patience->expires_at(clock->now() + longest_silence);
    patience->async_wait(
        [weak = weak_from_this(), waits = std::weak_ptr(patience)](const boost::system::error_code& error) {
          const auto self = weak.lock();
          if (error || waits.expired() || !self || self->closed_) return;
          self->telemetry->health(false);
          self->watch_for_answer();
        });
  }
  co_await transport->ping();
}

void MessageBroker::State::watch_for_answer() {
  ask_again_ = true;
  if (!telemetry || !connected_ || closed_ || std::exchange(watching_, true)) return;
  ask_again_ = false;
  const auto ended = [weak = weak_from_this(), signal = end_of_watch_](const std::exception_ptr&) {
    const auto self = weak.lock();
    if (!self) return;
    self->watching_ = false;
    self->next_watch_ = self->clock->now() + between_pings;
    if (self->ask_again_) self->watch_for_answer();
  };
  asio::co_spawn(executor, ask_until_answered(weak_from_this(), clock, next_watch_),
                 asio::bind_cancellation_slot(end_of_watch_->slot(), ended));
}

awaitable<void> MessageBroker::State::ask_until_answered(std::weak_ptr<State> weak, std::shared_ptr<Clock> clock,
                                                         TimePoint begin) {
  if (const auto now = clock->now(); now < begin) co_await sleep_for(*clock, begin - now);
  for (;;) {
    if (const auto self = weak.lock()) {
      if (self->closed_) co_return;
      co_await self->health_check();
      if (self->answers_) co_return;
    } else {
      co_return;
    }
    co_await sleep_for(*clock, between_pings);
  }
}

awaitable<ReadinessReport> MessageBroker::State::readiness() {
  if (!on_executor()) co_return co_await hop(&State::readiness);
  ReadinessReport report;
  if (!co_await health_check()) report.not_ready.push_back(last_error_);
  if (circuit_suspect_ && breaker_.state(clock->now()) == CircuitState::open)
    report.not_ready.push_back("the circuit is open, publishes fail fast: " + last_error_);
  co_return report;
}

awaitable<BrokerStatus> MessageBroker::State::status() {
  if (!on_executor()) co_return co_await hop(&State::status);
  co_await asio::post(executor, asio::use_awaitable);  // as in `health_check`
  BrokerStatus status;
  status.connected = connected_;
  status.messages_sent = sent_;
  status.messages_received = received_;
  status.circuit = circuit_suspect_ ? breaker_.state(clock->now()) : CircuitState::closed;
  status.last_error = last_error_.empty() ? lost_ : last_error_;
  if (connected_) {
    try {
      co_await transport->learn();
      capabilities = transport->capabilities();
    } catch (const MessagingError& failure) {
      status.last_error = last_error_ = failure.what();  // what was known last is shown
    }
  }
  status.acknowledged_means = capabilities.acknowledged_means;
  for (const auto& attached : open_subscriptions()) {
    auto state = co_await attached->subscription_state();
    if (!state.connected) continue;
    ++status.subscription_count;
    for (auto& each : state.lag) {
      each.group = attached->group();
      status.lag.push_back(std::move(each));
    }
  }
  co_return status;
}

}  // namespace maestro::messaging

#include "messaging/lag_reporter.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <maestro/messaging/log.hpp>
#include <map>

#include "messaging/broker_state.hpp"
#include "messaging/failure.hpp"

namespace maestro::messaging {

namespace asio = boost::asio;

namespace {
constexpr Duration period = std::chrono::seconds(5);
}

LagReporter::LagReporter(std::shared_ptr<Telemetry> telemetry, std::shared_ptr<Clock> clock, std::string broker, std::string topic,
                         std::string group)
    : telemetry_(std::move(telemetry)),
      clock_(std::move(clock)),
      broker_(std::move(broker)),
      topic_(std::move(topic)),
      group_(std::move(group)) {}

void LagReporter::start(const asio::any_io_executor& executor, std::weak_ptr<Attached> member) {
  asio::co_spawn(executor, run(shared_from_this(), std::move(member)),
                 asio::bind_cancellation_slot(cancel_.slot(), [self = shared_from_this()](const std::exception_ptr&) {}));
}

void LagReporter::stop() {
  if (std::exchange(stopped_, true)) return;
  for (const auto partition : shown_) telemetry_->lag(topic_, group_, partition, 0);
  cancel_.emit(asio::cancellation_type::terminal);
}

awaitable<void> LagReporter::run(std::shared_ptr<LagReporter> self, std::weak_ptr<Attached> weak) {
  for (;;) {
    SubscriptionState state;
    std::exception_ptr error;
    {
      const auto member = weak.lock();
      if (!member || self->stopped_) co_return;
      try {
        state = co_await member->subscription_state();
      } catch (...) {
        error = std::current_exception();
      }
    }
    if (self->stopped_) co_return;
    self->on_answer(error);
    if (!error && state.connected) self->show(state);
    co_await sleep_for(*self->clock_, period);
  }
}

void LagReporter::show(const SubscriptionState& state) {
  // A pattern is one label, so that the number of series is bounded: the lag of its topics is added up.
  std::map<std::int32_t, std::int64_t> lags;
  for (const auto& each : state.lag) lags[each.partition] += each.lag;
  for (const auto& [partition, lag] : lags) telemetry_->lag(topic_, group_, partition, static_cast<double>(lag));
  // What moved away is another member's to report.
  for (const auto partition : shown_)
    if (!lags.contains(partition)) telemetry_->lag(topic_, group_, partition, 0);
  shown_.clear();
  for (const auto& [partition, lag] : lags) shown_.insert(partition);
}

void LagReporter::on_answer(const std::exception_ptr& error) {
  if (std::exchange(is_unknown_, error != nullptr) || !error) return;
  log(LogLevel::warning, "the lag is not known at the moment; the metrics show the last that was",
      {{"broker", broker_}, {"topic", topic_}, {"group", group_}, {"cause", describe_failure(error).message}});
}

}  // namespace maestro::messaging

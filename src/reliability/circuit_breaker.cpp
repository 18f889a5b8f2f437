#include <fmt/format.h>

#include <algorithm>
#include <maestro/messaging/circuit_breaker.hpp>
#include <maestro/messaging/error.hpp>

#include "core/option_range.hpp"

namespace maestro::messaging {

void CircuitBreakerOptions::validate() const {
  const auto refuse = [](const std::string& what) { throw MessagingError(errc::invalid_option, what); };
  require_in_range("circuit_failure_threshold", failure_threshold, "failure_threshold");
  if (!(failure_rate >= 0 && failure_rate <= 1))
    refuse(fmt::format("failure_rate: {}; allowed is 0 to 1", failure_rate));
  if (minimum_calls < 1) refuse(fmt::format("minimum_calls: {}; allowed is 1 and more", minimum_calls));
  require_span("window", window, std::chrono::milliseconds(10), std::chrono::hours(24));
  require_in_range("circuit_reset_timeout", reset_timeout, "reset_timeout");
}

Duration::rep CircuitBreaker::slice_number(TimePoint now) const noexcept {
  const auto slice = std::max<Duration::rep>(options_.window.count() / static_cast<Duration::rep>(slices), 1);
  return now.time_since_epoch().count() / slice;
}

void CircuitBreaker::count(TimePoint now, bool failed) noexcept {
  if (options_.failure_rate <= 0) return;
  const auto number = slice_number(now);
  auto& slice = slices_[static_cast<std::size_t>(number) % slices];
  if (slice.number != number) slice = {number, 0, 0};
  ++slice.calls;
  slice.failures += failed;
}

bool CircuitBreaker::rate_exceeded(TimePoint now) const noexcept {
  if (options_.failure_rate <= 0) return false;
  const auto oldest = slice_number(now) - static_cast<Duration::rep>(slices) + 1;
  int calls = 0;
  int failures = 0;
  for (const auto& slice : slices_) {
    if (slice.number < oldest) continue;
    calls += slice.calls;
    failures += slice.failures;
  }
  return calls >= options_.minimum_calls && failures >= options_.failure_rate * calls;
}

void CircuitBreaker::on_success(TimePoint now, Call call) noexcept {
  count(now, false);
  in_row_ = 0;
  if (!is_probe(call)) return;
  probing_ = false;
  state_ = CircuitState::closed;
  slices_ = {};
}

void CircuitBreaker::on_failure(TimePoint now, Call call) noexcept {
  count(now, true);
  if (in_row_ < options_.failure_threshold) ++in_row_;  // it may stay open for any number of late failures
  if (is_probe(call)) {
    probing_ = false;
    open(now);
  } else if (state_ == CircuitState::closed && (in_row_ >= options_.failure_threshold || rate_exceeded(now))) {
    open(now);
  }
}

void CircuitBreaker::open(TimePoint now) noexcept {
  state_ = CircuitState::open;
  open_until_ = options_.reset_timeout < TimePoint::max() - now ? now + options_.reset_timeout : TimePoint::max();
  ++opened_;
}

}  // namespace maestro::messaging

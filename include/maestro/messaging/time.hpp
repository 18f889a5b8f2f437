#pragma once

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/any_io_executor.hpp>
#include <boost/system/error_code.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace maestro::messaging {

using Duration = std::chrono::nanoseconds;
/// For deadlines, leases and backoff.
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;
/// For what people and other programs read.
using Timestamp = std::chrono::time_point<std::chrono::system_clock, Duration>;

/// One pending wait. `async_wait` completes without error when the time has come, and with `operation_aborted`
/// when `cancel()` or the handler's cancellation slot ended it.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual void expires_at(TimePoint due) = 0;
  virtual void cancel() = 0;
  virtual void async_wait(boost::asio::any_completion_handler<void(boost::system::error_code)> handler) = 0;
};

/// The one door to time: every timer, deadline, lease and backoff of the library comes from here, so that all of it
/// runs under a virtual clock too.
class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual TimePoint now() const noexcept = 0;
  [[nodiscard]] virtual Timestamp wall() const noexcept = 0;
  /// What `wall()` said when `now()` said `instant`, which must be recent: one reading of the clock serves for both. May
  /// lag behind a step of the machine's wall clock by a millisecond.
  [[nodiscard]] virtual Timestamp wall_at(TimePoint instant) const noexcept = 0;
  virtual std::unique_ptr<Timer> make_timer(boost::asio::any_io_executor executor) = 0;

  /// The machine's clock.
  static std::shared_ptr<Clock> real();
};

/// UTC with milliseconds: `2026-01-31T12:00:00.000Z`.
void append_rfc3339(std::string& to, Timestamp time);
/// UTC with as many digits as the time has: 3, 6 or 9 of them.
void append_exact_rfc3339(std::string& to, Timestamp time);
/// Strict: date, `T`, time, optional fraction, `Z` or an offset.
[[nodiscard]] std::optional<Timestamp> parse_rfc3339(std::string_view text) noexcept;

}  // namespace maestro::messaging

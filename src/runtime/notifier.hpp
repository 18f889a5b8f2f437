#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <maestro/messaging/time.hpp>
#include <memory>

namespace maestro::messaging {

/// Waits on a timer; true when the time came, false when `cancel()` ended it. Throws `operation_aborted` when the
/// coroutine was cancelled.
boost::asio::awaitable<bool> wait(Timer& timer);

boost::asio::awaitable<void> sleep_for(Clock& clock, Duration span);

/// A latch that one coroutine waits on and anyone on the same executor rings. Ringing before the wait is not lost;
/// ringing often wakes once. Cancelling a wait leaves the latch as it is.
class Notifier {
 public:
  Notifier(Clock& clock, const boost::asio::any_io_executor& executor) : timer_(clock.make_timer(executor)) {}

  void notify() {
    rung_ = true;
    if (waiting_) timer_->cancel();
  }
  [[nodiscard]] bool waiting() const noexcept { return waiting_; }

  boost::asio::awaitable<void> wait();
  /// True when it was rung, false at the deadline.
  boost::asio::awaitable<bool> wait_until(TimePoint deadline);

 private:
  std::unique_ptr<Timer> timer_;
  bool rung_ = false;
  bool waiting_ = false;
};

}  // namespace maestro::messaging

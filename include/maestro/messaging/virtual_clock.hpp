#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <maestro/messaging/time.hpp>
#include <memory>

namespace maestro::messaging {

/// Time that stands still until everything that is ready has run, and then jumps to the next timer. Timers that are due at
/// the same moment go off in an order drawn from the seed, so that a seed is a schedule, and replays it.
/// For one `io_context` on one thread.
class VirtualClock final : public Clock {
 public:
  explicit VirtualClock(std::uint64_t seed = 0);
  ~VirtualClock() override;

  [[nodiscard]] TimePoint now() const noexcept override;
  [[nodiscard]] Timestamp wall() const noexcept override;
  [[nodiscard]] Timestamp wall_at(TimePoint instant) const noexcept override;
  std::unique_ptr<Timer> make_timer(boost::asio::any_io_executor executor) override;

  /// Runs the context, jumping from timer to timer, until `done` says so or nothing is left to do.
  /// Returns whether `done` did. Exceptions of handlers pass through.
  bool run_until(boost::asio::io_context& context, const std::function<bool()>& done);
  /// Runs the context for this much virtual time.
  void run_for(boost::asio::io_context& context, Duration span);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

/// Runs the coroutine to its end under the clock. Rethrows what it throws; throws `MessagingError(timed_out)` when it
/// waits for something that can never come, because nothing is left to do.
void run_virtual(boost::asio::io_context& context, VirtualClock& clock, boost::asio::awaitable<void> work);

}  // namespace maestro::messaging

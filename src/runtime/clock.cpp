#include <boost/asio/steady_timer.hpp>
#include <maestro/messaging/time.hpp>

namespace maestro::messaging {
namespace {

class RealTimer final : public Timer {
 public:
  explicit RealTimer(boost::asio::any_io_executor executor) : timer_(std::move(executor)) {}
  void expires_at(TimePoint due) override { timer_.expires_at(due); }
  void cancel() override { timer_.cancel(); }
  void async_wait(boost::asio::any_completion_handler<void(boost::system::error_code)> handler) override {
    timer_.async_wait(std::move(handler));
  }

 private:
  boost::asio::steady_timer timer_;
};

class RealClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const noexcept override { return std::chrono::steady_clock::now(); }
  [[nodiscard]] Timestamp wall() const noexcept override { return std::chrono::system_clock::now(); }
  [[nodiscard]] Timestamp wall_at(TimePoint instant) const noexcept override {
    // The distance of the two clocks, measured anew each millisecond.
    constexpr Duration period = std::chrono::milliseconds(1);
    thread_local TimePoint measured = TimePoint::min();
    thread_local Duration distance{};
    if (instant < measured || instant >= measured + period) {
      measured = now();
      distance = wall().time_since_epoch() - measured.time_since_epoch();
    }
    return Timestamp(instant.time_since_epoch() + distance);
  }
  std::unique_ptr<Timer> make_timer(boost::asio::any_io_executor executor) override {
    return std::make_unique<RealTimer>(std::move(executor));
  }
};

}  // namespace

std::shared_ptr<Clock> Clock::real() {
  static const auto clock = std::make_shared<RealClock>();
  return clock;
}

}  // namespace maestro::messaging

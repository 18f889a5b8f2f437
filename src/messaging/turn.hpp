#pragma once

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/time.hpp>
#include <maestro/messaging/transport.hpp>
#include <optional>

namespace maestro::messaging {

/// The time that work which never waits has had of the loop. After five milliseconds the loop has to turn, or nobody else gets to
/// work on it: not the broker's client, whose server would take this member for dead.
class Turn {
 public:
  /// Work goes on at `now`.
  void go_on(TimePoint now) {
    if (!began_) began_ = now;
  }
  /// It waited for something else, and so the loop has turned.
  void waited() noexcept { began_.reset(); }
  [[nodiscard]] bool is_over(TimePoint now) const noexcept { return began_ && now - *began_ >= longest; }
  /// Completes in the next turn.
  awaitable<void> let_pass(boost::asio::any_io_executor executor) {
    began_.reset();
    co_await boost::asio::post(executor, boost::asio::use_awaitable);
  }

 private:
  static constexpr Duration longest = std::chrono::milliseconds(5);

  std::optional<TimePoint> began_;
};

}  // namespace maestro::messaging

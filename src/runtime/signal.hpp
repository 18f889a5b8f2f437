#pragma once

#include <algorithm>
#include <vector>

#include "runtime/notifier.hpp"

namespace maestro::messaging {

/// Wakes everyone who waits at the moment; each looks again whether its condition has come true.
class Signal {
 public:
  Signal(std::shared_ptr<Clock> clock, boost::asio::any_io_executor executor)
      : clock_(std::move(clock)), executor_(std::move(executor)) {}

  void ring() {
    for (auto* each : waiting_) each->notify();
  }

  /// False at the deadline.
  boost::asio::awaitable<bool> wait_until(TimePoint deadline) {
    Notifier mine(*clock_, executor_);
    struct Leave {
      std::vector<Notifier*>& waiting;
      Notifier* mine;
      ~Leave() { std::erase(waiting, mine); }
    } const leave{waiting_, &mine};
    waiting_.push_back(&mine);
    co_return co_await mine.wait_until(deadline);
  }

 private:
  std::shared_ptr<Clock> clock_;
  boost::asio::any_io_executor executor_;
  std::vector<Notifier*> waiting_;
};

}  // namespace maestro::messaging

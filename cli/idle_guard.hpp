#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/subscription.hpp>
#include <memory>
#include <utility>

namespace maestro::cli {

/// Closes a subscription that has brought nothing for a while, so that its `next()` ends. Shares the subscription, for
/// the closing may still be under way when the reader goes. Use it on the broker's executor.
class IdleGuard {
 public:
  IdleGuard(const messaging::MessageBroker& broker, std::shared_ptr<messaging::Subscription> subscription,
            messaging::Duration limit)
      : state_(std::make_shared<State>(broker, std::move(subscription), limit)) {
    State::arm(state_);
  }
  ~IdleGuard() {
    state_->stopped = true;
    state_->timer->cancel();
  }
  IdleGuard(const IdleGuard&) = delete;
  IdleGuard& operator=(const IdleGuard&) = delete;

  /// Something came.
  void touch() { state_->due = state_->broker.clock()->now() + state_->limit; }
  [[nodiscard]] bool expired() const noexcept { return state_->expired; }

 private:
  struct State {
    State(const messaging::MessageBroker& owner, std::shared_ptr<messaging::Subscription> closing,
          messaging::Duration idle)
        : broker(owner),
          subscription(std::move(closing)),
          timer(owner.clock()->make_timer(owner.executor())),
          limit(idle),
          due(owner.clock()->now() + idle) {}

    static void arm(const std::shared_ptr<State>& state) {
      state->timer->expires_at(state->due);
      state->timer->async_wait([state](boost::system::error_code) {
        if (state->stopped) return;
        if (state->broker.clock()->now() < state->due) return arm(state);
        state->expired = true;
        boost::asio::co_spawn(state->broker.executor(), close(state), boost::asio::detached);
      });
    }
    static messaging::awaitable<void> close(std::shared_ptr<State> state) { co_await state->subscription->close(); }

    messaging::MessageBroker broker;
    std::shared_ptr<messaging::Subscription> subscription;
    std::unique_ptr<messaging::Timer> timer;
    messaging::Duration limit;
    messaging::TimePoint due;
    bool expired = false;
    bool stopped = false;
  };
  std::shared_ptr<State> state_;
};

}  // namespace maestro::cli

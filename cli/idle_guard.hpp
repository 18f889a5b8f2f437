#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <functional>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/subscription.hpp>
#include <memory>
#include <utility>

namespace maestro::cli {

/// Does something, once, when nothing has come for a while. Use it on the broker's executor.
class IdleGuard {
 public:
  IdleGuard(const messaging::MessageBroker& broker, messaging::Duration limit, std::function<void()> on_idle)
      : state_(std::make_shared<State>(broker, limit, std::move(on_idle))) {
    State::arm(state_);
  }
  ~IdleGuard() {
    state_->on_idle = nullptr;
    state_->timer->cancel();
  }
  IdleGuard(const IdleGuard&) = delete;
  IdleGuard& operator=(const IdleGuard&) = delete;

  /// Something came.
  void touch() { state_->due = state_->broker.clock()->now() + state_->limit; }
  [[nodiscard]] bool expired() const noexcept { return !state_->on_idle; }

 private:
  struct State {
    State(const messaging::MessageBroker& owner, messaging::Duration idle, std::function<void()> then)
        : broker(owner),
          timer(owner.clock()->make_timer(owner.executor())),
          limit(idle),
          due(owner.clock()->now() + idle),
          on_idle(std::move(then)) {}

    static void arm(const std::shared_ptr<State>& state) {
      state->timer->expires_at(state->due);
      state->timer->async_wait([state](boost::system::error_code) {
        if (!state->on_idle) return;
        if (state->broker.clock()->now() < state->due) return arm(state);
        std::exchange(state->on_idle, nullptr)();
      });
    }

    messaging::MessageBroker broker;
    std::unique_ptr<messaging::Timer> timer;
    messaging::Duration limit;
    messaging::TimePoint due;
    std::function<void()> on_idle;  ///< Null once it was done, or the guard is gone.
  };
  std::shared_ptr<State> state_;
};

/// For a guard: closes the subscription, so that its `next()` ends. Shares it, for the closing may still be under way
/// when the reader goes.
inline std::function<void()> closing(const messaging::MessageBroker& broker,
                                     std::shared_ptr<messaging::Subscription> subscription) {
  constexpr auto close = [](std::shared_ptr<messaging::Subscription> shared) -> messaging::awaitable<void> {
    co_await shared->close();
  };
  return [executor = broker.executor(), subscription = std::move(subscription), close] {
    boost::asio::co_spawn(executor, close(subscription), boost::asio::detached);
  };
}

}  // namespace maestro::cli

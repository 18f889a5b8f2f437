#pragma once

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/async_result.hpp>
#include <utility>

namespace maestro::messaging {

/// One coroutine that waits for a call of `wake()`, without a timer and without a coroutine of its own. Cancelling wakes it too; it
/// looks at its condition, and at its cancellation state, by itself. Must outlive the wait.
class Waiter {
 public:
  template <class Token>
  auto async_wait(Token&& token) {
    auto initiate = [this](auto handler) {
      auto slot = boost::asio::get_associated_cancellation_slot(handler);
      Handler parked(std::move(handler));
      parked.swap(handler_);
      // Afterwards, for the handler takes the slot for itself.
      if (slot.is_connected()) slot.assign([this](boost::asio::cancellation_type) { wake(); });
    };
    return boost::asio::async_initiate<Token, void()>(std::move(initiate), token);
  }

  void wake() {
    Handler woken;  // swapped: Asio 1.81 cannot assign these
    woken.swap(handler_);
    if (woken) std::move(woken)();
  }

 private:
  using Handler = boost::asio::any_completion_handler<void()>;
  Handler handler_;
};

}  // namespace maestro::messaging

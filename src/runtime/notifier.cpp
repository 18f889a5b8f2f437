#include "runtime/notifier.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

namespace maestro::messaging {

namespace asio = boost::asio;

asio::awaitable<bool> wait(Timer& timer) {
  auto token = asio::as_tuple(asio::use_awaitable);
  auto initiate = [&timer](auto handler) { timer.async_wait(std::move(handler)); };
  auto outcome =
      co_await asio::async_initiate<decltype(token), void(boost::system::error_code)>(std::move(initiate), token);
  if (!std::get<0>(outcome)) co_return true;
  const auto state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none)
    throw boost::system::system_error(asio::error::operation_aborted);
  co_return false;
}

asio::awaitable<void> sleep_for(Clock& clock, Duration span) {
  auto timer = clock.make_timer(co_await asio::this_coro::executor);
  timer->expires_at(clock.now() + span);
  co_await maestro::messaging::wait(*timer);
}

asio::awaitable<void> Notifier::wait() { co_await wait_until(TimePoint::max()); }

asio::awaitable<bool> Notifier::wait_until(TimePoint deadline) {
  if (!rung_) {
    struct Waiting {
      bool& flag;
      explicit Waiting(bool& f) : flag(f) { flag = true; }
      ~Waiting() { flag = false; }
    } const guard(waiting_);
    timer_->expires_at(deadline);
    if (co_await maestro::messaging::wait(*timer_) && !rung_) co_return false;
  }
  rung_ = false;
  co_return true;
}

}  // namespace maestro::messaging

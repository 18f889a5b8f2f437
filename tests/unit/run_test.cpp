#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <cstdlib>
#include <maestro/messaging/run.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

asio::awaitable<void> pause(std::chrono::milliseconds time) {
  asio::steady_timer timer(co_await asio::this_coro::executor, time);
  co_await timer.async_wait(asio::use_awaitable);
}

TEST(Run, ReturnsWhatTheCoroutineCameTo) {
  EXPECT_EQ(run([]() -> asio::awaitable<void> { co_await pause(1ms); }()), EXIT_SUCCESS);
  EXPECT_EQ(run([]() -> asio::awaitable<void> {
              throw std::runtime_error("no");
              co_return;
            }()),
            EXIT_FAILURE);
}

TEST(Run, ASignalCancelsTheCoroutine) {
  bool cancelled = false;
  EXPECT_EQ(run([](bool& told) -> asio::awaitable<void> {
              std::raise(SIGTERM);
              try {
                co_await pause(1min);
              } catch (const boost::system::system_error& error) {
                told = error.code() == asio::error::operation_aborted;
              }
            }(cancelled)),
            EXIT_SUCCESS);
  EXPECT_TRUE(cancelled);
}

TEST(RunDeathTest, ASignalEndsTheProcessWhenTheCoroutineHasEnded) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto leave_work_behind = []() -> asio::awaitable<void> {
    const auto work = []() -> asio::awaitable<void> {
      co_await pause(20ms);
      std::raise(SIGTERM);
      co_await pause(20ms);
      std::_Exit(3);  // the signal was swallowed
    };
    asio::co_spawn(co_await asio::this_coro::executor, work(), asio::detached);
  };
  EXPECT_EXIT(std::_Exit(run(leave_work_behind())), testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace maestro::messaging

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <maestro/messaging/virtual_clock.hpp>
#include <set>

#include "runtime/notifier.hpp"
#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using namespace std::chrono_literals;
namespace asio = boost::asio;

class Virtual : public testing::Test {
 protected:
  /// Runs until nothing is left to do.
  void drain() {
    clock.run_until(context, [] { return false; });
  }
  void spawn(asio::awaitable<void> work) { asio::co_spawn(context, std::move(work), asio::detached); }

  asio::io_context context;
  VirtualClock clock{1};
};

TEST_F(Virtual, TimersGoOffInTheOrderOfTheirTimes) {
  std::vector<std::pair<int, Duration>> order;
  const auto sleeper = [&](int number, Duration span) -> asio::awaitable<void> {
    co_await sleep_for(clock, span);
    order.emplace_back(number, clock.now().time_since_epoch());
  };
  spawn(sleeper(3, 3h));
  spawn(sleeper(1, 1ms));
  spawn(sleeper(2, 2s));
  drain();
  EXPECT_THAT(order, testing::ElementsAre(testing::Pair(1, Duration(1ms)), testing::Pair(2, Duration(2s)),
                                          testing::Pair(3, Duration(3h))));
}

TEST_F(Virtual, TimeStandsStillWhileThereIsWork) {
  bool fired = false;
  auto timer = clock.make_timer(context.get_executor());
  timer->expires_at(clock.now() + 1ns);
  timer->async_wait([&](boost::system::error_code) { fired = true; });
  int posts = 0;
  std::function<void()> again = [&] {
    EXPECT_FALSE(fired);
    if (++posts < 1000) asio::post(context, again);
  };
  asio::post(context, again);
  drain();
  EXPECT_EQ(posts, 1000);
  EXPECT_TRUE(fired);
}

std::vector<int> order_of(std::uint64_t seed) {
  asio::io_context context;
  VirtualClock clock(seed);
  std::vector<int> order;
  std::vector<std::unique_ptr<Timer>> timers;
  for (int i = 0; i < 8; ++i) {
    timers.push_back(clock.make_timer(context.get_executor()));
    timers.back()->expires_at(TimePoint(1s));
    timers.back()->async_wait([&order, i](boost::system::error_code) { order.push_back(i); });
  }
  clock.run_until(context, [] { return false; });
  return order;
}

TEST(VirtualClockSeed, IsASchedule) {
  std::set<std::vector<int>> schedules;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto order = order_of(seed);
    EXPECT_EQ(order, order_of(seed));
    EXPECT_THAT(order, testing::UnorderedElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
    schedules.insert(order);
  }
  EXPECT_GT(schedules.size(), 15U);
}

TEST_F(Virtual, ACancelledTimerSaysSo) {
  std::vector<boost::system::error_code> seen;
  auto timer = clock.make_timer(context.get_executor());
  timer->expires_at(TimePoint(1s));
  timer->async_wait([&](boost::system::error_code error) { seen.push_back(error); });
  timer->cancel();
  timer->cancel();
  drain();
  EXPECT_THAT(seen, testing::ElementsAre(boost::system::error_code(asio::error::operation_aborted)));
  EXPECT_EQ(clock.now(), TimePoint{});
}

TEST_F(Virtual, ANewTimeAndTheTimersEndCancelToo) {
  int aborted = 0;
  const auto count = [&](boost::system::error_code error) { aborted += error == asio::error::operation_aborted; };
  auto timer = clock.make_timer(context.get_executor());
  timer->expires_at(TimePoint(1s));
  timer->async_wait(count);
  timer->expires_at(TimePoint(2s));
  timer->async_wait(count);
  timer.reset();
  drain();
  EXPECT_EQ(aborted, 2);
}

TEST_F(Virtual, ACancellationSlotEndsTheWait) {
  asio::cancellation_signal signal;
  boost::system::error_code seen;
  auto timer = clock.make_timer(context.get_executor());
  timer->expires_at(TimePoint(1s));
  timer->async_wait(
      asio::bind_cancellation_slot(signal.slot(), [&](boost::system::error_code error) { seen = error; }));
  signal.emit(asio::cancellation_type::terminal);
  drain();
  EXPECT_EQ(seen, boost::system::error_code(asio::error::operation_aborted));
}

TEST_F(Virtual, RunForEndsAtItsTime) {
  int fired = 0;
  std::vector<std::unique_ptr<Timer>> timers;
  for (const Duration due : {Duration(1s), Duration(2s), Duration(2s + 1ns)}) {
    timers.push_back(clock.make_timer(context.get_executor()));
    timers.back()->expires_at(TimePoint(due));
    timers.back()->async_wait([&](boost::system::error_code error) { fired += !error; });
  }
  clock.run_for(context, 1500ms);
  EXPECT_EQ(fired, 1);
  EXPECT_EQ(clock.now(), TimePoint(1500ms));
  clock.run_for(context, 1s);
  EXPECT_EQ(fired, 3);
  EXPECT_EQ(clock.now(), TimePoint(2500ms));
}

TEST_F(Virtual, WallTimeMovesAlong) {
  const auto before = clock.wall();
  clock.run_for(context, 1h);
  EXPECT_EQ(clock.wall() - before, 1h);
}

TEST_F(Virtual, RunVirtualRethrowsAndFindsDeadlocks) {
  const auto thrower = [&]() -> asio::awaitable<void> {
    co_await sleep_for(clock, 1s);
    throw std::runtime_error("mine");
  };
  EXPECT_THROW(run_virtual(context, clock, thrower()), std::runtime_error);
  Notifier never(clock, context.get_executor());
  EXPECT_THAT(unit::refusal(errc::timed_out, [&] { run_virtual(context, clock, never.wait()); }),
              testing::HasSubstr("never come"));
}

TEST_F(Virtual, RingingBeforeTheWaitIsNotLostAndWakesOnce) {
  Notifier bell(clock, context.get_executor());
  bell.notify();
  bell.notify();
  bool first = false;
  bool second = true;
  const auto waiter = [&]() -> asio::awaitable<void> {
    first = co_await bell.wait_until(TimePoint(1s));
    second = co_await bell.wait_until(TimePoint(1s));
  };
  run_virtual(context, clock, waiter());
  EXPECT_TRUE(first);
  EXPECT_FALSE(second);
  EXPECT_EQ(clock.now(), TimePoint(1s));
}

TEST_F(Virtual, RingingWakesTheOneThatWaits) {
  Notifier bell(clock, context.get_executor());
  bool woken = false;
  const auto waiter = [&]() -> asio::awaitable<void> {
    co_await bell.wait();
    woken = true;
  };
  spawn(waiter());
  context.poll();
  EXPECT_TRUE(bell.waiting());
  EXPECT_FALSE(woken);
  bell.notify();
  bell.notify();
  context.restart();
  context.poll();
  EXPECT_TRUE(woken);
  EXPECT_FALSE(bell.waiting());
}

TEST_F(Virtual, ACancelledWaitLeavesTheLatch) {
  Notifier bell(clock, context.get_executor());
  asio::cancellation_signal signal;
  std::exception_ptr failure;
  asio::co_spawn(context, bell.wait(),
                 asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr error) { failure = error; }));
  context.poll();
  signal.emit(asio::cancellation_type::terminal);
  context.restart();
  context.poll();
  ASSERT_TRUE(failure);
  EXPECT_THROW(std::rethrow_exception(failure), boost::system::system_error);
  EXPECT_FALSE(bell.waiting());
  bell.notify();
  run_virtual(context, clock, bell.wait());
}

TEST_F(Virtual, EveryRingIsHeardUnderEverySchedule) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    asio::io_context loop;
    VirtualClock time(seed);
    Notifier bell(time, loop.get_executor());
    std::mt19937_64 random(seed);
    int jobs = 0;
    int done = 0;
    const auto worker = [&]() -> asio::awaitable<void> {
      while (done < 20) {
        while (jobs > done) {
          ++done;
          co_await sleep_for(time, Duration(random() % 3));
        }
        if (done < 20) co_await bell.wait();
      }
    };
    const auto boss = [&]() -> asio::awaitable<void> {
      for (int i = 0; i < 20; ++i) {
        ++jobs;
        bell.notify();
        co_await sleep_for(time, Duration(random() % 3));
      }
    };
    asio::co_spawn(loop, boss(), asio::detached);
    ASSERT_NO_THROW(run_virtual(loop, time, worker())) << "seed " << seed;
  }
}

}  // namespace
}  // namespace maestro::messaging

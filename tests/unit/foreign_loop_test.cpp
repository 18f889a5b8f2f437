#include <gtest/gtest.h>
#include <poll.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <maestro/messaging.hpp>
#include <maestro/messaging/foreign_loop.hpp>
#include <thread>

#include "runtime/notifier.hpp"

namespace maestro::messaging {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

bool readable(const ForeignLoop& loop, int timeout_ms) {
  pollfd watched{loop.descriptor(), POLLIN, 0};
  return ::poll(&watched, 1, timeout_ms) == 1;
}

/// What a loop that is not Asio's does: waits until the descriptor is readable, and runs what is ready.
template <class Done>
bool turn_until(ForeignLoop& loop, Done done) {
  const auto deadline = Clock::real()->now() + 10s;
  while (!done()) {
    if (Clock::real()->now() > deadline) return false;
    if (readable(loop, 100)) loop.run();
  }
  return true;
}

void spawn(ForeignLoop& loop, awaitable<void> work, bool& done) {
  asio::co_spawn(loop.executor(), std::move(work), [&done](std::exception_ptr error) {
    if (error) std::rethrow_exception(error);
    done = true;
  });
}

TEST(ForeignLoopTest, RunsWhatOtherThreadsPostOnItsOwnAndIsRungOnceABurst) {
  auto& loop = ForeignLoop::make();
  EXPECT_FALSE(readable(loop, 0));
  std::vector<std::thread::id> ran;
  std::thread([&loop, &ran] {
    for (int i = 0; i < 100; ++i) asio::post(loop.executor(), [&ran] { ran.push_back(std::this_thread::get_id()); });
  }).join();
  ASSERT_TRUE(readable(loop, 0));
  EXPECT_TRUE(ran.empty());
  loop.run();
  EXPECT_EQ(ran, std::vector(100, std::this_thread::get_id()));
  EXPECT_FALSE(readable(loop, 0));
}

TEST(ForeignLoopTest, EndsWhenItsTimeIsUpAndIsReadableForTheRest) {
  auto& loop = ForeignLoop::make();
  int ran = 0;
  for (int i = 0; i < 100; ++i) asio::post(loop.executor(), [&ran] { ++ran; });
  loop.run(Duration::zero());
  EXPECT_GT(ran, 0);
  EXPECT_LT(ran, 100);
  EXPECT_TRUE(turn_until(loop, [&ran] { return ran == 100; }));
}

TEST(ForeignLoopTest, TimersComeInTheirOrderAndCanBeCancelled) {
  auto& loop = ForeignLoop::make();
  std::vector<int> order;
  bool done = false;
  const auto after = [&](Duration span, int number) -> awaitable<void> {
    co_await sleep_for(*loop.clock(), span);
    order.push_back(number);
  };
  bool ignored = false;
  spawn(loop, after(30ms, 2), ignored);
  spawn(loop, after(60ms, 3), done);
  spawn(loop, after(5ms, 1), ignored);
  auto timer = loop.clock()->make_timer(loop.executor());
  timer->expires_at(loop.clock()->now() + 1h);
  boost::system::error_code outcome;
  timer->async_wait([&outcome](boost::system::error_code error) { outcome = error; });
  timer->cancel();
  ASSERT_TRUE(turn_until(loop, [&done] { return done; }));
  EXPECT_EQ(order, (std::vector{1, 2, 3}));
  EXPECT_EQ(outcome, asio::error::operation_aborted);
}

TEST(ForeignLoopTest, ABrokerLivesOnItWhileAnotherThreadPublishes) {
  auto& loop = ForeignLoop::make();
  MessagingConfig config;
  config.connection_string = "memory://foreign";
  config.clock = loop.clock();
  MessageBroker broker(loop.executor(), config);
  EventConsumer consumer(broker, {.group_id = "work", .concurrency = 4, .initial_backoff = 1ms});
  constexpr int count = 1000;
  int handled = 0;
  bool failed_once = false;
  consumer.subscribe("orders", [&](const Event& event) -> awaitable<void> {
    EXPECT_TRUE(loop.running_in_this_thread());
    if (event["number"].as_int64() == 500 && !std::exchange(failed_once, true)) throw std::runtime_error("once");
    if (++handled == count) consumer.stop();
    co_return;
  });
  bool done = false;
  spawn(loop, consumer.start(), done);
  std::thread publisher([&broker] {
    asio::io_context context;
    for (int i = 0; i < count; ++i)
      asio::co_spawn(context, broker.publish("orders", {{"number", i}}, {.key = std::to_string(i % 7)}),
                     [](std::exception_ptr error, const Receipt&) { EXPECT_FALSE(error); });
    context.run();
  });
  EXPECT_TRUE(turn_until(loop, [&done] { return done; }));
  publisher.join();
  EXPECT_EQ(handled, count);
  EXPECT_EQ(consumer.counts().retried, 1U);
}

TEST(ForeignLoopTest, TryingPublishesAndReadsWhatNeedsNoWaiting) {
  auto& loop = ForeignLoop::make();
  MessagingConfig config;
  config.connection_string = "memory://trying";
  config.clock = loop.clock();
  MessageBroker broker(loop.executor(), config);
  OutgoingMessage message{.topic = "orders", .payload = Payload("1"), .key = "a"};
  EXPECT_FALSE(broker.try_publish(message));  // not connected yet
  EXPECT_EQ(message.topic, "orders");
  bool done = false;
  spawn(loop, [](MessageBroker of, OutgoingMessage first) -> awaitable<void> {
    co_await of.connect();
    EXPECT_EQ(of.try_publish(first)->topic, "orders");
    OutgoingMessage second{.topic = "orders", .payload = Payload("2"), .key = "a"};
    EXPECT_FALSE(of.try_publish(second, false)->confirmed);
    EXPECT_EQ((co_await of.flush()).confirmed, 1U);
    auto subscription = co_await of.subscribe("orders", {.group_id = "g"});
    EXPECT_FALSE(subscription.try_next());  // nothing was fetched
    EXPECT_EQ((co_await subscription.next())->body(), "1");
    EXPECT_EQ(subscription.try_next()->body(), "2");
    EXPECT_FALSE(subscription.try_next());
    co_await subscription.close();
    OutgoingMessage bad{.topic = "no topic", .payload = Payload("3")};
    EXPECT_THROW(of.try_publish(bad), MessagingError);
  }(broker, message), done);
  EXPECT_TRUE(turn_until(loop, [&done] { return done; }));
}

}  // namespace
}  // namespace maestro::messaging

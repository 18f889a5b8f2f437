#include <boost/asio/executor_work_guard.hpp>
#include <set>
#include <thread>

#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

class OtherThreads : public Contract {};

// Real threads, and therefore the machine's clock.
TEST_P(OtherThreads, PublishingHopsToTheBrokersExecutor) {
  constexpr int count = 1000;
  const auto topic = unique();
  MessageBroker client(context_->get_executor(), GetParam().config(home_));
  asio::io_context away(1);
  auto keep_running = asio::make_work_guard(*context_);
  bool done = false;
  std::exception_ptr failure;
  const auto publish = [&]() -> awaitable<void> {
    for (int i = 0; i < count; ++i) {
      const auto receipt = co_await client.publish(topic, Value(i), {.key = "k", .confirm = i % 2 == 0});
      EXPECT_EQ(receipt.confirmed, i % 2 == 0);
      if (receipt.confirmed) EXPECT_EQ(receipt.topic, topic);
    }
    const auto report = co_await client.flush();
    EXPECT_EQ(report.confirmed, static_cast<std::size_t>(count / 2));
    EXPECT_TRUE(co_await client.health_check());
    EXPECT_EQ((co_await client.get_status()).messages_sent, static_cast<std::uint64_t>(count));
  };
  asio::co_spawn(away, publish(), [&](std::exception_ptr error) {
    failure = error;
    done = true;
    context_->stop();
  });
  std::thread other([&away] { away.run(); });
  context_->run();
  other.join();
  keep_running.reset();
  ASSERT_TRUE(done);
  if (failure) std::rethrow_exception(failure);

  std::set<std::int64_t> seen;
  const auto read = [&]() -> awaitable<void> {
    auto reader = co_await client.subscribe(topic, {.group_id = group("g")});
    while (seen.size() < count) seen.insert((co_await reader.next())->value().as_int64());
    co_await client.disconnect();
  };
  asio::co_spawn(*context_, read(), [&](std::exception_ptr error) { failure = error; });
  context_->restart();
  context_->run();
  if (failure) std::rethrow_exception(failure);
  EXPECT_EQ(*seen.rbegin(), count - 1);
}

MAESTRO_CONTRACT(OtherThreads);

}  // namespace
}  // namespace maestro::messaging::testing

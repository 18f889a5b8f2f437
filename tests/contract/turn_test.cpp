#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

/// Handlers that never wait, but compute: on real time for every broker, for they take some.
class Turns : public Contract {
 protected:
  static constexpr int messages = 60;

  void compute() {
    const auto until = std::chrono::steady_clock::now() + 1ms;
    while (std::chrono::steady_clock::now() < until) {
    }
    longest_ = std::max(longest_, std::exchange(seen_in_, turns_) == turns_ ? ++in_turn_ : in_turn_ = 1);
  }

  void run_real(const std::function<awaitable<void>(MessageBroker, std::string topic)>& work) {
    asio::io_context context(1);
    bool done = false;
    std::exception_ptr error;
    const auto whole = [&]() -> awaitable<void> {
      auto made = config();
      made.clock = Clock::real();
      MessageBroker client(context.get_executor(), std::move(made));
      const auto topic = unique();
      std::vector<OutgoingMessage> batch(messages);
      for (auto& message : batch) message = {.topic = topic, .payload = Payload("1"), .key = "k"};
      for (const auto& result : co_await client.publish_many(std::move(batch))) result.value();
      co_await work(client, topic);
      co_await client.disconnect();
    };
    asio::co_spawn(context, whole, [&](std::exception_ptr failure) {
      error = failure;
      done = true;
    });
    asio::co_spawn(
        context,
        [&]() -> awaitable<void> {
          while (!done) {
            co_await asio::post(context, asio::use_awaitable);
            ++turns_;
          }
        },
        asio::detached);
    context.run();
    if (error) std::rethrow_exception(error);
  }

  int turns_ = 0;    // of the loop
  int seen_in_ = -1;
  int in_turn_ = 0;
  int longest_ = 0;  // run of messages without a turn of the loop
};

TEST_P(Turns, TheLoopTurnsBetweenHandlersThatNeverWait) {
  run_real([&](MessageBroker client, std::string topic) -> awaitable<void> {
    EventConsumer consumer(client, {.group_id = group("g")});
    int handled = 0;
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      compute();
      if (++handled == messages) consumer.stop();
      co_return;
    });
    co_await consumer.start();
    EXPECT_EQ(handled, messages);
  });
  EXPECT_LE(longest_, messages / 4);
}

TEST_P(Turns, TheLoopTurnsBetweenFailuresToo) {
  run_real([&](MessageBroker client, std::string topic) -> awaitable<void> {
    EventConsumer consumer(client, {.group_id = group("g"), .max_retry_attempts = 0});
    int failed = 0;
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      compute();
      if (++failed == messages) consumer.stop();
      throw std::runtime_error("no");
      co_return;
    });
    co_await consumer.start();
    EXPECT_EQ(failed, messages);
  });
  EXPECT_LE(longest_, messages / 4);
}

TEST_P(Turns, TheLoopTurnsBetweenMessagesThatAreReadByHand) {
  run_real([&](MessageBroker client, std::string topic) -> awaitable<void> {
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    for (int i = 0; i < messages; ++i) {
      EXPECT_TRUE(co_await subscription.next());
      compute();
    }
  });
  EXPECT_LE(longest_, messages / 4);
}

TEST_P(Turns, TheLoopTurnsWhileSomebodyAsksForTheStatus) {
  run_real([&](MessageBroker client, std::string) -> awaitable<void> {
    for (int i = 0; i < messages; ++i) {
      EXPECT_TRUE((co_await client.get_status()).connected);
      compute();
    }
  });
  EXPECT_LE(longest_, messages / 4);
}

INSTANTIATE_TEST_SUITE_P(All, Turns, ::testing::ValuesIn(transports()), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace maestro::messaging::testing

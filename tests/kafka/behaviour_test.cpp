// What Kafka's own options do, on a real broker.
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <random>

#include "runtime/notifier.hpp"
#include "support/real_time.hpp"

namespace maestro::messaging::testing {
namespace {

using namespace std::chrono_literals;

class KafkaBehaviour : public ::testing::Test {
 protected:
  MessagingConfig config(ConfigMap consumer = {}, ConfigMap producer = {}) const {
    auto made = MessagingConfig::from_url(server("kafka").url);
    made.consumer_config = std::move(consumer);
    made.producer_config = std::move(producer);
    return made;
  }
  std::string unique(const std::string& what) const { return fmt::format("{}.{:08x}", what, std::random_device{}()); }
};

TEST_F(KafkaBehaviour, EveryCompressionBringsTheBytesBack) {
  for (const auto* type : {"none", "gzip", "snappy", "lz4", "zstd"}) {
    run_real([&](boost::asio::io_context& context) -> awaitable<void> {
      MessageBroker broker(context.get_executor(), config({}, {{"compression_type", type}}));
      const auto topic = unique("compressed");
      std::vector<OutgoingMessage> messages(100);
      for (std::size_t i = 0; i < messages.size(); ++i) {
        messages[i].topic = topic;
        messages[i].key = "k";
        messages[i].payload = Payload(fmt::format("{}{:x>500}", i, ""));
      }
      for (const auto& result : co_await broker.publish_many(std::move(messages)))
        EXPECT_TRUE(result.ok()) << type << ": " << result.detail;
      auto reader = co_await broker.subscribe(topic);
      for (int i = 0; i < 100; ++i)
        EXPECT_EQ((co_await reader.next())->body(), fmt::format("{}{:x>500}", i, "")) << type;
      co_await broker.disconnect();
    });
  }
}

// Six seconds without a poll would cost a plain client its partitions; the handler takes nine.
TEST_F(KafkaBehaviour, ASlowHandlerKeepsItsMembership) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker broker(context.get_executor(), config({{"session_timeout", 6000}, {"max_poll_interval", 6000}}));
    const auto topic = unique("slow");
    co_await broker.publish(topic, Value("slow"));
    EventConsumer consumer(broker, {.group_id = unique("g")});
    int calls = 0;
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      ++calls;
      co_await sleep_for(*clock, 9s);
    });
    bool ended = false;
    boost::asio::co_spawn(context, consumer.start(), [&](std::exception_ptr) { ended = true; });
    while (consumer.counts().handled == 0) co_await sleep_for(*clock, 10ms);
    co_await sleep_for(*clock, 1s);
    EXPECT_EQ(calls, 1);
    EXPECT_EQ(consumer.counts().received, 1U);
    consumer.stop();
    while (!ended) co_await sleep_for(*clock, 10ms);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, WhatWaitsForABrokerThatIsNotThereEndsWhenItIsTold) {
  run_real([](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    auto nowhere = MessagingConfig::from_url("127.0.0.1:1");
    nowhere.connection_config = {{"connect_timeout", 20'000}};
    MessageBroker broker(context.get_executor(), nowhere);
    const auto began = clock->now();
    // Neither does a cancelled connect() count as one that succeeded.
    for (int i = 0; i < 2; ++i) {
      boost::asio::cancellation_signal cancel;
      bool ended = false;
      boost::asio::co_spawn(context, broker.connect(),
                            boost::asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr error) {
                              EXPECT_TRUE(error) << "connected to nothing";
                              ended = true;
                            }));
      co_await sleep_for(*clock, 100ms);
      cancel.emit(boost::asio::cancellation_type::terminal);
      while (!ended) co_await sleep_for(*clock, 1ms);
      EXPECT_FALSE((co_await broker.get_status()).connected);
    }
    EventConsumer consumer(broker, {.group_id = "g"});
    consumer.subscribe("t", [](const Event&) -> awaitable<void> { co_return; });
    bool ended = false;
    boost::asio::co_spawn(context, consumer.start(), [&](std::exception_ptr error) {
      EXPECT_FALSE(error);
      ended = true;
    });
    co_await sleep_for(*clock, 100ms);
    EXPECT_FALSE(ended);
    consumer.stop();
    while (!ended) co_await sleep_for(*clock, 1ms);
    EXPECT_LT(clock->now() - began, 5s);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, AStaticMemberComesBackToItsPartitions) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config({{"group_instance_id", "one"}, {"session_timeout", 30'000}}));
    const auto clock = Clock::real();
    const auto topic = unique("static");
    const auto group = unique("g");
    co_await broker.publish(topic, Value(1));
    {
      auto first = co_await broker.subscribe(topic, {.group_id = group});
      EXPECT_EQ((co_await first.next())->value(), 1);
      co_await first.commit();
      co_await first.close();
    }
    co_await broker.publish(topic, Value(2));
    const auto began = clock->now();
    auto again = co_await broker.subscribe(topic, {.group_id = group});
    EXPECT_EQ((co_await again.next())->value(), 2);
    EXPECT_LT(clock->now() - began, 15s) << "nobody waits for the session of the one before to end";
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, AZombieIsFenced) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto id = unique("transactional");
    MessageBroker zombie(context.get_executor(), config({}, {{"transactional_id", id}}));
    MessageBroker successor(context.get_executor(), config({}, {{"transactional_id", id}}));
    const auto topic = unique("fenced");
    const auto publish = [&](MessageBroker broker, int number) -> awaitable<void> {
      co_await broker.transaction([&](Transaction& transaction) -> awaitable<void> {
        transaction.publish(topic, Value(number), "k");
        co_return;
      });
    };
    co_await publish(zombie, 1);
    co_await publish(successor, 2);
    const auto failure = co_await failure_of(publish(zombie, 3));
    EXPECT_EQ(failure.reason(), errc::transaction_aborted) << failure.what();
    co_await publish(successor, 4);
    auto reader = co_await successor.subscribe(topic);
    for (const int expected : {1, 2, 4}) EXPECT_EQ((co_await reader.next())->value(), expected);
    co_await successor.disconnect();
    co_await zombie.disconnect();
  });
}

TEST_F(KafkaBehaviour, LagIsToldForEachPartition) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto clock = Clock::real();
    const auto topic = unique("lag");
    for (int i = 0; i < 10; ++i) co_await broker.publish(topic, Value(i), {.partition = i % 2});
    auto subscription = co_await broker.subscribe(topic, {.group_id = unique("g"), .enable_auto_commit = false});
    for (int i = 0; i < 10; ++i) {
      const auto message = co_await subscription.next();
      if (message->position().partition == 0) subscription.acknowledge(*message);
    }
    std::map<std::int32_t, std::int64_t> lag;
    for (const auto& each : (co_await broker.get_status()).lag) lag[each.partition] = each.lag;
    EXPECT_EQ(lag.size(), 6U);
    EXPECT_EQ(lag[0], 0);
    EXPECT_EQ(lag[1], 5);
    co_await broker.disconnect();
  });
}

}  // namespace
}  // namespace maestro::messaging::testing

#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

/// A topic that holds ten messages, in one partition.
class FullTopic : public Contract {
 protected:
  MessageBroker small(ConfigMap producer = {}) {
    return broker({{"max_messages", 10}, {"partitions", 1}}, {}, std::move(producer));
  }
  static awaitable<void> fill(MessageBroker client, std::string topic) {
    for (int i = 0; i < 10; ++i) co_await client.publish(topic, Value(i), {.key = "k"});
  }
  /// Acknowledges all that is there.
  static awaitable<void> make_room(Subscription& reader) {
    EXPECT_EQ((co_await reader.next_batch(10)).size(), 10U);
    co_await reader.commit();
  }
};

TEST_P(FullTopic, SaysQueueFullAfterThePublishTimeout) {
  run([&]() -> awaitable<void> {
    auto client = small({{"publish_timeout", 2000}});
    const auto topic = unique();
    auto reader = co_await client.subscribe(topic, {.group_id = group("g")});
    co_await fill(client, topic);
    const auto began = clock_->now();
    EXPECT_EQ(co_await error_of(ignore(client.publish(topic, Value("late")))), errc::queue_full);
    EXPECT_GE(clock_->now() - began, 2s);
    EXPECT_LT(clock_->now() - began, 3s);
    EXPECT_EQ((co_await client.administration().describe_topic(topic)).messages, 10) << "nothing was sent";
    EXPECT_EQ((co_await client.get_status()).circuit, CircuitState::closed) << "a slow reader is not the broker's fault";
  });
}

TEST_P(FullTopic, WhatWaitsInTheBufferHasThePublishTimeoutFromWhenItCame) {
  run([&]() -> awaitable<void> {
    auto client = small({{"publish_timeout", 2000}});
    const auto topic = unique();
    auto reader = co_await client.subscribe(topic, {.group_id = group("g")});
    co_await fill(client, topic);
    const auto began = clock_->now();
    constexpr std::size_t messages = 2500;  // in three batches, or four
    std::size_t errors = 0;
    set_log_level(LogLevel::error);
    set_log_sink([&](const LogRecord& record) { errors += record.level == LogLevel::error; });
    for (std::size_t i = 0; i < messages; ++i) co_await client.publish(topic, Value(1), {.confirm = false});
    const auto report = co_await client.flush();
    set_log_sink(make_log_sink(LogFormat::text));
    set_log_level(LogLevel::off);
    EXPECT_GE(errors, 1U);
    EXPECT_LE(errors, 8U) << "two lines for each of four batches";
    EXPECT_LT(clock_->now() - began, 3s);
    EXPECT_EQ(report.confirmed, 0U);
    EXPECT_EQ(report.failures.size(), messages);
    for (const auto& failure : report.failures) EXPECT_EQ(failure.error, errc::queue_full) << failure.detail;
    EXPECT_EQ((co_await client.get_status()).circuit, CircuitState::closed);
  });
}

TEST_P(FullTopic, DisconnectingEndsAPublishThatWaits) {
  run([&]() -> awaitable<void> {
    auto client = small();
    const auto topic = unique();
    auto reader = co_await client.subscribe(topic, {.group_id = group("g")});
    co_await fill(client, topic);
    boost::system::error_code error;
    const auto publish = [&]() -> awaitable<void> { error = co_await error_of(ignore(client.publish(topic, Value("late")))); };
    asio::co_spawn(*context_, publish(), asio::detached);
    co_await sleep(1s);
    EXPECT_FALSE(error);
    co_await client.disconnect();
    const auto began = clock_->now();
    co_await until([&] { return error.failed(); });
    EXPECT_EQ(error, errc::closed);
    EXPECT_LT(clock_->now() - began, 1s);
  });
}

TEST_P(FullTopic, SuspendsThePublisherUntilThereIsRoom) {
  run([&]() -> awaitable<void> {
    auto client = small();
    const auto topic = unique();
    auto reader = co_await client.subscribe(topic, {.group_id = group("g")});
    co_await fill(client, topic);
    bool done = false;
    asio::co_spawn(*context_, ignore(client.publish(topic, Value("waited"), {.key = "k"})),
                   [&](std::exception_ptr error) { done = !error; });
    co_await sleep(10s);
    EXPECT_FALSE(done);
    const auto began = clock_->now();
    co_await make_room(reader);
    co_await until([&] { return done; });
    EXPECT_LT(clock_->now() - began, 1s);
    EXPECT_EQ((co_await reader.next())->value(), "waited");
  });
}

TEST_P(FullTopic, AFullBufferSuspendsThePublisher) {
  run([&]() -> awaitable<void> {
    auto client = small({{"buffer_messages", 3}});
    const auto topic = unique();
    auto reader = co_await client.subscribe(topic, {.group_id = group("g")});
    co_await fill(client, topic);
    int accepted = 0;
    const auto publish = [&]() -> awaitable<void> {
      for (int i = 0; i < 8; ++i) {
        co_await client.publish(topic, Value(100 + i), {.key = "k", .confirm = false});
        ++accepted;
      }
    };
    bool done = false;
    asio::co_spawn(*context_, publish(), [&](std::exception_ptr error) { done = !error; });
    co_await sleep(10s);
    EXPECT_EQ(accepted, 3) << "what fits into the buffer, and no more";
    co_await make_room(reader);
    co_await until([&] { return done; });
    const auto report = co_await client.flush();
    EXPECT_EQ(report.confirmed, 8U);
    EXPECT_TRUE(report.failures.empty());
    for (int i = 0; i < 8; ++i) EXPECT_EQ((co_await reader.next())->value(), 100 + i);
  });
}

TEST_P(FullTopic, ATransactionThatDoesNotFitDoesNothing) {
  run([&]() -> awaitable<void> {
    auto client = small();
    const auto in = unique("in");
    const auto out = unique("out");
    auto results = co_await client.subscribe(out, {.group_id = group("g")});
    co_await fill(client, out);
    co_await client.publish(in, Value("work"), {.key = "k"});
    const SubscribeOptions by_hand{.group_id = group("g"), .enable_auto_commit = false};
    {
      auto work = co_await client.subscribe(in, by_hand);
      const auto message = co_await work.next();
      const auto other = unique("other");
      EXPECT_EQ(co_await error_of(client.transaction([&](Transaction& tx) -> awaitable<void> {
        tx.publish(other, Value("not without the rest"));
        tx.publish(out, Value("one too many"));
        tx.acknowledge(work, *message);
        co_return;
      })),
                errc::transaction_aborted);
      EXPECT_EQ((co_await client.administration().describe_topic(out)).messages, 10);
      for (const auto& name : co_await client.administration().list_topics())
        if (name == other) EXPECT_EQ((co_await client.administration().describe_topic(other)).messages, 0);
    }
    auto again = co_await client.subscribe(in, by_hand);
    EXPECT_EQ((co_await again.next())->value(), "work") << "the acknowledgement did not take effect either";
  });
}

MAESTRO_CONTRACT_ON_MEMORY(FullTopic);

}  // namespace
}  // namespace maestro::messaging::testing

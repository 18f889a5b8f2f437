#include <fmt/format.h>
#include <gmock/gmock.h>

#include "runtime/notifier.hpp"
#include "support/faulty_server.hpp"
#include "support/real_time.hpp"
#include "support/redis_cli.hpp"

// What a server is asked to promise, what it is looked after for, and what servers of other ages cannot do.
namespace maestro::messaging::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

MessageBroker broker(boost::asio::io_context& context, const std::string& url, ConfigMap connection, ConfigMap consumer = {},
                     ConfigMap producer = {}) {
  auto config = MessagingConfig::from_url(url);
  config.connection_config = std::move(connection);
  config.consumer_config = std::move(consumer);
  config.producer_config = std::move(producer);
  config.enable_monitoring = true;
  return {context.get_executor(), std::move(config)};
}

MessageBroker waiting(boost::asio::io_context& context, const std::string& url, ConfigMap producer) {
  return broker(context, url, {}, {}, std::move(producer));
}

TEST(RedisPromises, APublishWaitsForReplicas) {
  FaultyServer both("redis", "replicated");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = waiting(context, both.url(), {{"wait_replicas", 1}, {"publish_timeout", 2000}});
    const auto receipt = co_await client.publish("orders", Value(1));
    EXPECT_GT(receipt.offset, 0);
    EXPECT_EQ(redis_cli(both.environment("REDIS_REPLICA"), "XLEN orders"), "1\n") << "there when the publish completes";
    EXPECT_THAT((co_await client.get_status()).acknowledged_means, HasSubstr("1 replica has it before a publish completes"));
    // Many at once share the waiting.
    std::size_t done = 0;
    const auto publish = [&]() -> awaitable<void> {
      co_await client.publish("orders", Value(2));
      ++done;
    };
    for (int i = 0; i < 500; ++i) boost::asio::co_spawn(context, publish(), boost::asio::detached);
    const auto began = Clock::real()->now();
    while (done < 500 && Clock::real()->now() - began < 10s) co_await sleep_for(*Clock::real(), 5ms);
    EXPECT_EQ(done, 500U);
    EXPECT_EQ(redis_cli(both.environment("REDIS_REPLICA"), "XLEN orders"), "501\n");

    auto two = waiting(context, both.url(), {{"wait_replicas", 2}, {"publish_timeout", 500}});
    const auto to_two = [&]() -> awaitable<void> { co_await two.publish("orders", Value(3)); };
    const auto failure = co_await failure_of(to_two());
    EXPECT_EQ(failure.reason(), errc::outcome_unknown);
    EXPECT_THAT(failure.what(), HasSubstr("the server has it, but only 1 of 2 replicas had it in time"));

    co_await both.freeze(2);
    const auto to_none = [&]() -> awaitable<void> { co_await client.publish("orders", Value(4)); };
    EXPECT_THAT((co_await failure_of(to_none())).what(), HasSubstr("only 0 of 1 replicas"));
    co_await both.thaw(2);
    EXPECT_GT((co_await client.publish("orders", Value(5))).offset, 0);
    co_await client.disconnect();
    co_await two.disconnect();
  });
}

TEST(RedisPromises, AServerThatCannotWaitForItsFileIsRefused) {
  const auto shared = server("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = waiting(context, shared.url, {{"wait_fsync", true}});
    const auto failure = co_await failure_of(client.connect());
    EXPECT_EQ(failure.reason(), errc::unsupported);
    EXPECT_THAT(failure.what(), HasSubstr("it needs Redis 7.2 with appendonly yes"));
  });
}

TEST(RedisPromises, APublishWaitsForTheFileWhereTheServerCan) {
  const auto valkey = server("redis --variant valkey");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = waiting(context, valkey.url, {{"wait_fsync", true}, {"publish_timeout", 1500}});
    EXPECT_GT((co_await client.publish("orders", Value(1))).offset, 0);
    redis_cli(valkey.url, "CONFIG SET appendfsync no");
    const auto unsynced = [&]() -> awaitable<void> { co_await client.publish("orders", Value(2)); };
    EXPECT_THAT((co_await failure_of(unsynced())).what(), HasSubstr("its append-only file was not synced in time"));
    redis_cli(valkey.url, "CONFIG SET appendfsync everysec");
    EXPECT_THAT((co_await client.get_status()).acknowledged_means, HasSubstr("waits until the file is synced"));
    auto replicated = waiting(context, valkey.url, {{"wait_fsync", true}, {"wait_replicas", 1}, {"publish_timeout", 1500}});
    const auto alone = [&]() -> awaitable<void> { co_await replicated.publish("orders", Value(2)); };
    EXPECT_THAT((co_await failure_of(alone())).what(), HasSubstr("only 0 of 1 replicas"));
    co_await client.disconnect();
    co_await replicated.disconnect();
  });
}

TEST(RedisPromises, WhatAnOlderServerCannotDoIsDoneAnotherWay) {
  const auto old = server("redis --variant old");  // no XAUTOCLAIM
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context, old.url, {}, {{"claim_idle", 300}, {"trim_after", 1}});
    for (int i = 0; i < 250; ++i) co_await client.publish("claimed", Value(i));
    {
      auto dies = co_await client.subscribe("claimed", {.group_id = "g", .enable_auto_commit = false});
      for (int i = 0; i < 250; ++i) co_await dies.next();
    }  // without close(): as if it had died
    auto reader = co_await client.subscribe("claimed", {.group_id = "g"});
    std::vector<Value> seen;
    while (seen.size() < 250) {
      const auto message = co_await reader.next();
      EXPECT_GE(message->delivery_count(), 2U);
      seen.push_back(message->value());
    }
    std::ranges::sort(seen, {}, [](const Value& value) { return value.as_int64(); });
    for (int i = 0; i < 250; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
    co_await client.disconnect();
  });
}

TEST(RedisPromises, WhatEveryGroupHasAcknowledgedIsTrimmedAndNothingElse) {
  const auto shared = server("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = fmt::format("trimmed.{:08x}", std::random_device{}());
    auto client = broker(context, shared.url, {}, {{"trim_after", 100}});
    auto quick = co_await client.subscribe(topic, {.group_id = "quick"});
    auto slow = co_await client.subscribe(topic, {.group_id = "slow", .enable_auto_commit = false});
    // Redis trims whole nodes of a stream, of a hundred entries.
    constexpr int messages = 1000;
    for (int i = 0; i < messages; ++i) co_await client.publish(topic, Value(i), {.confirm = false});
    co_await client.flush();
    for (int i = 0; i < messages; ++i) co_await quick.next();
    co_await quick.commit();
    const auto length = [&] { return std::stoi(redis_cli(shared.url, "XLEN " + topic)); };
    co_await sleep_for(*Clock::real(), 2500ms);
    EXPECT_EQ(length(), messages) << "the slow group has read nothing";
    std::vector<Message> held;
    for (int i = 0; i < messages; ++i) held.push_back(*co_await slow.next());
    slow.acknowledge({held.data(), 500});
    const auto deadline = Clock::real()->now() + 10s;
    while (length() == messages && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 50ms);
    EXPECT_LE(length(), 600) << "what both have acknowledged goes";
    EXPECT_GE(length(), 500) << "what one holds stays";
    slow.acknowledge({held.data() + 500, 500});
    while (length() > 100 && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 50ms);
    EXPECT_LE(length(), 100);
    co_await client.disconnect();
  });
}

TEST(RedisPromises, NamesOfMembersThatAreGoneAreForgotten) {
  const auto shared = server("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = fmt::format("forgotten.{:08x}", std::random_device{}());
    auto client = broker(context, shared.url, {}, {{"claim_idle", 100}, {"trim_after", 1000}});
    redis_cli(shared.url, fmt::format("XGROUP CREATE {} g 0 MKSTREAM", topic));
    redis_cli(shared.url, fmt::format("XGROUP CREATECONSUMER {} g gone", topic));
    redis_cli(shared.url, fmt::format("XADD {} '*' payload held", topic));
    redis_cli(shared.url, fmt::format("XREADGROUP GROUP g holds COUNT 1 STREAMS {} '>'", topic));
    auto reader = co_await client.subscribe(topic, {.group_id = "g", .enable_auto_commit = false});
    EXPECT_EQ((co_await reader.next())->body(), "held") << "taken over from the member that held it";
    const auto members = [&] { return redis_cli(shared.url, fmt::format("XINFO CONSUMERS {} g", topic)); };
    const auto deadline = Clock::real()->now() + 15s;
    while (members().find("gone") != std::string::npos && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 50ms);
    EXPECT_THAT(members(), ::testing::Not(HasSubstr("gone")));
    EXPECT_THAT(members(), HasSubstr("maestro")) << "a member that lives is never idle";
    co_await client.disconnect();
  });
}

TEST(RedisPromises, AServerThatLoadsIsWaitedFor) {
  FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context, own.url(), {});
    co_await client.publish("orders", Value(1));
    redis_cli(own.url(), "DEBUG POPULATE 3000 key 100");
    redis_cli(own.url(), "CONFIG SET key-load-delay 1000 loading-process-events-interval-bytes 1024");
    redis_cli(own.url(), "CONFIG REWRITE");
    redis_cli(own.url(), "BGREWRITEAOF");
    while (redis_cli(own.url(), "INFO persistence").find("aof_rewrite_in_progress:0") == std::string::npos)
      co_await sleep_for(*Clock::real(), 20ms);
    co_await own.kill();
    co_await own.revive();
    const auto began = Clock::real()->now();
    const auto loads = [&] {
      try {
        return redis_cli(own.url(), "XLEN orders").find("LOADING") != std::string::npos;
      } catch (const std::runtime_error&) {  // it does not listen yet
        return false;
      }
    };
    while (!loads() && Clock::real()->now() - began < 5s) co_await sleep_for(*Clock::real(), 5ms);
    EXPECT_TRUE(loads());
    co_await client.publish("orders", Value(2));
    EXPECT_GT(Clock::real()->now() - began, 1s);
    auto reader = co_await client.subscribe("orders");
    EXPECT_EQ((co_await reader.next())->value(), 1);
    EXPECT_EQ((co_await reader.next())->value(), 2);
    co_await client.disconnect();
  });
}

TEST(RedisPromises, ThePoolIsBoundedReapedAndShown) {
  const auto shared = server("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto name = fmt::format("pool{:08x}", std::random_device{}());
    const auto connections = [&] {
      const auto all = redis_cli(shared.url, "CLIENT LIST");
      std::size_t count = 0;
      for (auto at = all.find("name=" + name); at != std::string::npos; at = all.find("name=" + name, at + 1)) ++count;
      return count;
    };
    const auto gauge = [](const char* family) { return metrics_registry()->gauge(family, {{"broker", "redis"}}).value(); };
    auto client = broker(context, shared.url, {{"pool_size", 3}, {"pool_idle_timeout", 500}, {"client_id", name}});
    co_await client.connect();
    EXPECT_EQ(connections(), 1U) << "none before it is needed";
    for (int i = 0; i < 50; ++i) {
      const auto topic = fmt::format("{}.t{}", name, i);
      co_await client.publish(topic, Value(i));
      EXPECT_EQ((co_await client.administration().describe_topic(topic)).messages, 1);
    }
    EXPECT_EQ(connections(), 3U);
    EXPECT_EQ(gauge("messaging_pool_connections"), 3);
    EXPECT_EQ(gauge("messaging_pool_size"), 3);
    const MetricLabels idle{{"broker", "redis"}, {"reason", "idle"}};
    const auto before = metrics_registry()->counter("messaging_pool_closed_total", idle).value();
    const auto deadline = Clock::real()->now() + 5s;
    while (connections() > 1 && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 50ms);
    EXPECT_EQ(connections(), 1U) << "idle ones are closed, but for the one that publishes";
    EXPECT_EQ(gauge("messaging_pool_connections"), 1);
    EXPECT_EQ(metrics_registry()->counter("messaging_pool_closed_total", idle).value(), before + 2);
    EXPECT_EQ((co_await client.administration().describe_topic(name + ".t0")).messages, 1) << "and opened again";
    co_await client.disconnect();
  });
}

}  // namespace
}  // namespace maestro::messaging::testing

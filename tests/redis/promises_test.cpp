#include <fmt/format.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <map>
#include <set>

#include "runtime/notifier.hpp"
#include "support/faulty_server.hpp"
#include "support/real_time.hpp"
#include "support/redis_cli.hpp"

// What a server is asked to promise, what it is looked after for, and what servers of other ages cannot do.
namespace maestro::messaging::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
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

TEST(RedisPromises, AFailoverBehindOneAddressIsFollowed) {
  const FaultyServer both("redis", "replicated");
  const auto replica = both.environment("REDIS_REPLICA");
  // The address that leads to whoever is master.
  const auto address =
      std::filesystem::temp_directory_path() / fmt::format("maestro-{:08x}.sock", std::random_device{}());
  std::filesystem::create_symlink(both.environment("REDIS_SOCKET"), address);
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context, "unix://" + address.string(), {});
    std::multiset<std::int64_t> handled;
    EventConsumer consumer(client, {.group_id = "g"});
    consumer.subscribe("orders", [&](const Event& event) -> awaitable<void> {
      handled.insert(event.data().as_int64());
      co_return;
    });
    boost::asio::co_spawn(context, consumer.start(), boost::asio::detached);
    const auto deadline = Clock::real()->now() + 15s;
    const auto until = [&](std::function<bool()> condition) -> awaitable<void> {
      while (!condition() && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 10ms);
      EXPECT_TRUE(condition());
    };
    co_await client.publish("orders", Value(1));
    co_await until([&] { return handled.size() == 1; });
    const auto pending = [](const std::string& url) { return redis_cli(url, "XPENDING orders g"); };
    co_await until([&] { return pending(both.url()).starts_with("0\n") && pending(replica).starts_with("0\n"); });

    redis_cli(replica, "REPLICAOF NO ONE");
    std::filesystem::remove(address);
    std::filesystem::create_symlink(both.environment("REDIS_REPLICA_SOCKET"), address);
    redis_cli(both.url(), fmt::format("REPLICAOF 127.0.0.1 {}", port_of(replica)));

    for (int i = 2; i <= 10; ++i) co_await client.publish("orders", Value(i));
    EXPECT_EQ(redis_cli(replica, "XLEN orders"), "10\n");
    co_await until([&] { return handled.size() == 10; });
    co_await until([&] { return pending(replica).starts_with("0\n"); });
    consumer.stop();
    co_await client.disconnect();
  });
  std::filesystem::remove(address);
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

TEST(RedisPromises, WhatADestroyedGroupHasNotReadStaysWhileItsMemberIsFull) {
  const FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    constexpr int messages = 1000;
    const auto deadline = Clock::real()->now() + 30s;
    const auto has_group = [&] {
      return redis_cli(own.url(), "XINFO GROUPS orders").find("full") != std::string::npos;
    };
    const auto length = [&] { return std::stoi(redis_cli(own.url(), "XLEN orders")); };
    const auto trims = [&](int more) -> awaitable<void> {
      const auto count = [&] {
        const auto stats = redis_cli(own.url(), "INFO commandstats");
        const auto at = stats.find("cmdstat_xtrim:calls=");
        return at == std::string::npos ? 0 : std::stoi(stats.substr(at + 20));
      };
      const auto before = count();
      while (count() < before + more && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 20ms);
    };
    const auto destroy = [&]() -> awaitable<void> {
      co_await trims(2);  // all groups have been seen
      EXPECT_EQ(redis_cli(own.url(), "XGROUP DESTROY orders full"), "1\n");
      while (!has_group() && length() == messages && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 20ms);
      EXPECT_TRUE(has_group()) << "it is made again, though its member has no room to read";
      co_await trims(2);
      EXPECT_EQ(length(), messages);
    };
    auto client = broker(context, own.url(), {}, {{"trim_after", 100}, {"prefetch", 10}});
    auto full = co_await client.subscribe("orders", {.group_id = "full", .enable_auto_commit = false});
    for (int i = 0; i < messages; ++i) co_await client.publish("orders", Value(i), {.confirm = false});
    co_await client.flush();
    co_await full.next();
    co_await destroy();
    if (HasFailure()) co_return;  // what is gone would be waited for
    // Beside a group that has read everything, and trims.
    auto other = broker(context, own.url(), {}, {{"trim_after", 100}});
    auto healthy = co_await other.subscribe("orders", {.group_id = "healthy"});
    for (int i = 0; i < messages; ++i) co_await healthy.next();
    co_await healthy.commit();
    co_await destroy();
    if (HasFailure()) co_return;  // what is gone would be waited for
    std::set<std::int64_t> seen;
    while (seen.size() < messages && Clock::real()->now() < deadline) {
      const auto message = co_await full.next();
      seen.insert(message->value().as_int64());
      full.acknowledge(*message);
    }
    EXPECT_EQ(seen.size(), static_cast<std::size_t>(messages));
    co_await client.disconnect();
    co_await other.disconnect();
  });
}

TEST(RedisPromises, WhereTheUserMayNotTrimInOneStepNothingIsTrimmed) {
  const FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    redis_cli(own.url(), "ACL SETUSER default -eval");
    std::vector<std::string> said;
    set_log_sink([&](const LogRecord& line) {
      if (line.message.find("does not let this user trim") != std::string::npos) said.push_back(line.message);
    });
    set_log_level(LogLevel::warning);
    auto client = broker(context, own.url(), {}, {{"trim_after", 100}});
    auto reader = co_await client.subscribe("orders", {.group_id = "g"});
    for (int i = 0; i < 500; ++i) co_await client.publish("orders", Value(i), {.confirm = false});
    co_await client.flush();
    for (int i = 0; i < 500; ++i) co_await reader.next();
    co_await reader.commit();
    const auto length = [&] { return std::stoi(redis_cli(own.url(), "XLEN orders")); };
    const auto deadline = Clock::real()->now() + 10s;
    while (said.empty() && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 20ms);
    EXPECT_EQ(said.size(), 1U);
    EXPECT_EQ(length(), 500);
    redis_cli(own.url(), "ACL SETUSER default +eval");
    while (length() > 100 && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 50ms);
    EXPECT_LE(length(), 100) << "once it may, it does";
    set_log_level(LogLevel::off);
    set_log_sink(make_log_sink(LogFormat::text));
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

/// On a server that others use too.
class RedisShared : public ::testing::Test {
 protected:
  /// A name that no other test and no earlier run has.
  [[nodiscard]] std::string unique(const std::string& name) const { return fmt::format("{}.r{:08x}", name, run_); }
  [[nodiscard]] std::string says(const std::string& words) const { return redis_cli(server_.url, words); }
  [[nodiscard]] static awaitable<void> until(std::function<bool()> condition) {
    const auto deadline = Clock::real()->now() + 10s;
    while (!condition() && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 10ms);
    EXPECT_TRUE(condition());
  }
  Server server_ = server("redis");
  unsigned run_ = std::random_device{}();
};

TEST_F(RedisShared, ATransactionThatCannotBeDoneInFullDoesNothing) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto in = unique("in");
    const auto out = unique("out");
    const auto text = unique("text");
    auto client = broker(context, server_.url, {});
    redis_cli(server_.url, fmt::format("SET {} x", text));
    co_await client.publish(in, Value(1));
    auto reader = co_await client.subscribe(in, {.group_id = "g", .enable_auto_commit = false});
    const auto message = *co_await reader.next();
    const auto relay = [&](std::string to) {
      return client.transaction([&, to](Transaction& transaction) -> awaitable<void> {
        transaction.publish(out, Value(2));
        transaction.publish(to, Value(3));
        transaction.acknowledge(reader, message);
        co_return;
      });
    };
    const auto failure = co_await failure_of(relay(text));
    EXPECT_EQ(failure.reason(), errc::broker_error) << "it is of no use to try it again";
    EXPECT_THAT(failure.what(), HasSubstr("holds a string, and no stream"));
    EXPECT_EQ(says("XLEN " + out), "0\n");
    EXPECT_THAT(says(fmt::format("XPENDING {} g", in)), ::testing::StartsWith("1\n"));
    // A delivery that is in other hands by now.
    redis_cli(server_.url, fmt::format("XCLAIM {} g other 0 {} JUSTID", in, message.position().text));
    const auto lost = co_await failure_of(relay(unique("more")));
    EXPECT_EQ(lost.reason(), errc::not_owned);
    EXPECT_THAT(lost.what(), HasSubstr("is no longer this member's"));
    EXPECT_EQ(says("XLEN " + out), "0\n");
    auto alone = waiting(context, server_.url, {{"wait_replicas", 1}, {"publish_timeout", 1000}});
    const auto lonely = co_await failure_of(alone.transaction([&](Transaction& transaction) -> awaitable<void> {
      transaction.publish(out, Value(4));
      co_return;
    }));
    EXPECT_EQ(lonely.reason(), errc::outcome_unknown);
    EXPECT_THAT(lonely.what(), HasSubstr("only 0 of 1 replicas"));
    co_await client.disconnect();
    co_await alone.disconnect();
  });
}

TEST_F(RedisShared, ADeadLetterAndItsAcknowledgementAreOneStep) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("orders");
    const auto transactions = [&] {
      const auto stats = says("INFO commandstats");
      const auto at = stats.find("cmdstat_exec:calls=");
      return at == std::string::npos ? 0 : std::stoi(stats.substr(at + 19));
    };
    auto client = broker(context, server_.url, {});
    const auto before = transactions();
    for (int i = 0; i < 3; ++i) co_await client.publish(topic, Value(i));
    EventConsumer consumer(client, {.group_id = "g", .max_retry_attempts = 0});
    consumer.subscribe(topic, [](const Event&) -> awaitable<void> { throw std::runtime_error("no"); });
    boost::asio::co_spawn(context, consumer.start(), boost::asio::detached);
    co_await until([&] { return consumer.counts().dead_lettered == 3; });
    EXPECT_EQ(says(fmt::format("XLEN {}.g.dlq", topic)), "3\n");
    EXPECT_GE(transactions(), before + 3);
    EXPECT_THAT(says(fmt::format("XPENDING {} g", topic)), ::testing::StartsWith("0\n"));
    consumer.stop();
    co_await client.disconnect();
  });
}

TEST(RedisPromises, ACommitSaysThatTheServerRefusedIt) {
  const FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context, own.url(), {}, {{"claim_idle", 300}});
    co_await client.publish("orders", Value(1));
    auto reader = co_await client.subscribe("orders", {.group_id = "g", .enable_auto_commit = false});
    co_await reader.next();
    redis_cli(own.url(), "ACL SETUSER default -xack");
    const auto failure = co_await failure_of(reader.commit());
    EXPECT_EQ(failure.reason(), errc::authentication_failed);
    EXPECT_THAT(failure.what(), HasSubstr("'xack'"));
    redis_cli(own.url(), "ACL SETUSER default +xack");
    EXPECT_EQ((co_await reader.next())->value(), 1) << "it is delivered again";
    co_await reader.commit();
    EXPECT_THAT(redis_cli(own.url(), "XPENDING orders g"), ::testing::StartsWith("0\n"));
    co_await client.disconnect();
  });
}

TEST(RedisPromises, WhatWasRefusedIsHandedOverAtTheEnd) {
  const FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context, own.url(), {});
    co_await client.publish("orders", Value(1));
    auto first = co_await client.subscribe("orders", {.group_id = "g", .enable_auto_commit = false});
    const auto message = *co_await first.next();
    redis_cli(own.url(), "ACL SETUSER default -xack");
    first.acknowledge(message);
    co_await first.close();
    redis_cli(own.url(), "ACL SETUSER default +xack");
    auto second = co_await client.subscribe("orders", {.group_id = "g"});
    const auto began = Clock::real()->now();
    EXPECT_EQ((co_await second.next())->value(), 1);
    EXPECT_LT(Clock::real()->now() - began, 5s) << "long before claim_idle";
    co_await client.disconnect();
  });
}

TEST(RedisPromises, ACommitWaitsForAServerThatCannotTakeItNow) {
  const FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context, own.url(), {});
    co_await client.publish("orders", Value(1));
    auto reader = co_await client.subscribe("orders", {.group_id = "g", .enable_auto_commit = false});
    co_await reader.next();
    redis_cli(own.url(), "CONFIG SET min-replicas-to-write 1");  // XACK: NOREPLICAS
    bool committed = false;
    const auto commit = [](Subscription& of, bool& flag) -> awaitable<void> {
      co_await of.commit();
      flag = true;
    };
    const auto refusals = [&] {
      const auto stats = redis_cli(own.url(), "INFO commandstats");
      const auto at = stats.find("cmdstat_xack:");
      return at == std::string::npos ? 0 : std::stoi(stats.substr(stats.find("rejected_calls=", at) + 15));
    };
    boost::asio::co_spawn(context, commit(reader, committed), boost::asio::detached);
    const auto deadline = Clock::real()->now() + 10s;
    while (refusals() < 2 && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 20ms);
    EXPECT_GE(refusals(), 2) << "it is tried again";
    EXPECT_FALSE(committed);
    redis_cli(own.url(), "CONFIG SET min-replicas-to-write 0");
    while (!committed && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 20ms);
    EXPECT_TRUE(committed);
    EXPECT_THAT(redis_cli(own.url(), "XPENDING orders g"), ::testing::StartsWith("0\n"));
    co_await client.disconnect();
  });
}

TEST_F(RedisShared, WhoMayNotUseMultiHasNoTransactionsAndOneDeadLetterEach) {
  for (const auto* forbidden : {"-multi", "-exec"}) {
    const auto topic = unique(fmt::format("orders{}", forbidden));
    redis_cli(server_.url, fmt::format("ACL SETUSER half on '>half-secret' '~*' '&*' +@all {}", forbidden));
    run_real([&](boost::asio::io_context& context) -> awaitable<void> {
      auto client = broker(context, fmt::format("redis://half:half-secret@127.0.0.1:{}", port_of(server_.url)), {});
      const auto failure = co_await failure_of(client.transaction([&](Transaction& transaction) -> awaitable<void> {
        transaction.publish(topic, Value(0));
        co_return;
      }));
      EXPECT_EQ(failure.reason(), errc::authentication_failed);
      EXPECT_THAT(failure.what(), HasSubstr("the user may not do this (ACL)"));
      EXPECT_EQ(says("XLEN " + topic), "0\n") << "nothing of it took effect";
      for (int i = 0; i < 3; ++i) co_await client.publish(topic, Value(i));
      EventConsumer consumer(client, {.group_id = "g", .max_retry_attempts = 0});
      consumer.subscribe(topic, [](const Event&) -> awaitable<void> { throw std::runtime_error("no"); });
      boost::asio::co_spawn(context, consumer.start(), boost::asio::detached);
      co_await until([&] { return consumer.counts().dead_lettered == 3; });
      EXPECT_EQ(says(fmt::format("XLEN {}.g.dlq", topic)), "3\n");
      consumer.stop();
      co_await client.disconnect();
    });
  }
  redis_cli(server_.url, "ACL DELUSER half");
}

TEST_F(RedisShared, AKeyThatIsNoStreamStandsInNoPatternsWay) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto base = unique("mixed");
    auto client = broker(context, server_.url, {});
    redis_cli(server_.url, fmt::format("SET {}.text x", base));
    const auto refused = [&]() -> awaitable<void> { co_await client.publish(base + ".text", Value(0)); };
    EXPECT_THAT((co_await failure_of(refused())).what(), HasSubstr("holds something else than a stream"));
    EXPECT_EQ(says(fmt::format("SISMEMBER maestro:topics {}.text", base)), "0\n") << "only what took a message is a topic";
    redis_cli(server_.url, fmt::format("SADD maestro:topics {}.text", base));  // as if it had been one
    co_await client.publish(base + ".one", Value(1));
    auto group = co_await client.subscribe(base + ".*", {.group_id = "g"});
    auto alone = co_await client.subscribe(base + ".*");
    for (auto* reader : {&group, &alone}) EXPECT_EQ((co_await reader->next())->value(), 1);
    for (const auto& topic : co_await client.administration().list_topics()) EXPECT_NE(topic, base + ".text");
    // One that turns into something else meanwhile.
    co_await client.publish(base + ".two", Value(2));
    for (auto* reader : {&group, &alone}) EXPECT_EQ((co_await reader->next())->value(), 2);
    redis_cli(server_.url, fmt::format("DEL {}.one", base));
    redis_cli(server_.url, fmt::format("SET {}.one x", base));
    co_await client.publish(base + ".two", Value(3));
    for (auto* reader : {&group, &alone}) EXPECT_EQ((co_await reader->next())->value(), 3);
    // And back.
    redis_cli(server_.url, fmt::format("DEL {}.text", base));
    co_await client.publish(base + ".text", Value(4));
    for (auto* reader : {&group, &alone}) EXPECT_EQ((co_await reader->next())->value(), 4);
    redis_cli(server_.url, fmt::format("DEL {}.one", base));
    co_await client.disconnect();
  });
}

TEST_F(RedisShared, ATopicComesBackIntoTheIndex) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("index");
    auto client = broker(context, server_.url, {});
    co_await client.publish(topic, Value(1));
    EXPECT_EQ(says(fmt::format("SISMEMBER maestro:topics {}", topic)), "1\n");
    redis_cli(server_.url, fmt::format("SREM maestro:topics {}", topic));
    co_await sleep_for(*Clock::real(), 5500ms);
    co_await client.publish(topic, Value(2));
    EXPECT_EQ(says(fmt::format("SISMEMBER maestro:topics {}", topic)), "1\n");
    co_await client.disconnect();
  });
}

TEST_F(RedisShared, AMemberThatIsStartedAgainUnderItsNameHasWhatItHeld) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("named");
    const ConfigMap named{{"consumer_name", "worker-1"}};
    auto client = broker(context, server_.url, {}, named);
    co_await client.publish(topic, Value(1));
    {
      auto dies = co_await client.subscribe(topic, {.group_id = "g", .enable_auto_commit = false});
      co_await dies.next();
    }  // without close(): as if it had died
    auto reader = co_await client.subscribe(topic, {.group_id = "g"});
    const auto began = Clock::real()->now();
    const auto message = co_await reader.next();
    EXPECT_EQ(message->value(), 1);
    EXPECT_TRUE(message->redelivered());
    EXPECT_LT(Clock::real()->now() - began, 2s) << "long before claim_idle";
    EXPECT_THAT(says(fmt::format("XINFO CONSUMERS {} g", topic)), HasSubstr("worker-1"));
    co_await client.disconnect();
  });
}

TEST_F(RedisShared, AnIdIsPublishedOnceWithinTheWindow) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("once");
    auto client = waiting(context, server_.url, {{"idempotence_window", 700}});
    auto other = waiting(context, server_.url, {{"idempotence_window", 700}});
    EventPublisher publisher(client);
    EventPublisher second(other);
    const auto first = co_await publisher.publish(topic, Value(1), {.key = "k", .attributes = {.id = "order-7"}});
    const auto again = co_await second.publish(topic, Value(1), {.key = "k", .attributes = {.id = "order-7"}});
    EXPECT_EQ(again.position, first.position) << "of another process too";
    co_await publisher.publish(unique("another"), Value(1), {.attributes = {.id = "order-7"}});
    co_await client.publish(topic, Value("no id"));
    co_await client.publish(topic, Value("no id"));
    EXPECT_EQ(says("XLEN " + topic), "3\n");
    co_await client.transaction([&](Transaction& transaction) -> awaitable<void> {
      transaction.publish({.topic = topic, .payload = Payload("1"), .headers = {{"message-id", "order-7"}}});
      transaction.publish({.topic = topic, .payload = Payload("2"), .headers = {{"message-id", "order-8"}}});
      co_return;
    });
    EXPECT_EQ(says("XLEN " + topic), "4\n");
    auto reader = co_await client.subscribe(topic);
    const auto message = co_await reader.next();
    EXPECT_EQ(message->value(), 1);
    EXPECT_EQ(message->key(), "k");
    EXPECT_EQ(message->id(), "order-7");
    co_await sleep_for(*Clock::real(), 800ms);
    EXPECT_NE((co_await publisher.publish(topic, Value(1), {.attributes = {.id = "order-7"}})).position, first.position) << "the window is over";
    co_await client.disconnect();
    co_await other.disconnect();
  });
}

TEST_F(RedisShared, AnIdMayBePublishedAgainOnceItsTopicWasDeleted) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("deleted[?]");
    auto client = waiting(context, server_.url, {{"idempotence_window", 60'000}});
    EventPublisher publisher(client);
    for (const auto& to : {topic, topic + ".other"})
      co_await publisher.publish(to, Value(1), {.attributes = {.id = "order-7"}});
    auto another = broker(context, server_.url, {});  // which knows of no window
    co_await another.administration().delete_topic(topic);
    for (const auto& to : {topic, topic + ".other"})
      co_await publisher.publish(to, Value(1), {.attributes = {.id = "order-7"}});
    EXPECT_EQ(says(fmt::format("XLEN '{}'", topic)), "1\n");
    EXPECT_EQ(says(fmt::format("XLEN '{}.other'", topic)), "1\n") << "another topic's ids stay";
    co_await client.disconnect();
    co_await another.disconnect();
  });
}

TEST_F(RedisShared, WhoeverMayNotForgetIdsIsToldThatTheTopicIsDeleted) {
  const auto topic = unique("forgetful");
  redis_cli(server_.url, "ACL SETUSER forgetful on nopass '~*' '&*' +@all -scan");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context, fmt::format("redis://forgetful@127.0.0.1:{}", port_of(server_.url)), {});
    co_await client.publish(topic, Value(1));
    const auto failure = co_await failure_of(client.administration().delete_topic(topic));
    EXPECT_EQ(failure.reason(), errc::authentication_failed);
    EXPECT_THAT(failure.what(), HasSubstr("is deleted, but ids that were published to it may still be remembered"));
    EXPECT_THAT(failure.what(), HasSubstr("scan"));
    EXPECT_EQ(says("EXISTS " + topic), "0\n");
    co_await client.disconnect();
  });
  redis_cli(server_.url, "ACL DELUSER forgetful");
}

TEST_F(RedisShared, AReplayWaitsForWhatAnotherOneLeft) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("orders");
    const auto letters = topic + ".g.dlq";
    const auto leave = [&](MessageBroker client, int count) -> awaitable<void> {
      for (int i = 0; i < count; ++i)
        co_await client.publish(
            make_dead_letter(Message({.topic = topic, .payload = "1"}), letters, "g", {.message = "no"}));
    };
    const auto take = [&](const char* replay, int count) {
      redis_cli(server_.url, fmt::format("XREADGROUP GROUP maestro-replay.{} {} COUNT {} STREAMS {} '>'", letters,
                                         replay, count, letters));
    };
    auto client = broker(context, server_.url, {}, {{"claim_idle", 300}});
    co_await leave(client, 6);
    redis_cli(server_.url, fmt::format("XGROUP CREATE {} maestro-replay.{} 0", letters, letters));
    take("killed", 3);
    std::vector<std::string> said;
    set_log_sink([&](const LogRecord& line) {
      if (line.message.starts_with("another replay of these dead letters"))
        for (const auto& [name, value] : line.fields) said.emplace_back(value);
    });
    set_log_level(LogLevel::warning);
    const auto report = co_await DeadLetters(client, letters).replay();
    set_log_level(LogLevel::off);
    set_log_sink(make_log_sink(LogFormat::text));
    EXPECT_THAT(said, ElementsAre(letters, "3", "60")) << "that it waits, once";
    EXPECT_EQ(report.replayed, 6U) << "the killed one's too";
    EXPECT_EQ(report.held, 0U);

    co_await leave(client, 3);
    take("alive", 2);
    auto patient = broker(context, server_.url, {});  // a claim_idle of half a minute
    const auto partial = co_await DeadLetters(patient, letters).replay({.wait_for_others = 300ms});
    EXPECT_EQ(partial.replayed, 1U);
    EXPECT_EQ(partial.held, 2U);
    co_await client.disconnect();
    co_await patient.disconnect();
  });
}

TEST_F(RedisShared, APrivateReaderSeesAStreamThatWasMadeAgain) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("again");
    auto client = broker(context, server_.url, {});
    auto reader = co_await client.subscribe(topic);
    const auto add = [&](const char* id) {
      redis_cli(server_.url, fmt::format("XADD {} {} payload {}", topic, id, id));
    };
    for (const auto* id : {"100-1", "200-1"}) {
      add(id);
      EXPECT_EQ((co_await reader.next())->body(), id);
    }
    redis_cli(server_.url, "DEL " + topic);
    for (const auto* id : {"5-1", "6-1"}) add(id);
    for (const auto* id : {"5-1", "6-1"}) EXPECT_EQ((co_await reader.next())->body(), id);
    co_await client.disconnect();
  });
}

TEST_F(RedisShared, WhatWasReleasedUntilLaterWaitsThoughItsMemberCloses) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("later");
    auto client = broker(context, server_.url, {}, {{"claim_idle", 10'000}});
    for (int i = 0; i < 2; ++i) co_await client.publish(topic, Value(i));
    auto first = co_await client.subscribe(topic, {.group_id = "g", .enable_auto_commit = false});
    const auto message = *co_await first.next();
    co_await first.next();
    const auto began = Clock::real()->now();
    first.release(message, 3s);
    co_await first.close();
    auto second = co_await client.subscribe(topic, {.group_id = "g", .enable_auto_commit = false});
    EXPECT_EQ((co_await second.next())->value(), 1) << "what was not released at once";
    EXPECT_LT(Clock::real()->now() - began, 3s);
    EXPECT_EQ((co_await second.next())->value(), 0);
    EXPECT_GE(Clock::real()->now() - began, 2990ms);
    EXPECT_LT(Clock::real()->now() - began, 8s) << "long before claim_idle";
    co_await client.disconnect();
  });
}

TEST_F(RedisShared, ASecondMemberOfOneNameIsWarnedOf) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("namesake");
    auto client = broker(context, server_.url, {}, {{"consumer_name", "worker"}});
    std::vector<std::string> said;
    set_log_sink([&](const LogRecord& line) {
      if (line.message.starts_with("a member of this name was active")) said.push_back(line.message);
    });
    set_log_level(LogLevel::warning);
    co_await client.publish(topic, Value(1));
    auto first = co_await client.subscribe(topic, {.group_id = "g", .enable_auto_commit = false});
    EXPECT_EQ((co_await first.next())->value(), 1);
    EXPECT_EQ(said.size(), 0U);
    auto second = co_await client.subscribe(topic, {.group_id = "g"});
    EXPECT_EQ(said.size(), 1U);
    EXPECT_EQ((co_await second.next())->value(), 1) << "it may be the same, started again";
    set_log_level(LogLevel::off);
    set_log_sink(make_log_sink(LogFormat::text));
    co_await client.disconnect();
  });
}

TEST_F(RedisShared, APatternHoldsNoMoreThanPrefetchAndStarvesNoTopic) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto base = unique("many");
    constexpr int topics = 30;
    constexpr int each = 10;
    auto client = broker(context, server_.url, {}, {{"prefetch", 10}});
    for (int i = 0; i < each; ++i)
      for (int topic = 0; topic < topics; ++topic)
        co_await client.publish(fmt::format("{}.t{}", base, topic), Value(i), {.confirm = false});
    co_await client.flush();
    const auto pending = [&] {
      return std::stoi(
          says(fmt::format("EVAL \"local n = 0 for i = 0, {} do "
                           "n = n + redis.call('XPENDING', KEYS[1] .. '.t' .. i, 'g')[1] end return n\" 1 {}",
                           topics - 1, base)));
    };
    auto group = co_await client.subscribe(base + ".*", {.group_id = "g", .enable_auto_commit = false});
    auto alone = co_await client.subscribe(base + ".*");
    for (auto* reader : {&group, &alone}) {
      std::map<std::string, int> seen;
      for (int i = 0; i < topics * each; ++i) {
        const auto message = co_await reader->next();
        EXPECT_EQ(message->value(), seen[std::string(message->topic())]++) << message->topic();
        if (i % 20 == 0) EXPECT_LE(pending(), 10);
        if (i == topics * each / 2) EXPECT_EQ(seen.size(), static_cast<std::size_t>(topics)) << "each has its turn";
        if (reader == &group) group.acknowledge(*message);
      }
      // What comes into an idle one is seen.
      co_await client.publish(base + ".t17", Value("late"));
      EXPECT_EQ((co_await reader->next())->value(), "late");
      if (reader == &group) co_await group.close();
    }
    co_await client.disconnect();
  });
}

TEST_F(RedisShared, APatternDoesNotBringADeletedTopicBack) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto base = unique("deleted");
    auto client = broker(context, server_.url, {});
    co_await client.publish(base + ".one", Value(1));
    co_await client.publish(base + ".two", Value(2));
    auto group = co_await client.subscribe(base + ".*", {.group_id = "g"});
    auto alone = co_await client.subscribe(base + ".*");
    for (auto* reader : {&group, &alone})
      for (int i = 0; i < 2; ++i) co_await reader->next();
    auto another = broker(context, server_.url, {});
    co_await another.administration().delete_topic(base + ".one");
    // Both have looked for topics since: each sees one that is new.
    co_await client.publish(base + ".three", Value(3));
    for (auto* reader : {&group, &alone}) EXPECT_EQ((co_await reader->next())->value(), 3);
    EXPECT_EQ(says(fmt::format("EXISTS {}.one", base)), "0\n");
    EXPECT_EQ(says(fmt::format("SISMEMBER maestro:topics {}.one", base)), "0\n");
    co_await client.publish(base + ".one", Value(4));
    for (auto* reader : {&group, &alone})
      EXPECT_EQ((co_await reader->next())->value(), 4) << "what comes later is seen";
    co_await client.disconnect();
    co_await another.disconnect();
  });
}

TEST_F(RedisShared, AUserWithoutAPasswordIsThatUser) {
  redis_cli(server_.url, "ACL SETUSER eve on nopass '~eve*' '~maestro*' '&*' +@all");
  const auto as = [&](const char* user) { return fmt::format("redis://{}@127.0.0.1:{}", user, port_of(server_.url)); };
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto eve = broker(context, as("eve"), {});
    co_await eve.publish(unique("eve"), Value(1));
    const auto forbidden = [&]() -> awaitable<void> { co_await eve.publish(unique("bob"), Value(1)); };
    EXPECT_EQ((co_await failure_of(forbidden())).reason(), errc::authentication_failed) << "it is not the default user";
    auto nobody = broker(context, as("nobody"), {});
    EXPECT_EQ((co_await failure_of(nobody.connect())).reason(), errc::authentication_failed);
    co_await eve.disconnect();
  });
  redis_cli(server_.url, "ACL DELUSER eve");
}

TEST_F(RedisShared, ThatTooFewReplicasAreThereIsSaid) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = waiting(context, server_.url, {{"wait_replicas", 1}});
    std::size_t said = 0;
    set_log_sink([&](const LogRecord& line) { said += line.message.starts_with("fewer replicas are connected"); });
    set_log_level(LogLevel::warning);
    co_await client.connect();
    const auto means = (co_await client.get_status()).acknowledged_means;
    set_log_level(LogLevel::off);
    set_log_sink(make_log_sink(LogFormat::text));
    EXPECT_EQ(said, 1U);
    EXPECT_THAT(means, HasSubstr("but only 0 of them connected"));
    co_await client.disconnect();
  });
}

TEST_F(RedisShared, WhatTheModeCannotHoldIsRefused) {
  boost::asio::io_context context;
  const auto refused = [&](ConfigMap connection, ConfigMap producer) {
    try {
      broker(context, server_.url, std::move(connection), {}, std::move(producer));
    } catch (const MessagingError& failure) {
      EXPECT_EQ(failure.reason(), errc::invalid_option);
      return std::string(failure.what());
    }
    return std::string("nothing was thrown");
  };
  EXPECT_THAT(refused({{"mode", "pubsub"}}, {{"wait_replicas", 1}}), HasSubstr("wait_replicas: a channel (mode=pubsub) keeps nothing"));
  EXPECT_THAT(refused({}, {{"pubsub_envelope", true}}), HasSubstr("pubsub_envelope: is for mode=pubsub"));
}

TEST_F(RedisShared, ARefusedServerIsLetGo) {
  const auto name = unique("refused");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context, server_.url, {{"client_id", name}}, {}, {{"wait_fsync", true}});
    EXPECT_EQ((co_await failure_of(client.connect())).reason(), errc::unsupported);
    co_await until([&] { return says("CLIENT LIST").find(name) == std::string::npos; });
  });
}

TEST(RedisPromises, AGroupThatIsThereIsJoinedWithoutMemory) {
  const FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context, own.url(), {});
    for (int i = 0; i < 2; ++i) co_await client.publish("orders", Value(i));
    {
      auto first = co_await client.subscribe("orders", {.group_id = "g"});
      EXPECT_EQ((co_await first.next())->value(), 0);
      co_await first.commit();
      co_await first.close();
    }
    redis_cli(own.url(), "CONFIG SET maxmemory 1");
    auto second = co_await client.subscribe("orders", {.group_id = "g"});
    EXPECT_EQ((co_await second.next())->value(), 1);
    co_await second.commit();
    const auto strange = [&]() -> awaitable<void> { co_await client.subscribe("orders", {.group_id = "new"}); };
    EXPECT_THAT((co_await failure_of(strange())).what(), HasSubstr("maxmemory"));
    co_await client.disconnect();
  });
}

}  // namespace
}  // namespace maestro::messaging::testing

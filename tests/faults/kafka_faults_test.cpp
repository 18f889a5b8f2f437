#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <random>
#include <utility>
#include <vector>

#include "faults/child.hpp"
#include "faults/disturbances.hpp"
#include "faults/health.hpp"
#include "faults/small_disk.hpp"
#include "runtime/notifier.hpp"
#include "support/faulty_server.hpp"
#include "support/real_time.hpp"

namespace maestro::messaging::testing {
namespace {

using namespace std::chrono_literals;

TEST(KafkaFaults, NoFault) {
  const FaultyServer server("kafka");
  Load load(server.url(), {});
  expect_kept("Kafka", "none", load.run([](Load&) -> awaitable<void> { co_return; }));
}

TEST(KafkaFaults, BrokerKilledAndRestartedUnderLoad) {
  FaultyServer server("kafka");
  Load load(server.url(), {});
  expect_kept("Kafka", "broker killed (SIGKILL) and started again, three times",
              load.run([&](Load& run) { return kill_and_revive(run, server); }));
}

TEST(KafkaFaults, BrokerFrozenForTwentySeconds) {
  FaultyServer server("kafka");
  Load load(server.url(), {});
  expect_kept("Kafka", "broker frozen (SIGSTOP) for 20 s", load.run([&](Load& run) { return freeze(run, server); }));
}

TEST(KafkaFaults, ConnectionsCut) {
  const FaultyServer server("kafka");
  TcpGate gate(server.port("KAFKA_GATE"), server.port("KAFKA_BEHIND_GATE"));
  Load load("kafka://127.0.0.1:" + server.environment("KAFKA_GATE"), {});
  expect_kept("Kafka", "every connection cut, twenty times", load.run([&](Load& run) { return cut(run, gate); }));
}

TEST(KafkaFaults, ConnectionsSlowedSlicedAndSwallowed) {
  const FaultyServer server("kafka");
  TcpGate gate(server.port("KAFKA_GATE"), server.port("KAFKA_BEHIND_GATE"));
  Load load("kafka://127.0.0.1:" + server.environment("KAFKA_GATE"), {});
  expect_kept("Kafka", "connections slowed by 200 ms, sliced into a few bytes, swallowed for 8 s, refused for 3 s",
              load.run([&](Load& run) { return mistreat(run, gate); }));
}

TEST(KafkaFaults, TheMetricsSayWhenTheBrokerIsAwayAndWhenItIsBack) {
  FaultyServer server("kafka");
  expect_health_to_follow("kafka", server);
}

TEST(KafkaFaults, MembersKilled) {
  const FaultyServer server("kafka");
  Load load(server.url(), {.members = 1}, {{"session_timeout", 6000}});
  expect_kept("Kafka", "a member in a process of its own killed (SIGKILL), three times",
              load.run([&](Load& run) { return kill_members(run, server.url(), "session_timeout=6000"); }));
}

TEST(KafkaFaults, MembersComeAndGo) {
  const FaultyServer server("kafka");
  Load load(server.url(), {});
  expect_kept("Kafka", "members added and removed, six times each", load.run([&](Load& run) { return come_and_go(run); }));
}

TEST(KafkaFaults, TopicDeletedUnderLoad) {
  const FaultyServer server("kafka");
  Load load(server.url(), {});
  const auto counts = load.run([&](Load& load) -> awaitable<void> {
    co_await load.sleep(1s);
    auto client = load.broker();
    co_await client.connect();
    load.topic_was_deleted();
    co_await client.administration().delete_topic(load.topic());
    const auto before = load.handled();
    co_await load.until([&] { return load.handled() > before + 2000; });
    co_await client.administration().delete_topic(load.topic());
    const auto then = load.handled();
    co_await load.until([&] { return load.handled() > then + 10'000; });  // only what is kept now counts
    co_await client.disconnect();
  });
  expect_kept("Kafka", "the topic deleted (what it held aside)", counts);
}

TEST(KafkaFaults, ThreeBrokersRestartedOneAfterAnother) {
  FaultyServer server("kafka", "cluster");
  Load load(server.url(), {});
  expect_kept("Kafka",
              "three brokers, replication 3, min.insync.replicas 2: killed and started again one after another",
              load.run([&](Load& load) -> awaitable<void> {
                for (int node = 1; node <= 3; ++node) {
                  co_await server.kill(node);
                  co_await load.sleep(3s);
                  co_await server.revive(node);
                  co_await load.sleep(10s);
                }
              }));
}

// Kafka ends itself when it cannot write.
TEST(KafkaFaults, DiskFull) {
  SmallDisk disk(96);
  if (!disk.mounted()) GTEST_SKIP() << "a small disk takes the right to mount one";
  FaultyServer server("kafka");
  Load load(server.url(), {});
  const auto fault = [&](Load& run) -> awaitable<void> {
    co_await run.sleep(1s);
    disk.fill();
    auto handled = run.handled();
    for (int quiet = 0; quiet < 3; ++quiet) {
      co_await run.sleep(1s);
      if (std::exchange(handled, run.handled()) != run.handled()) quiet = 0;
    }
    disk.empty();
    for (bool revived = false; !revived;) {
      try {
        co_await server.revive();
        revived = true;
      } catch (const std::runtime_error&) {  // it has not ended yet
      }
      if (!revived) co_await run.sleep(200ms);
    }
    co_await run.until([&] { return run.handled() > handled + 2000; });
  };
  expect_kept("Kafka", "disk full, so that the broker ended; started again with room", load.run(fault));
}

TEST(KafkaFaults, ATransactionalRelayKilledAgainAndAgainCopiesExactlyOnce) {
  const FaultyServer server("kafka");
  constexpr std::size_t total = 10'000;
  std::map<std::string, int> copies;
  std::size_t kills = 0;
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(server.url()));
    std::vector<OutgoingMessage> all(total);
    for (std::size_t i = 0; i < total; ++i) {
      all[i].topic = "relay.from";
      all[i].key = std::to_string(i % 100);
      all[i].payload = Payload(std::to_string(i));
    }
    for (const auto& result : co_await client.publish_many(std::move(all))) EXPECT_FALSE(result.error) << result.detail;
    co_await client.administration().create_topic("relay.to", {.partitions = 6});
    const auto start = [&] {
      return std::make_unique<Child>(
          context,
          std::vector<std::string>{"relay", server.url(), "relay.from", "relay.to", "relay",
                                   "consumer:session_timeout=6000", "producer:transactional_id=relay"},
          [](const std::string&) {});
    };
    auto child = start();
    std::size_t at_last_kill = 0;
    auto reader = co_await client.subscribe("relay.to");
    boost::asio::co_spawn(
        context,
        [&]() -> awaitable<void> {
          while (const auto message = co_await reader.next()) ++copies[std::string(message->payload().view())];
        },
        boost::asio::detached);
    const auto deadline = clock->now() + 240s;
    while (copies.size() < total && clock->now() < deadline) {
      co_await sleep_for(*clock, 10ms);
      if (copies.size() < at_last_kill + 1500 || copies.size() >= total) continue;
      at_last_kill = copies.size();
      child->kill();
      ++kills;
      child = start();
    }
    co_await sleep_for(*clock, 3s);  // what should not be there may come late
    child->kill();
    co_await reader.close();
    co_await client.disconnect();
  });
  std::size_t repeated = 0;
  for (const auto& [payload, times] : copies) repeated += times > 1;
  std::cout << fmt::format("{} messages, {} kills, {} missing, {} copied more than once\n", total, kills,
                           total - copies.size(), repeated);
  EXPECT_EQ(copies.size(), total);
  EXPECT_EQ(repeated, 0U);
  EXPECT_GE(kills, 5U);
}

// What a dead or frozen broker does to a client must not be taken for what a successor does.
TEST(KafkaFaults, TransactionsGoOnAfterTheirBrokerWasAway) {
  FaultyServer server("kafka");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    auto config = MessagingConfig::from_url(server.url());
    config.producer_config = {{"transactional_id", "alone"}, {"publish_timeout", 2000}};
    MessageBroker broker(context.get_executor(), config);
    int number = 0;
    const auto next = [&]() -> awaitable<std::optional<errc>> {
      try {
        co_await broker.transaction([&](Transaction& transaction) -> awaitable<void> {
          transaction.publish("orders", Value(++number), "k");
          co_return;
        });
      } catch (const MessagingError& failure) {
        EXPECT_NE(failure.reason(), errc::closed) << failure.what();
        co_return failure.reason();
      }
      co_return std::nullopt;
    };
    EXPECT_FALSE(co_await next());
    for (const bool frozen : {true, false}) {
      co_await (frozen ? server.freeze() : server.kill());
      for (int failures = 0; failures < 3;) failures += (co_await next()).has_value();
      co_await (frozen ? server.thaw() : server.revive());
      const auto deadline = clock->now() + 60s;
      while (co_await next() && clock->now() < deadline) co_await sleep_for(*clock, 100ms);
      for (int i = 0; i < 3; ++i) EXPECT_FALSE(co_await next());
    }
    co_await broker.disconnect();
  });
}

// What it had fetched was handled by another member meanwhile.
TEST(KafkaFaults, AMemberThatWasFrozenHandsOutNothingOldOnceItKnows) {
  const FaultyServer server("kafka");
  constexpr int total = 2000;
  const std::string session_timeout = "consumer:session_timeout=6000";
  std::vector<std::string> printed;
  bool is_lost = false;
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(server.url()));
    co_await client.administration().create_topic("numbers", {.partitions = 1});
    for (int i = 0; i < total; ++i) co_await client.publish("numbers", Value(i), {.confirm = false});
    EXPECT_TRUE((co_await client.flush()).failures.empty());
    Child frozen(context, {"reader", server.url(), "numbers", "g", session_timeout}, [&](const std::string& line) {
      if (line != "lost") printed.push_back(line);
      if (line == "lost" && !std::exchange(is_lost, true)) printed.clear();
    });
    while (printed.size() < 100) co_await sleep_for(*clock, 5ms);
    ::kill(frozen.id(), SIGSTOP);
    auto other = co_await client.subscribe("numbers", {.group_id = "g"});
    for (std::int64_t number = 0; number < total - 1;) number = (co_await other.next())->value().as_int64();
    co_await other.commit();
    ::kill(frozen.id(), SIGCONT);
    while (!is_lost) co_await sleep_for(*clock, 5ms);
    co_await other.close();
    co_await client.publish("numbers", Value(total));
    while (printed.empty()) co_await sleep_for(*clock, 5ms);
    EXPECT_EQ(printed, std::vector<std::string>{std::to_string(total)});
    co_await client.disconnect();
  });
}

// A request that was sent may be done when the broker goes on; one that could not be is not.
TEST(KafkaFaults, WhatBecameOfAChangeThatIsNotAnsweredIsNotKnown) {
  FaultyServer server("kafka");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(server.url()));
    auto& administration = client.administration();
    co_await administration.create_topic("old", {});
    co_await server.freeze();
    EXPECT_EQ((co_await failure_of(administration.create_topic("new", {}))).code(), errc::outcome_unknown);
    co_await server.kill();
    co_await sleep_for(*Clock::real(), 2s);  // the client notices
    EXPECT_NE((co_await failure_of(administration.delete_topic("old"))).code(), errc::outcome_unknown);
    co_await client.disconnect();
  });
}

std::size_t peak_mib(const Child& child) {
  std::ifstream status(fmt::format("/proc/{}/status", child.id()));
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6)) / 1024;
  return 0;
}

struct Peaks {
  std::size_t stuck = 0;
  std::size_t blocked = 0;
};

// Of two consumers that have all that waits to themselves: one whose handlers never return, and one whose handler blocks its
// thread, so that nothing of ours can pause the fetching.
Peaks peaks_while(const std::string& what, int total, const char* compression, const std::function<Payload(int)>& payload) {
  const FaultyServer server("kafka");
  std::size_t stuck = 0;
  std::size_t blocked = 0;
  Peaks peaks;
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    auto config = MessagingConfig::from_url(server.url());
    config.producer_config.insert_or_assign("compression_type", compression);
    MessageBroker client(context.get_executor(), std::move(config));
    co_await client.administration().create_topic("waiting", {.partitions = 6});
    for (int i = 0; i < total; ++i)
      co_await client.publish("waiting", payload(i), {.key = std::to_string(i % 100), .confirm = false});
    EXPECT_TRUE((co_await client.flush()).failures.empty());
    Child all(context, {"stuck", server.url(), "waiting", "stuck"}, [&](const std::string&) { ++stuck; });
    Child one(context, {"blocked", server.url(), "waiting", "blocked"}, [&](const std::string&) { ++blocked; });
    const auto deadline = clock->now() + 60s;
    while ((stuck < 8 || blocked < 1) && clock->now() < deadline) co_await sleep_for(*clock, 10ms);
    // Until neither has grown for some seconds.
    for (int quiet = 0; quiet < 5 && clock->now() < deadline; ++quiet) {
      co_await sleep_for(*clock, 1s);
      const auto before = std::exchange(peaks.stuck, peak_mib(all)) + std::exchange(peaks.blocked, peak_mib(one));
      if (peaks.stuck + peaks.blocked != before) quiet = 0;
    }
    EXPECT_TRUE(all.running());
    EXPECT_TRUE(one.running());
    co_await client.disconnect();
  });
  std::cout << fmt::format("{} MiB wait, {}; all handlers stuck: {} MiB at most; the thread blocked: {} MiB\n", total / 1024, what,
                           peaks.stuck, peaks.blocked);
  EXPECT_EQ(stuck, 8U);
  EXPECT_EQ(blocked, 1U);
  EXPECT_GT(peaks.stuck, 0U);
  EXPECT_GT(peaks.blocked, 0U);
  return peaks;
}

// However much is waiting, what is held of it is bounded: 64 MiB of fetched messages, and what librdkafka needs beside
// them.
TEST(KafkaFaults, AHandlerThatNeverReturnsHoldsABoundedPartOfTheTopic) {
  const Payload payload(fmt::format(R"({{"text":"{:x>1010}"}})", ""));
  const auto peaks = peaks_while("not compressed", 600'000, "none", [&](int) { return payload; });
  EXPECT_LT(peaks.stuck, 128U);
  EXPECT_LT(peaks.blocked, 128U);
}

// A fetch is unpacked whole.
TEST(KafkaFaults, ACompressedTopicIsHeldInABoundedPartToo) {
  std::mt19937_64 random(4711);
  const auto twentieth = [&](int) {
    return Payload(fmt::format(R"({{"text":"{:016x}{:016x}{:016x}{:016x}{:x>946}"}})", random(), random(), random(), random(), ""));
  };
  const auto peaks = peaks_while("compressed to a twentieth", 600'000, "zstd", twentieth);
  EXPECT_LT(peaks.stuck, 128U);
  EXPECT_LT(peaks.blocked, 128U);
}

// However little a batch is as it is stored.
TEST(KafkaFaults, ATopicThatCompressesToNextToNothingIsHeldInABoundedPart) {
  const Payload payload(fmt::format(R"({{"text":"{:x>1010}"}})", ""));
  const auto peaks = peaks_while("compressed to next to nothing", 1'200'000, "zstd", [&](int) { return payload; });
  EXPECT_LT(peaks.stuck, 256U);
  EXPECT_LT(peaks.blocked, 256U);
}

// What handlers have in their hands counts too, in bytes.
TEST(KafkaFaults, LargeMessagesAreHeldInABoundedPartToo) {
  const FaultyServer server("kafka");
  constexpr std::size_t total = 2000;
  constexpr std::size_t eight_mib = 8U * 1024 * 1024;
  const auto limit = fmt::format("consumer:fetch_buffer_bytes={}", eight_mib);
  std::size_t peak = 0;
  std::size_t peak_of_one = 0;
  std::size_t handled = 0;
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(server.url()));
    const Payload payload(fmt::format(R"({{"text":"{:x>100000}"}})", ""));
    co_await client.publish("large", payload, {.key = "stuck"});
    for (std::size_t i = 0; i < total; ++i)
      co_await client.publish("large", payload, {.key = std::to_string(i), .confirm = false});
    EXPECT_TRUE((co_await client.flush()).failures.empty());
    std::size_t started = 0;
    Child all(context, {"stuck", server.url(), "large", "all", limit, "consumer:prefetch=1000000"},
              [&](const std::string&) { ++started; });
    Child one(context, {"stuck_one", server.url(), "large", "one", limit}, [&](const std::string&) { ++handled; });
    const auto deadline = clock->now() + 60s;
    while ((started < 8 || handled < total + 1) && clock->now() < deadline) co_await sleep_for(*clock, 10ms);
    EXPECT_EQ(started, 8U);
    peak = peak_mib(all);
    peak_of_one = peak_mib(one);
    co_await client.disconnect();
  });
  std::cout << fmt::format("{} MiB wait; all handlers stuck: {} MiB; one of them: {} MiB\n", total / 10, peak,
                           peak_of_one);
  EXPECT_EQ(handled, total + 1);
  EXPECT_LT(peak, 60U);
  EXPECT_LT(peak_of_one, 60U) << "what was handled is not kept, although its place cannot be committed";
}

TEST(KafkaFaults, ATopicBelowMinInsyncReplicasOpensNoCircuitForTheOthers) {
  FaultyServer server("kafka", "cluster");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto config = MessagingConfig::from_url(server.url());
    config.producer_config.insert_or_assign("publish_timeout", 1500);
    config.producer_config.insert_or_assign("circuit_reset_timeout", 1000);
    MessageBroker client(context.get_executor(), std::move(config));
    co_await client.administration().create_topic("strict", {.configuration = {{"min.insync.replicas", "3"}}});
    co_await client.administration().create_topic("normal", {.configuration = {{"min.insync.replicas", "2"}}});
    const auto publish = [&](const char* topic) -> awaitable<std::string> {
      try {
        co_await client.publish(topic, Value(1), {.key = "k"});
        co_return "";
      } catch (const MessagingError& failure) {
        co_return failure.what();
      }
    };
    for (const auto* topic : {"strict", "normal"}) EXPECT_EQ(co_await publish(topic), "");
    co_await server.kill(2);
    // Until the cluster has seen that a replica is missing, nobody's messages are taken.
    const auto clock = Clock::real();
    const auto deadline = clock->now() + 60s;
    while ((co_await publish("strict")).find("min.insync.replicas is 3") == std::string::npos &&
           clock->now() < deadline) {
    }
    while (!(co_await publish("normal")).empty() && clock->now() < deadline) {
    }
    for (int i = 0; i < 6; ++i)
      EXPECT_THAT(co_await publish("strict"), ::testing::HasSubstr("min.insync.replicas is 3"));
    EXPECT_EQ((co_await client.get_status()).circuit, CircuitState::closed);
    EXPECT_EQ(co_await publish("normal"), "");
    co_await client.disconnect();
  });
}

TEST(KafkaFaults, AClusterBelowMinInsyncReplicasRefusesAndSaysWhy) {
  FaultyServer server("kafka", "cluster");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto config = MessagingConfig::from_url(server.url());
    config.producer_config.insert_or_assign("publish_timeout", 8000);
    MessageBroker client(context.get_executor(), std::move(config));
    co_await client.administration().create_topic("orders", {.configuration = {{"min.insync.replicas", "3"}}});
    co_await client.publish("orders", Value(1), {.key = "k"});
    co_await server.kill(2);
    const auto clock = Clock::real();
    const auto why = [&](const boost::system::error_code& error, const std::string& text) {
      EXPECT_TRUE(error == errc::timed_out || error == errc::outcome_unknown) << text;
      EXPECT_THAT(text, ::testing::HasSubstr("of 3 replicas in sync, and min.insync.replicas is 3")) << text;
    };
    const auto refusal = [&]() -> awaitable<MessagingError> {
      const auto began = clock->now();
      auto failure = co_await failure_of([](MessageBroker broker) -> awaitable<void> {
        co_await broker.publish("orders", Value(2), {.key = "k"});
      }(client));
      EXPECT_LT(clock->now() - began, 8500ms);
      co_return failure;
    };
    auto failure = co_await refusal();
    // The cluster takes some time to see that a replica is missing, and may name the dead broker as the one that knows the
    // topic's settings until then.
    for (int i = 0; i < 6 && failure.detail().find("min.insync.replicas is 3") == std::string::npos; ++i)
      failure = co_await refusal();
    why(failure.code(), failure.what());
    const auto began = clock->now();
    std::vector<OutgoingMessage> batch(3);
    for (auto& message : batch) message.topic = "orders";
    for (const auto& result : co_await client.publish_many(std::move(batch))) why(result.error, result.detail);
    EXPECT_LT(clock->now() - began, 8500ms);
    co_await server.revive(2);
    const auto deadline = clock->now() + 60s;
    bool published = false;
    while (!published && clock->now() < deadline) {
      try {
        co_await client.publish("orders", Value(3), {.key = "k"});
        published = true;
      } catch (const MessagingError&) {
      }
    }
    EXPECT_TRUE(published) << "it goes on when the cluster is whole again";
    co_await client.disconnect();
  });
}

double seconds_of_cpu() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// What waits for the controller has it connected to, and most of those that the last broker names for it are gone.
TEST(KafkaFaults, ATopicThatWaitsForAControllerCostsNothing) {
  FaultyServer server("kafka", "cluster");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    co_await server.kill(2);
    co_await server.kill(3);
    auto config = MessagingConfig::from_url(server.url());
    config.producer_config.insert_or_assign("publish_timeout", 2500);
    const auto before = seconds_of_cpu();
    for (int i = 0; i < 4; ++i) {
      MessageBroker client(context.get_executor(), config);
      const auto publish = [&]() -> awaitable<void> { co_await client.publish("missing", Value(1)); };
      const auto failure = co_await failure_of(publish());
      EXPECT_TRUE(failure.retriable()) << failure.what();
      co_await client.disconnect();
    }
    EXPECT_LT(seconds_of_cpu() - before, 1.0) << "in ten seconds of waiting";
  });
}

}  // namespace
}  // namespace maestro::messaging::testing

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "faults/disturbances.hpp"
#include "faults/health.hpp"
#include "runtime/notifier.hpp"
#include "support/redis_cli.hpp"

namespace maestro::messaging::testing {
namespace {

using namespace std::chrono_literals;

// A group's order is that of one member: several share a stream, and with it its keys.
constexpr Load::Plan one_member{.members = 1};
constexpr Load::Plan several_members{.members = 2, .members_share_keys = true};

/// A port that nobody listens on.
std::uint16_t free_port() {
  boost::asio::io_context context;
  const boost::asio::ip::tcp::acceptor acceptor(context, {boost::asio::ip::address_v4::loopback(), 0});
  return acceptor.local_endpoint().port();
}

TEST(RedisFaults, NoFault) {
  const FaultyServer server("redis");
  Load load(server.url(), one_member);
  expect_kept("Redis", "none", load.run([](Load&) -> awaitable<void> { co_return; }));
}

TEST(RedisFaults, ServerKilledAndRestartedUnderLoad) {
  FaultyServer server("redis", "always");
  Load load(server.url(), one_member);
  expect_kept("Redis", "server with `appendfsync always` killed (SIGKILL) and started again, three times",
              load.run([&](Load& run) { return kill_and_revive(run, server); }));
}

TEST(RedisFaults, ServerFrozenForTwentySeconds) {
  FaultyServer server("redis");
  Load load(server.url(), one_member);
  expect_kept("Redis", "server frozen (SIGSTOP) for 20 s", load.run([&](Load& run) { return freeze(run, server); }));
}

TEST(RedisFaults, ConnectionsCut) {
  const FaultyServer server("redis");
  const auto port = free_port();
  TcpGate gate(port, port_of(server.url()));
  Load load(fmt::format("redis://127.0.0.1:{}", port), one_member);
  expect_kept("Redis", "every connection cut, twenty times", load.run([&](Load& run) { return cut(run, gate); }));
}

TEST(RedisFaults, ConnectionsSlowedSlicedAndSwallowed) {
  const FaultyServer server("redis");
  const auto port = free_port();
  TcpGate gate(port, port_of(server.url()));
  Load load(fmt::format("redis://127.0.0.1:{}", port), one_member);
  expect_kept("Redis", "connections slowed by 200 ms, sliced into a few bytes, swallowed for 8 s, refused for 3 s",
              load.run([&](Load& run) { return mistreat(run, gate); }));
}

// A connection that swallowed the question, or its answer, is open and silent from then on.
TEST(RedisFaults, ReadersNoticeThatTheirConnectionFellSilent) {
  const FaultyServer server("redis");
  const auto port = free_port();
  TcpGate gate(port, port_of(server.url()));
  boost::asio::io_context context{1};
  const auto count = [](Subscription& from, int& messages) -> awaitable<void> {
    while (co_await from.next()) ++messages;
  };
  int alone = 0;
  int shared = 0;
  const auto body = [&]() -> awaitable<void> {
    MessageBroker publisher(context.get_executor(), MessagingConfig::from_url(server.url()));
    auto config = MessagingConfig::from_url(fmt::format("redis://127.0.0.1:{}", port));
    config.consumer_config = {{"claim_idle", 600'000}};
    MessageBroker reader(context.get_executor(), config);
    auto private_reader = co_await reader.subscribe("orders");
    auto member = co_await reader.subscribe("orders", {.group_id = "g"});
    boost::asio::co_spawn(context, count(private_reader, alone), boost::asio::detached);
    boost::asio::co_spawn(context, count(member, shared), boost::asio::detached);
    co_await publisher.publish("orders", Value(0));
    const auto until = [&](int messages, Duration limit) -> awaitable<void> {
      const auto deadline = Clock::real()->now() + limit;
      while ((alone < messages || shared < messages) && Clock::real()->now() < deadline)
        co_await sleep_for(*Clock::real(), 20ms);
      EXPECT_EQ(alone, messages);
      EXPECT_EQ(shared, messages);
    };
    co_await until(1, 10s);
    gate.set(TcpGate::Mode::swallowed);
    co_await publisher.publish("orders", Value(1));
    co_await sleep_for(*Clock::real(), 1s);
    gate.set(TcpGate::Mode::open);
    co_await until(2, 20s);
    context.stop();
  };
  boost::asio::co_spawn(context, body(), boost::asio::detached);
  context.run();
}

TEST(RedisFaults, TheMetricsSayWhenTheServerIsAwayAndWhenItIsBack) {
  FaultyServer server("redis", "always");
  expect_health_to_follow("redis", server);
}

TEST(RedisFaults, MembersKilled) {
  const FaultyServer server("redis");
  Load load(server.url(), several_members, {{"claim_idle", 2000}});
  expect_kept("Redis", "a member in a process of its own killed (SIGKILL) with messages in its hands, three times",
              load.run([&](Load& run) { return kill_members(run, server.url(), "claim_idle=2000"); }));
}

TEST(RedisFaults, MembersComeAndGo) {
  const FaultyServer server("redis");
  Load load(server.url(), several_members);
  expect_kept("Redis", "members added and removed, six times each", load.run([&](Load& run) { return come_and_go(run); }));
}

TEST(RedisFaults, EverythingFlushedUnderLoad) {
  const FaultyServer server("redis");
  Load load(server.url(), one_member);
  expect_kept("Redis", "`FLUSHALL` (what it held aside)", load.run([&](Load& load) -> awaitable<void> {
    co_await load.sleep(1s);
    redis_cli(server.url(), "flushall");
    load.forget_acknowledged();
    const auto before = load.handled();
    co_await load.until([&] { return load.handled() > before + 2000; });
    load.forget_acknowledged();  // what was acknowledged in between may have been there before
    co_await load.sleep(1s);
  }));
}

TEST(RedisFaults, GroupDestroyedUnderLoad) {
  const FaultyServer server("redis");
  Load load(server.url(), one_member);
  expect_kept("Redis", "the group destroyed, three times", load.run([&](Load& load) -> awaitable<void> {
    for (int i = 0; i < 3; ++i) {
      co_await load.sleep(1s);
      redis_cli(server.url(), fmt::format("xgroup destroy {} {}", load.topic(), load.group()));
      const auto before = load.handled();
      co_await load.until([&] { return load.handled() > before + 2000; });
    }
  }));
}

TEST(RedisFaults, EventsAreStoredExactlyOnceWhileConnectionsAreCut) {
  const FaultyServer server("redis");
  const auto port = free_port();
  TcpGate gate(port, port_of(server.url()));
  constexpr std::size_t at_least = 1000;  // of each writer
  constexpr int writers = 20;
  boost::asio::io_context context{1};
  MessageBroker broker(context.get_executor(), MessagingConfig::from_url(fmt::format("redis://127.0.0.1:{}", port)));
  EventPublisher publisher(broker);
  std::size_t confirmed = 0;
  std::map<std::string, int> errors;
  int writing = writers;
  const auto write = [&](int writer) -> awaitable<void> {
    for (std::size_t i = 0; i < at_least || gate.connections() <= 10; ++i) {
      try {
        co_await publisher.publish("orders", {{"writer", writer}, {"number", i}});
        ++confirmed;
      } catch (const MessagingError& failure) {
        ++errors[failure.what()];
      }
    }
    --writing;
  };
  const auto disturb = [&]() -> awaitable<void> {
    while (writing > 0) {
      gate.cut();
      co_await sleep_for(*Clock::real(), 20ms);
    }
    context.stop();
  };
  for (int i = 0; i < writers; ++i) boost::asio::co_spawn(context, write(i), boost::asio::detached);
  boost::asio::co_spawn(context, disturb(), boost::asio::detached);
  context.run();
  for (const auto& [text, times] : errors) ADD_FAILURE() << times << " times: " << text;
  EXPECT_GE(confirmed, at_least * writers);

  boost::asio::io_context after{1};
  std::multiset<std::string> ids;
  const auto read = [&]() -> awaitable<void> {
    MessageBroker reader(after.get_executor(), MessagingConfig::from_url(server.url()));
    co_await reader.connect();
    const auto kept = (co_await reader.administration().describe_topic("orders")).messages;
    EXPECT_EQ(kept, static_cast<std::int64_t>(confirmed));
    auto subscription = co_await reader.subscribe("orders");
    while (std::cmp_less(ids.size(), kept)) ids.insert((co_await subscription.next())->id());
    after.stop();
  };
  boost::asio::co_spawn(after, read(), boost::asio::detached);
  after.run();
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), confirmed);
}

}  // namespace
}  // namespace maestro::messaging::testing

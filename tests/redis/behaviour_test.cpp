#include <fmt/format.h>
#include <gmock/gmock.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <maestro/messaging/shared_deduplication.hpp>
#include <set>

#include "runtime/notifier.hpp"
#include "support/faulty_server.hpp"
#include "support/real_time.hpp"
#include "support/redis_cli.hpp"
#include "support/scripted_redis.hpp"

namespace maestro::messaging::testing {
namespace {

using namespace boost::asio::experimental::awaitable_operators;
using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string unique(const std::string& name) {
  static const auto run = std::random_device{}();
  return fmt::format("{}.r{:08x}", name, run);
}

class RedisBehaviour : public ::testing::Test {
 protected:
  [[nodiscard]] MessageBroker broker(boost::asio::io_context& context, ConfigMap consumer = {}) const {
    auto config = MessagingConfig::from_url(server_.url);
    config.consumer_config = std::move(consumer);
    return {context.get_executor(), std::move(config)};
  }
  Server server_ = server("redis");
};

TEST_F(RedisBehaviour, OtherClientsAndThisOneUnderstandEachOther) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("foreign");
    auto client = broker(context);
    auto reader = co_await client.subscribe(topic, {.group_id = "g"});
    redis_cli(server_.url, fmt::format("XADD {} '*' order_id 7", topic));
    EXPECT_EQ((co_await reader.next())->value(), (Value{{"order_id", "7"}}));
    redis_cli(server_.url, fmt::format("XADD {} '*' payload plain key k note n", topic));
    const auto second = co_await reader.next();
    EXPECT_EQ(second->body(), "plain");
    EXPECT_EQ(second->key(), "k");
    EXPECT_EQ(second->header("note"), "n");
    co_await client.publish(topic, Value{{"a", 1}}, {.key = "k2"});
    EXPECT_THAT(redis_cli(server_.url, fmt::format("XREVRANGE {} + - COUNT 1", topic)), HasSubstr("payload\n{\"a\":1}\nkey\nk2"));
    co_await client.disconnect();
  });
}

TEST_F(RedisBehaviour, AnEntryThatIsDeletedWhilePendingStallsNothing) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("poison");
    auto client = broker(context, {{"claim_idle", 200}});
    std::vector<Receipt> receipts;
    for (int i = 0; i < 3; ++i) receipts.push_back(co_await client.publish(topic, Value(i)));
    {
      auto dies = co_await client.subscribe(topic, {.group_id = "g", .enable_auto_commit = false});
      for (int i = 0; i < 3; ++i) co_await dies.next();
    }  // without close(): as if it had died
    redis_cli(server_.url, fmt::format("XDEL {} {}", topic, *receipts[1].position));
    auto reader = co_await client.subscribe(topic, {.group_id = "g"});
    std::vector<Value> seen;
    while (seen.size() < 2) seen.push_back((co_await reader.next())->value());
    EXPECT_EQ(seen, (std::vector<Value>{0, 2}));
    co_await client.publish(topic, Value("more"));
    EXPECT_EQ((co_await reader.next())->value(), "more");
    co_await client.publish(topic, Value("last"));
    EXPECT_EQ((co_await reader.next())->value(), "last");
    co_await reader.commit();
    const auto deadline = Clock::real()->now() + 5s;
    std::int64_t lag = -1;
    while (lag != 0 && Clock::real()->now() < deadline) {
      lag = (co_await client.administration().describe_topic(topic)).groups.at(0).lag;
      co_await sleep_for(*Clock::real(), 50ms);
    }
    EXPECT_EQ(lag, 0) << "the deleted entry is acknowledged too";
    co_await client.disconnect();
  });
}

TEST_F(RedisBehaviour, ALongHandlerKeepsItsMessage) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("long");
    auto client = broker(context, {{"claim_idle", 300}});
    co_await client.publish(topic, Value("slow"));
    auto first = co_await client.subscribe(topic, {.group_id = "g"});
    EXPECT_EQ((co_await first.next())->value(), "slow");
    auto second = co_await client.subscribe(topic, {.group_id = "g"});
    bool taken = false;
    const auto take = [](Subscription& from, bool& flag) -> awaitable<void> { flag = (co_await from.next()).has_value(); };
    boost::asio::co_spawn(context, take(second, taken), boost::asio::detached);
    co_await sleep_for(*Clock::real(), 1500ms);
    EXPECT_FALSE(taken) << "claimed from a member that lives";
    co_await first.commit();
    co_await client.disconnect();
  });
}

TEST_F(RedisBehaviour, WhatAMemberLeavesAtItsCloseIsTakenOverSoonAndCounted) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto topic = unique("handover");
    auto client = broker(context);
    co_await client.publish(topic, Value("left"));
    auto second = co_await client.subscribe(unique("handover.other"), {.group_id = "g"});
    auto first = co_await client.subscribe(topic, {.group_id = "g"});
    EXPECT_EQ((co_await first.next())->delivery_count(), 1U);
    co_await first.close();
    auto next = co_await client.subscribe(topic, {.group_id = "g"});
    const auto began = Clock::real()->now();
    const auto message = co_await next.next();
    EXPECT_EQ(message->value(), "left");
    EXPECT_GE(message->delivery_count(), 2U);
    EXPECT_TRUE(message->redelivered());
    EXPECT_LT(Clock::real()->now() - began, 3s);
    co_await client.disconnect();
  });
}

TEST_F(RedisBehaviour, AStartThatIsCancelledOnItsWayHoldsNothingBack) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    const auto topic = unique("cancelled");
    auto client = broker(context);  // claim_idle is half a minute
    constexpr int count = 1000;
    std::vector<OutgoingMessage> messages(count);
    for (auto& message : messages) message = {.topic = topic, .payload = Payload(std::string("1"))};
    co_await client.publish_many(std::move(messages));
    for (int round = 0; round < 40; ++round) {
      EventConsumer consumer(client, {.group_id = "g", .drain_timeout = 1ms});
      consumer.subscribe(topic, [&](const Event&) -> awaitable<void> { co_await sleep_for(*clock, 1h); });
      boost::asio::cancellation_signal cancel;
      bool ended = false;
      boost::asio::co_spawn(
          context, consumer.start(),
          boost::asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr) { ended = true; }));
      co_await sleep_for(*clock, round % 10 * 200us);
      cancel.emit(boost::asio::cancellation_type::terminal);
      while (!ended) co_await sleep_for(*clock, 100us);
    }
    const auto began = clock->now();
    auto reader = co_await client.subscribe(topic, {.group_id = "g"});
    for (int i = 0; i < count; ++i) co_await reader.next();
    EXPECT_LT(clock->now() - began, 10s);
    co_await client.disconnect();
  });
}

TEST_F(RedisBehaviour, AUnixSocketAndADatabase) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto config = MessagingConfig::from_url("unix://" + server_.environment.at("REDIS_SOCKET"));
    config.connection_config = {{"database", 3}};
    MessageBroker client(context.get_executor(), config);
    const auto topic = unique("socket");
    co_await client.publish(topic, Value(1));
    EXPECT_EQ(redis_cli(server_.url, fmt::format("-n 3 XLEN {}", topic)), "1\n");
    EXPECT_EQ(redis_cli(server_.url, fmt::format("XLEN {}", topic)), "0\n");
    co_await client.disconnect();
  });
}

TEST_F(RedisBehaviour, SaysWhatAnAcknowledgedPublishSurvives) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context);
    co_await client.connect();
    EXPECT_THAT((co_await client.get_status()).acknowledged_means, HasSubstr("synced once a second"));
    EXPECT_THAT(
        (co_await client.get_status()).acknowledged_means,
        HasSubstr(
            "a crash of the server alone only what it holds back while the disk is slow, up to about two seconds"));
    co_await client.disconnect();
  });
  const auto always = server("redis --variant always");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(always.url));
    co_await client.connect();
    EXPECT_THAT((co_await client.get_status()).acknowledged_means, HasSubstr("appendfsync always"));
    co_await client.disconnect();
  });
}

TEST(RedisTrouble, WhatThePublishSurvivesIsAskedAgain) {
  FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(own.url()));
    EventConsumer consumer(client, {.group_id = "g"});
    consumer.subscribe("orders", [](const Event&) -> awaitable<void> { co_return; });
    std::string explained;
    set_log_sink([&](const LogRecord& line) {
      if (line.message.starts_with("\"orders\" on redis")) explained = line.message;
    });
    set_log_level(LogLevel::info);
    boost::asio::co_spawn(context, consumer.start(), boost::asio::detached);
    while (explained.empty()) co_await sleep_for(*Clock::real(), 5ms);
    set_log_level(LogLevel::off);
    set_log_sink(make_log_sink(LogFormat::text));
    EXPECT_THAT(explained, HasSubstr("synced once a second")) << "the server was asked before";
    const auto means = [&]() -> awaitable<std::string> { co_return (co_await client.get_status()).acknowledged_means; };
    redis_cli(own.url(), "CONFIG SET no-appendfsync-on-rewrite yes");
    EXPECT_THAT(co_await means(), HasSubstr("no-appendfsync-on-rewrite"));
    redis_cli(own.url(), "CONFIG SET appendfsync no");
    EXPECT_THAT(co_await means(), HasSubstr("synced when the system likes"));
    redis_cli(own.url(), "CONFIG SET appendonly no");
    EXPECT_THAT(co_await means(), HasSubstr("its end loses everything"));
    consumer.stop();
    co_await client.disconnect();
  });
}

TEST_F(RedisBehaviour, ASharedStoreTellsDuplicatesOfAnotherProcessOnAnotherBroker) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    using Outcome = Claim::Outcome;
    SharedDeduplicationStore one(broker(context), {.window = 1s});
    SharedDeduplicationStore other(broker(context), {.window = 1s});
    const auto id = unique("id");
    const auto first = co_await one.claim("g", id, 400ms);
    EXPECT_EQ(first.outcome, Outcome::claimed);
    EXPECT_EQ((co_await other.claim("g", id, 400ms)).outcome, Outcome::busy);
    EXPECT_EQ((co_await other.claim("another group", id, 400ms)).outcome, Outcome::claimed);
    co_await one.abandon("g", id, first.token);
    const auto second = co_await other.claim("g", id, 200ms);
    EXPECT_EQ(second.outcome, Outcome::claimed);
    co_await one.complete("g", id, first.token);  // its claim has passed to someone else
    EXPECT_EQ((co_await one.claim("g", id, 400ms)).outcome, Outcome::busy);
    co_await sleep_for(*Clock::real(), 300ms);  // as if the other had died
    const auto third = co_await one.claim("g", id, 400ms);
    EXPECT_EQ(third.outcome, Outcome::claimed);
    co_await one.complete("g", id, third.token);
    EXPECT_EQ((co_await other.claim("g", id, 400ms)).outcome, Outcome::duplicate);
    co_await sleep_for(*Clock::real(), 1100ms);
    EXPECT_EQ((co_await other.claim("g", id, 400ms)).outcome, Outcome::claimed) << "the window is over";

    // Two consumers of a broker that has no such keys share the store.
    MessagingConfig memory;
    memory.connection_string = "memory://" + unique("shared");
    MessageBroker events(context.get_executor(), memory);
    const auto store = std::make_shared<SharedDeduplicationStore>(broker(context));
    EventPublisher publisher(events);
    const auto event = unique("event");
    for (int i = 0; i < 5; ++i) co_await publisher.publish("orders", Value(i), {.attributes = {.id = event}});
    int handled = 0;
    EventConsumer consumer(events, {.group_id = unique("g"), .deduplication = store});
    consumer.subscribe("orders", [&](const Event&) -> awaitable<void> {
      ++handled;
      co_return;
    });
    boost::asio::co_spawn(context, consumer.start(), boost::asio::detached);
    const auto deadline = Clock::real()->now() + 10s;
    while (consumer.counts().duplicates < 4 && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 10ms);
    EXPECT_EQ(handled, 1);
    EXPECT_EQ(consumer.counts().duplicates, 4U);
    EXPECT_THROW(SharedDeduplicationStore{events}, MessagingError);
    consumer.stop();
    co_await events.disconnect();
  });
}

TEST(RedisTrouble, AServerWithoutMemoryRefusesAndNothingIsLost) {
  const FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto config = MessagingConfig::from_url(own.url());
    config.producer_config = {{"publish_timeout", 2000}};
    MessageBroker client(context.get_executor(), config);
    co_await client.publish("orders", Value(1));
    redis_cli(own.url(), "CONFIG SET maxmemory 1");
    const auto publish = [&]() -> awaitable<void> { co_await client.publish("orders", Value(2)); };
    const auto began = Clock::real()->now();
    const auto failure = co_await failure_of(publish());
    EXPECT_GT(Clock::real()->now() - began, 300ms) << "it may have some again in time";
    EXPECT_EQ(failure.reason(), errc::queue_full) << failure.what();
    EXPECT_THAT(failure.what(), HasSubstr("maxmemory"));
    const auto refused = [&] {
      const auto stats = redis_cli(own.url(), "INFO errorstats");
      return std::stoi(stats.substr(stats.find("errorstat_OOM:count=") + 20));
    };
    const auto refused_before = refused();
    bool done = false;
    const auto wait = [](MessageBroker of, bool& flag) -> awaitable<void> {
      co_await of.publish("orders", Value(3));
      flag = true;
    };
    boost::asio::co_spawn(context, wait(client, done), boost::asio::detached);
    while (refused() == refused_before) co_await sleep_for(*Clock::real(), 5ms);
    redis_cli(own.url(), "CONFIG SET maxmemory 0");
    while (!done && Clock::real()->now() - began < 10s) co_await sleep_for(*Clock::real(), 5ms);
    EXPECT_TRUE(done);
    auto reader = co_await client.subscribe("orders");
    EXPECT_EQ((co_await reader.next())->value(), 1);
    EXPECT_EQ((co_await reader.next())->value(), 3);
    co_await client.disconnect();
  });
}

TEST(RedisTrouble, NothingOvertakesWhatWaitsForMemory) {
  const FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(own.url()));
    co_await client.connect();
    redis_cli(own.url(), "CONFIG SET maxmemory 1");
    int done = 0;
    const auto publish = [&](int from, int to) -> awaitable<void> {
      std::vector<OutgoingMessage> messages;
      for (int i = from; i < to; ++i)
        messages.push_back({.topic = "orders", .payload = Payload(std::to_string(i)), .key = "k"});
      for (const auto& result : co_await client.publish_many(std::move(messages)))
        EXPECT_TRUE(result.ok()) << result.detail;
      ++done;
    };
    boost::asio::co_spawn(context, publish(0, 10), boost::asio::detached);
    boost::asio::co_spawn(context, publish(10, 20), boost::asio::detached);
    const auto refused = [&] {
      const auto stats = redis_cli(own.url(), "INFO errorstats");
      const auto at = stats.find("errorstat_OOM:count=");
      return at == std::string::npos ? 0 : std::stoi(stats.substr(at + 20));
    };
    // Twice at least, so that the next try is a while off.
    const auto deadline = Clock::real()->now() + 10s;
    while (refused() < 50 && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 5ms);
    redis_cli(own.url(), "CONFIG SET maxmemory 0");
    boost::asio::co_spawn(context, publish(20, 30), boost::asio::detached);
    while (done < 3 && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 5ms);
    EXPECT_EQ(done, 3);
    auto reader = co_await client.subscribe("orders");
    for (int i = 0; i < 30; ++i) EXPECT_EQ((co_await reader.next())->value(), i);
    co_await client.disconnect();
  });
}

TEST(RedisTrouble, WhatALaterMessageOfItsKeyOvertookIsNotTriedAgain) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    // The server has memory for all but the second, at its first try.
    std::vector<std::string> stored;
    int tries = 0;
    ScriptedRedis server(context, [&](const ScriptedRedis::Words& words) -> std::string {
      if (words[0] != "XADD") return "+OK\r\n";
      if (++tries % 6 == 2) return "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
      stored.push_back(words[4]);
      return "$3\r\n1-1\r\n";
    });
    const auto publish = [&](std::vector<std::optional<std::string>> keys) -> awaitable<std::vector<PublishResult>> {
      MessageBroker client(context.get_executor(), MessagingConfig::from_url(server.url()));
      stored.clear();
      tries = 0;
      std::vector<OutgoingMessage> messages;
      for (auto& key : keys)
        messages.push_back({"orders", Payload(std::to_string(messages.size())), std::move(key), {}, {}, {}});
      auto results = co_await client.publish_many(std::move(messages));
      co_await client.disconnect();
      co_return results;
    };
    const auto overtaken = co_await publish({"k", "k", "l", "k", "l"});
    EXPECT_EQ(overtaken[1].error, errc::queue_full);
    EXPECT_THAT(overtaken[1].detail, HasSubstr("a later message of its key was taken"));
    EXPECT_THAT(stored, ElementsAre("0", "2", "3", "4"));
    const auto last_of_its_key = co_await publish({"l", "k", "l", "l"});
    EXPECT_TRUE(last_of_its_key[1].ok()) << last_of_its_key[1].detail;
    EXPECT_THAT(stored, ElementsAre("0", "2", "3", "1"));
    const auto without_key = co_await publish({{}, {}, {}});
    EXPECT_TRUE(without_key[1].ok()) << without_key[1].detail;
    EXPECT_THAT(stored, ElementsAre("0", "2", "1"));
  });
}

TEST(RedisTrouble, WhatFallsDueWhileTheServerIsAwayComesAgain) {
  FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    constexpr std::size_t messages = 5;
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(own.url()));
    for (std::size_t i = 0; i < messages; ++i) co_await client.publish("orders", Value(i));
    auto reader = co_await client.subscribe("orders", {.group_id = "g", .enable_auto_commit = false});
    std::vector<Message> held;
    while (held.size() < messages) held.push_back(*co_await reader.next());
    co_await own.kill();
    for (const auto& message : held) reader.release(message, 100ms);
    co_await sleep_for(*Clock::real(), 300ms);
    co_await own.revive();
    std::set<std::string> again;
    const auto take = [](Subscription& from, std::set<std::string>& to) -> awaitable<void> {
      while (const auto message = co_await from.next()) to.insert(std::string(message->body()));
    };
    boost::asio::co_spawn(context, take(reader, again), boost::asio::detached);
    const auto deadline = Clock::real()->now() + 10s;
    while (again.size() < messages && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 20ms);
    EXPECT_EQ(again.size(), messages);
    co_await client.disconnect();
  });
}

TEST(RedisTrouble, AServerThatDoesNotSayTheLagEndsNoConsumer) {
  const FaultyServer own("redis");
  redis_cli(own.url(), "ACL SETUSER default -xinfo");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto config = MessagingConfig::from_url(own.url());
    config.enable_monitoring = true;
    MessageBroker client(context.get_executor(), config);
    EventConsumer consumer(client, {.group_id = "g"});
    consumer.subscribe("orders", [](const Event&) -> awaitable<void> { co_return; });
    std::exception_ptr error;
    bool ended = false;
    boost::asio::co_spawn(context, consumer.start(), [&](std::exception_ptr failure) {
      error = failure;
      ended = true;
    });
    // The lag is looked for at the start, and again every five seconds.
    const auto deadline = Clock::real()->now() + 6s;
    std::uint64_t published = 0;
    while (Clock::real()->now() < deadline && !ended) {
      co_await client.publish("orders", Value(1));
      ++published;
      co_await sleep_for(*Clock::real(), 100ms);
    }
    EXPECT_FALSE(ended);
    EXPECT_EQ(consumer.counts().handled, published);
    consumer.stop();
    while (!ended) co_await sleep_for(*Clock::real(), 5ms);
    EXPECT_FALSE(error);
    co_await client.disconnect();
  });
}

TEST(RedisTrouble, AReplicaIsWaitedForUntilItIsMaster) {
  const auto both = server("redis --variant replicated");
  const auto replica = both.environment.at("REDIS_REPLICA");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto config = MessagingConfig::from_url(replica);
    config.producer_config = {{"publish_timeout", 8000}};
    MessageBroker client(context.get_executor(), config);
    co_await client.connect();
    bool done = false;
    const auto publish = [](MessageBroker of, bool& flag) -> awaitable<void> {
      const auto receipt = co_await of.publish("failover", Value(1));
      flag = receipt.confirmed;
    };
    boost::asio::co_spawn(context, publish(client, done), boost::asio::detached);
    co_await sleep_for(*Clock::real(), 500ms);
    EXPECT_FALSE(done);
    redis_cli(replica, "REPLICAOF NO ONE");
    const auto deadline = Clock::real()->now() + 5s;
    while (!done && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 20ms);
    EXPECT_TRUE(done);
    co_await client.disconnect();
    redis_cli(replica, fmt::format("REPLICAOF 127.0.0.1 {}", port_of(both.url)));
  });
}

TEST(RedisTrouble, AKeyOfAnotherKindIsNamed) {
  const auto shared = server("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(shared.url));
    const auto topic = unique("text");
    redis_cli(shared.url, fmt::format("SET {} x", topic));
    const auto publish = [&]() -> awaitable<void> { co_await client.publish(topic, Value(2)); };
    EXPECT_THAT((co_await failure_of(publish())).what(), HasSubstr("holds something else than a stream"));
    const auto subscribe = [&]() -> awaitable<void> { co_await client.subscribe(topic, {.group_id = "g"}); };
    EXPECT_THAT((co_await failure_of(subscribe())).what(), HasSubstr("holds something else than a stream"));
    const auto alone = [&]() -> awaitable<void> { co_await client.subscribe(topic); };
    EXPECT_THAT((co_await failure_of(alone())).what(), HasSubstr("holds something else than a stream"));
    co_await client.disconnect();
  });
}

/// Runs what is all of a program: it ends when nothing is left to be done.
void ends(awaitable<void> all) {
  set_log_level(LogLevel::off);
  boost::asio::io_context context{1};
  std::exception_ptr error;
  boost::asio::co_spawn(context, std::move(all), [&](std::exception_ptr failure) { error = failure; });
  context.run_for(5s);
  EXPECT_TRUE(error) << "it is refused";
  EXPECT_TRUE(context.stopped()) << "something is still outstanding";
}

TEST(RedisTrouble, AProgramWhoseSubscriptionIsRefusedEnds) {
  const auto shared = server("redis");
  const auto text = unique("text");
  redis_cli(shared.url, fmt::format("SET {} x", text));
  const auto forbidden = unique("forbidden");
  redis_cli(shared.url, fmt::format("ACL SETUSER {} on nopass '~*' '&*' +@all -xgroup -xread", forbidden));
  const auto as_user = fmt::format("redis://{}@127.0.0.1:{}", forbidden, port_of(shared.url));
  const auto program = [](std::string url, std::string topic, std::optional<std::string> group) -> awaitable<void> {
    MessageBroker client(co_await boost::asio::this_coro::executor, MessagingConfig::from_url(url));
    co_await client.subscribe(topic, {.group_id = group});
  };
  for (const auto& group : {std::optional<std::string>("g"), std::optional<std::string>()}) {
    ends(program(shared.url, text, group));
    ends(program(as_user, forbidden, group));
  }
  redis_cli(shared.url, "ACL DELUSER " + forbidden);
}

TEST_F(RedisBehaviour, AProgramThatGivesASubscriptionUpOnItsWayEnds) {
  set_log_level(LogLevel::off);
  const auto topic = unique("given-up");
  for (int round = 0; round < 40; ++round) {
    boost::asio::io_context context{1};
    const auto program = [&]() -> awaitable<void> {
      auto client = broker(context);
      co_await client.connect();
      co_await (client.subscribe(topic, {.group_id = "g"}) || sleep_for(*Clock::real(), round * 50us));
    };
    boost::asio::co_spawn(context, program(), boost::asio::detached);
    context.run_for(5s);
    ASSERT_TRUE(context.stopped()) << "something is still outstanding, round " << round;
  }
}

TEST(RedisTrouble, AKeyThatIsNoStreamAnyMoreIsSaidOnceAndReadOnceItIsOne) {
  const FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(own.url()));
    auto reader = co_await client.subscribe("orders");
    co_await client.publish("orders", Value(1));
    EXPECT_EQ((co_await reader.next())->value(), 1);
    int said = 0;
    int reconnected = 0;
    set_log_sink([&](const LogRecord& line) {
      said += line.message == "reading failed; trying again";
      reconnected += line.message == "reconnected";
    });
    set_log_level(LogLevel::warning);
    redis_cli(own.url(), "DEL orders");
    redis_cli(own.url(), "SET orders x");
    redis_cli(own.url(), "CLIENT KILL TYPE normal");
    const auto refused = [&] {
      const auto stats = redis_cli(own.url(), "INFO errorstats");
      const auto at = stats.find("errorstat_WRONGTYPE:count=");
      return at == std::string::npos ? 0 : std::stoi(stats.substr(at + 26));
    };
    const auto deadline = Clock::real()->now() + 10s;
    while (refused() < 4 && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 10ms);
    EXPECT_GE(refused(), 4);
    EXPECT_EQ(said, 1);
    EXPECT_EQ(reconnected, 0) << "nothing works yet";
    redis_cli(own.url(), "DEL orders");
    co_await client.publish("orders", Value(2));
    EXPECT_EQ((co_await reader.next())->value(), 2);
    set_log_level(LogLevel::off);
    set_log_sink(make_log_sink(LogFormat::text));
    EXPECT_EQ(said, 1);
    EXPECT_EQ(reconnected, 1);
    co_await client.disconnect();
  });
}

TEST(RedisTrouble, AKeyThatIsNoStreamOpensNoCircuit) {
  const FaultyServer own("redis");
  redis_cli(own.url(), "SET orders x");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto config = MessagingConfig::from_url(own.url());
    config.producer_config.insert_or_assign("circuit_failure_threshold", 2);
    MessageBroker client(context.get_executor(), std::move(config));
    const auto publish = [&]() -> awaitable<void> { co_await client.publish("orders", Value(1)); };
    for (int i = 0; i < 4; ++i) EXPECT_EQ((co_await failure_of(publish())).code(), errc::broker_error);
    EXPECT_EQ((co_await client.get_status()).circuit, CircuitState::closed);
    co_await client.publish("payments", Value(1));
    co_await client.disconnect();
  });
}

TEST(RedisTrouble, WhatWasUnderWayWhenTheServerDiedIsLookedForOnceItIsBack) {
  FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker client(context.get_executor(), MessagingConfig::from_url(own.url()));
    EventPublisher publisher(client);
    co_await publisher.publish("orders", Value(0));
    std::vector<int> stored;
    const auto publish = [&](int number) -> awaitable<void> {
      try {
        co_await publisher.publish("orders", Value(number), {.key = "k"});
        stored.push_back(number);
      } catch (const MessagingError& failure) {
        ADD_FAILURE() << number << ": " << failure.what();
      }
    };
    co_await own.freeze();
    constexpr int under_way = 5;
    constexpr int all = 10;
    for (int i = 1; i <= under_way; ++i) boost::asio::co_spawn(context, publish(i), boost::asio::detached);
    co_await sleep_for(*Clock::real(), 50ms);  // so that they are sent
    co_await own.kill();
    for (int i = under_way + 1; i <= all; ++i) boost::asio::co_spawn(context, publish(i), boost::asio::detached);
    co_await sleep_for(*Clock::real(), 300ms);
    EXPECT_THAT(stored, ::testing::IsEmpty());
    co_await own.revive();
    const auto deadline = Clock::real()->now() + 10s;
    while (stored.size() < all && Clock::real()->now() < deadline) co_await sleep_for(*Clock::real(), 5ms);
    EXPECT_EQ(stored.size(), std::size_t{all});
    auto reader = co_await client.subscribe("orders");
    for (int i = 0; i <= all; ++i) EXPECT_EQ((co_await reader.next())->value(), i) << "nothing was overtaken";
    EXPECT_EQ(redis_cli(own.url(), "XLEN orders"), fmt::format("{}\n", all + 1)) << "each is stored once";
    co_await client.disconnect();
  });
}

TEST(RedisTrouble, WhatCannotBeLookedForInTimeStaysUnknown) {
  FaultyServer own("redis");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto config = MessagingConfig::from_url(own.url());
    config.producer_config = {{"publish_timeout", 1000}};
    MessageBroker client(context.get_executor(), config);
    EventPublisher publisher(client);
    co_await publisher.publish("orders", Value(0));
    co_await own.freeze();
    std::optional<errc> outcome;
    const auto began = Clock::real()->now();
    const auto publish = [&]() -> awaitable<void> {
      const auto once = [&]() -> awaitable<void> { co_await publisher.publish("orders", Value(1)); };
      outcome = (co_await failure_of(once())).reason();
    };
    boost::asio::co_spawn(context, publish(), boost::asio::detached);
    co_await sleep_for(*Clock::real(), 50ms);  // so that it is sent
    co_await own.kill();
    while (!outcome && Clock::real()->now() - began < 5s) co_await sleep_for(*Clock::real(), 5ms);
    EXPECT_EQ(outcome, errc::outcome_unknown);
    EXPECT_GT(Clock::real()->now() - began, 500ms) << "it was tried until the time was nearly over";
    co_await client.disconnect();
  });
}

TEST(RedisTrouble, NoServerIsSaidWithinTheTimeAllowed) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto config = MessagingConfig::from_url("redis://127.0.0.1:9");
    config.connection_config = {{"connect_timeout", 500}};
    MessageBroker client(context.get_executor(), config);
    const auto failure = co_await failure_of(client.connect());
    EXPECT_EQ(failure.reason(), errc::connection_failed);
    EXPECT_THAT(failure.what(), HasSubstr("no Redis at 127.0.0.1:9"));
  });
}

}  // namespace
}  // namespace maestro::messaging::testing

// What Kafka's own options do, on a real broker.
#include <librdkafka/rdkafka.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <random>
#include <set>

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

TEST_F(KafkaBehaviour, AReplayPassesOverWhatItsTopicRefuses) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto made = config();
    made.connection_config.insert_or_assign("auto_create_topics", false);
    MessageBroker broker(context.get_executor(), std::move(made));
    co_await broker.connect();
    const auto small = unique("small");
    const auto dlq = small + ".g.dlq";
    co_await broker.administration().create_topic(small, {1, {{"max.message.bytes", "1000"}}});
    co_await broker.administration().create_topic(dlq, {1});
    std::vector<OutgoingMessage> letters;
    const auto leave = [&](std::string_view origin, std::string body) {
      letters.push_back(make_dead_letter(Message({.topic = origin, .key = "k", .payload = body}), dlq, "g", {.message = "no"}));
    };
    for (int i = 0; i < 5; ++i) leave(small, "before");
    leave(small, std::string(4000, 'x'));
    leave("__transaction_state", "not for programs");
    leave(unique("missing"), "not there");
    for (int i = 0; i < 5; ++i) leave(small, "after");
    for (const auto& result : co_await broker.publish_many(std::move(letters))) EXPECT_TRUE(result.ok()) << result.detail;
    DeadLetters console(broker, dlq);
    const auto report = co_await console.replay();
    EXPECT_EQ(report.replayed, 10U);
    EXPECT_EQ(report.failed, 3U);
    EXPECT_TRUE(report.first_failure.has_value());
    EXPECT_EQ(report.first_failure->position, "0/5");
    EXPECT_EQ(report.first_failure->error, errc::message_too_large);
    EXPECT_EQ((co_await broker.administration().describe_topic(small)).messages, 10);
    co_await broker.disconnect();
  });
}

// A group on `>` commits its places, and would read them.
TEST_F(KafkaBehaviour, APatternDoesNotReadWhatKafkaWritesByItself) {
  for (const auto& group : {std::optional<std::string>(), std::optional(unique("everything"))}) {
    for (const auto* pattern : {">", "*"}) {
      run_real([&](boost::asio::io_context& context) -> awaitable<void> {
        auto made = config({{"commit_interval", 100}});
        MessageBroker broker(context.get_executor(), std::move(made));
        auto topic = unique("seen");
        std::ranges::replace(topic, '.', '-');
        co_await broker.publish(topic, Value(0));
        auto reader =
            co_await broker.subscribe(pattern, {.group_id = group, .auto_offset_reset = OffsetReset::latest});
        auto other = co_await broker.subscribe(topic, {.group_id = unique("other"), .enable_auto_commit = false});
        bool is_over = false;
        int seen = 0;
        boost::asio::co_spawn(
            context,
            [&]() -> awaitable<void> {
              while (const auto message = co_await reader.next()) {
                EXPECT_FALSE(message->topic().starts_with("__")) << pattern << " reads " << message->topic();
                seen += message->topic() == topic ? 1 : 0;
              }
              is_over = true;
            },
            boost::asio::detached);
        // Each commit is a message of Kafka's own.
        for (int i = 0; i < 20; ++i) {
          co_await broker.publish(topic, Value(i));
          other.acknowledge(*co_await other.next());
          co_await other.commit();
          co_await sleep_for(*Clock::real(), 50ms);
        }
        for (int i = 0; i < 100 && seen == 0; ++i) co_await sleep_for(*Clock::real(), 50ms);
        EXPECT_GT(seen, 0) << pattern;
        co_await reader.close();
        for (int i = 0; i < 100 && !is_over; ++i) co_await sleep_for(*Clock::real(), 50ms);
        EXPECT_TRUE(is_over);
        co_await broker.disconnect();
      });
    }
  }
}

TEST_F(KafkaBehaviour, KafkasOwnTopicsAreNotForPrograms) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    co_await broker.connect();
    auto& administration = broker.administration();
    for (const std::string topic : {"__consumer_offsets", "__transaction_state"}) {
      const auto purge = [&]() -> awaitable<void> { co_await administration.purge_topic(topic); };
      std::vector<MessagingError> failures;
      failures.push_back(co_await failure_of(administration.create_topic(topic, {})));
      failures.push_back(co_await failure_of(purge()));
      failures.push_back(co_await failure_of(administration.delete_topic(topic)));
      for (const auto& failure : failures) {
        EXPECT_EQ(failure.reason(), errc::invalid_topic) << failure.what();
        EXPECT_THAT(failure.what(), ::testing::HasSubstr("\"" + topic + "\" is Kafka's own"));
      }
    }
    co_await broker.disconnect();
  });
}

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

// The leader gives out what it sees: of a topic that is gone just then nothing, and librdkafka does not look again.
TEST_F(KafkaBehaviour, PartitionsThatChangeHandsWhileTheirTopicIsGoneAreSomebodysInTheEnd) {
  int revoked = 0;
  int assigned = 0;
  set_log_sink([&](const LogRecord& line) {
    revoked += line.message == "partitions revoked";
    assigned += line.message == "partitions assigned";
  });
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    set_log_level(LogLevel::info);
    const auto clock = Clock::real();
    const auto until = [&](auto condition, Duration limit) -> awaitable<bool> {
      for (const auto deadline = clock->now() + limit; !condition() && clock->now() < deadline;) co_await sleep_for(*clock, 5ms);
      co_return condition();
    };
    const auto topic = unique("away");
    constexpr std::int32_t partitions = 6;
    MessageBroker client(context.get_executor(), config());
    std::vector<std::unique_ptr<MessageBroker>> members;
    std::set<std::int32_t> read;
    const auto member = [&](MessageBroker& broker) -> awaitable<void> {
      auto subscription = co_await broker.subscribe(topic, {.group_id = topic});
      while (const auto message = co_await subscription.next()) read.insert(message->position().partition);
    };
    const auto join = [&] {
      members.push_back(std::make_unique<MessageBroker>(context.get_executor(), config()));
      boost::asio::co_spawn(context, member(*members.back()), boost::asio::detached);
    };
    co_await client.administration().create_topic(topic, {.partitions = partitions});
    join();
    EXPECT_TRUE(co_await until([&] { return assigned == 1; }, 20s));
    join();
    EXPECT_TRUE(co_await until([&] { return revoked == 1; }, 20s));  // three of them, for the second member
    co_await client.administration().delete_topic(topic);
    const auto before = assigned;
    co_await until([&] { return assigned >= before + 2; }, 3s);  // each member hears what it has now
    co_await client.administration().create_topic(topic, {.partitions = partitions});
    for (std::int32_t i = 0; i < partitions; ++i) co_await client.publish(topic, Payload("new"), {.partition = i});
    EXPECT_TRUE(co_await until([&] { return read.size() == partitions; }, 30s)) << read.size() << " partitions are somebody's";
    for (auto& each : members) co_await each->disconnect();
    co_await client.disconnect();
  });
  set_log_sink(make_log_sink(LogFormat::text));
  set_log_level(LogLevel::warning);
}

// A topic's partitions get ready one by one: what is published meanwhile may be refused first and taken a moment later.
TEST_F(KafkaBehaviour, WhatIsPublishedToTopicsThatWereJustMadeIsThere) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    constexpr std::size_t topics = 12;
    constexpr std::size_t count = 100;
    const auto prefix = unique("fresh");
    const auto publish = [&](std::string topic) -> awaitable<void> {
      MessageBroker broker(context.get_executor(), config());
      std::vector<OutgoingMessage> messages(count);
      for (std::size_t i = 0; i < count; ++i) {
        messages[i].topic = topic;
        messages[i].key = "k";
        messages[i].payload = Payload(fmt::format("{}{:x>500}", i, ""));
      }
      for (const auto& result : co_await broker.publish_many(std::move(messages))) {
        EXPECT_TRUE(result.ok()) << topic << ": " << result.detail;
        EXPECT_GE(result.receipt.offset, 0) << topic << ": taken for a duplicate";
      }
      EXPECT_EQ((co_await broker.administration().describe_topic(topic)).messages, count) << topic;
      co_await broker.disconnect();
    };
    std::size_t running = topics;
    for (std::size_t i = 0; i < topics; ++i)
      boost::asio::co_spawn(context, publish(fmt::format("{}.{}", prefix, i)), [&](std::exception_ptr error) {
        --running;
        try {
          if (error) std::rethrow_exception(error);
        } catch (const std::exception& failure) {
          ADD_FAILURE() << failure.what();
        }
      });
    while (running > 0) co_await sleep_for(*Clock::real(), 10ms);
  });
}

TEST_F(KafkaBehaviour, APartitionThatIsNotThereIsRefusedAndHoldsUpNothing) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("odd");
    co_await broker.administration().create_topic(topic, {.partitions = 3});
    for (const std::int32_t odd : {-5, 7, 2'000'000'000}) {
      std::vector<OutgoingMessage> messages(40);
      for (std::size_t i = 0; i < messages.size(); ++i) {
        messages[i].topic = topic;
        messages[i].key = std::to_string(i);
        messages[i].payload = Payload(std::to_string(i));
      }
      messages[20].partition = odd;
      const auto results = co_await broker.publish_many(std::move(messages));
      for (std::size_t i = 0; i < results.size(); ++i)
        EXPECT_EQ(results[i].error, i == 20 ? make_error_code(errc::invalid_argument) : boost::system::error_code()) << odd << ", " << i;
      const auto lone = co_await failure_of([](MessageBroker of, std::string to, std::int32_t where) -> awaitable<void> {
        co_await of.publish(to, Payload("x"), {.partition = where});
      }(broker, topic, odd));
      EXPECT_EQ(lone.reason(), errc::invalid_argument) << lone.what();
    }
    EXPECT_EQ((co_await broker.administration().describe_topic(topic)).messages, 3 * 39);
    co_await broker.disconnect();
  });
}

// With two, the broker may refuse the first and take the second: what that does is told in `Openings`.
TEST_F(KafkaBehaviour, TheFirstMessageToAPartitionIsUnderWayAlone) {
  std::mutex mutex;
  std::vector<std::string> said;
  set_log_sink([&](const LogRecord& line) {
    const std::lock_guard lock(mutex);
    if (line.message.find("MessageSet with ") != std::string::npos) said.push_back(line.message);
  });
  constexpr std::size_t count = 200;
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    set_log_level(LogLevel::debug);
    for (const bool with_key : {true, false}) {
      MessageBroker broker(context.get_executor(), config({}, {{"raw.debug", "msg"}}));
      const auto topic = unique("alone");
      co_await broker.administration().create_topic(topic, {.partitions = 3});
      std::vector<OutgoingMessage> messages(count);
      for (std::size_t i = 0; i < count; ++i) {
        messages[i].topic = topic;
        if (with_key) messages[i].key = fmt::format("key {}", i % 50);
        if (i % 7 == 3) messages[i].headers.add("kind", "with headers");
        messages[i].payload = Payload(std::to_string(i));
      }
      for (const auto& result : co_await broker.publish_many(std::move(messages))) EXPECT_TRUE(result.ok()) << result.detail;
      co_await broker.disconnect();
      std::map<std::string, int> sent;
      const std::lock_guard lock(mutex);
      std::map<std::string, int> answers;
      std::size_t total = 0;
      for (const auto& line : said) {
        const auto at = line.find(topic + " [");
        if (at == std::string::npos) continue;
        const auto partition = line.substr(at, line.find(']', at) - at);
        const bool is_sent = line.find("Produce MessageSet with ") != std::string::npos;
        if (!is_sent) {
          ++answers[partition];
          continue;
        }
        const auto size = std::stoul(line.substr(line.find("MessageSet with ") + 16));
        total += size;
        if (sent[partition] == 0) EXPECT_EQ(size, 1U) << line;
        if (sent[partition] == 1) EXPECT_EQ(answers[partition], 1) << line;
        ++sent[partition];
      }
      EXPECT_EQ(total, count);
      EXPECT_GE(sent.size(), with_key ? 3U : 1U);
    }
  });
  set_log_sink(make_log_sink(LogFormat::text));
  set_log_level(LogLevel::warning);
}

// Six seconds without a poll would cost a plain client its partitions; the handler takes nine.
TEST_F(KafkaBehaviour, MessagesWithoutAKeyGoTogetherToOnePartitionAfterAnother) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("spread");
    co_await broker.administration().create_topic(topic, {.partitions = 6});
    co_await broker.publish(topic, Value("known"));
    std::set<std::int32_t> all;
    for (int i = 0; i < 200 && all.size() < 6; ++i) {
      std::vector<OutgoingMessage> messages(500);
      for (std::size_t k = 0; k < messages.size(); ++k) {
        messages[k].topic = topic;
        messages[k].payload = Payload(std::to_string(k));
        if (k % 100 == 50) messages[k].headers.add("kind", "with headers");
      }
      std::set<std::int32_t> used;
      for (const auto& result : co_await broker.publish_many(std::move(messages))) used.insert(result.value().partition);
      EXPECT_EQ(used.size(), 1U);
      all.merge(used);
    }
    EXPECT_EQ(all.size(), 6U);
    co_await broker.disconnect();
  });
}

// Whatever the bursts are like: they must not meet the same partitions each time.
TEST_F(KafkaBehaviour, BurstsWithoutAKeyAreSpreadEvenly) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("bursts");
    co_await broker.administration().create_topic(topic, {.partitions = 2});
    constexpr int bursts = 150;
    for (int i = 0; i < bursts; ++i) {
      for (int k = 0; k < 10; ++k) co_await broker.publish(topic, Value(k), {.confirm = false});
      co_await sleep_for(*broker.clock(), 5ms);
    }
    co_await broker.flush();
    const auto info = co_await broker.administration().describe_topic(topic);
    for (const auto& each : info.partitions) EXPECT_GT(each.next, bursts * 10 / 4) << "of " << bursts * 10;
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, LargeMessagesWithoutAKeyDoNotAllGoToOnePartition) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("large");
    co_await broker.administration().create_topic(topic, {.partitions = 6});
    std::vector<OutgoingMessage> messages(60);
    for (auto& each : messages) {
      each.topic = topic;
      each.payload = Payload(std::string(500'000, 'x'));
    }
    std::map<std::int32_t, int> used;
    for (const auto& result : co_await broker.publish_many(std::move(messages))) ++used[result.value().partition];
    EXPECT_EQ(used.size(), 6U);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, AUsersPartitionerIsHeeded) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config({}, {{"raw.partitioner", "consistent"}}));
    const auto topic = unique("partitioner");
    co_await broker.administration().create_topic(topic, {.partitions = 6});
    for (int i = 0; i < 20; ++i) EXPECT_EQ((co_await broker.publish(topic, Value(i))).partition, 0) << "of no key, by its CRC";
    co_await broker.disconnect();
  });
}

// The hashes are those that Kafka's own tests of its partitioner expect (UtilsTest.testMurmur2).
TEST_F(KafkaBehaviour, AKeyIsWhereJavasClientsPutIt) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("keys");
    co_await broker.administration().create_topic(topic, {.partitions = 6});
    const std::pair<const char*, std::int32_t> hashes[] = {
        {"21", -973932308}, {"abc", 479470107}, {"a-little-bit-long-string", -985981536}, {"a-little-bit-longer-string", -1486304829}};
    for (const auto& [key, hash] : hashes)
      for (int i = 0; i < 3; ++i)
        EXPECT_EQ((co_await broker.publish(topic, Value(i), {.key = key})).partition, (hash & 0x7fffffff) % 6) << key;
    co_await broker.disconnect();
  });
}

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

TEST_F(KafkaBehaviour, AKeyWhoseHandlerIsStuckHoldsUpNoOtherPartition) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("stuck");
    co_await broker.administration().create_topic(topic, {.partitions = 4});
    const auto publish = [&](std::size_t count, std::size_t keys) -> awaitable<std::vector<PublishResult>> {
      std::vector<OutgoingMessage> messages(count);
      for (std::size_t i = 0; i < count; ++i) {
        messages[i].topic = topic;
        messages[i].key = keys == 1 ? "hot" : fmt::format("cold{}", i % keys);
        messages[i].payload = Payload("1");
      }
      return broker.publish_many(std::move(messages));
    };
    const auto hot = (co_await publish(3000, 1)).front().value().partition;
    EventConsumer consumer(broker, {.group_id = unique("g"), .concurrency = 8});
    std::ptrdiff_t handled_elsewhere = 0;
    bool is_stuck = false;
    bool is_free = false;
    consumer.subscribe(topic, [&](const Event& event) -> awaitable<void> {
      if (event.message().position().partition != hot) ++handled_elsewhere;
      if (event.key() != "hot" || std::exchange(is_stuck, true)) co_return;
      while (!is_free) co_await sleep_for(*clock, 5ms);
    });
    bool ended = false;
    boost::asio::co_spawn(context, consumer.start(), [&](std::exception_ptr) { ended = true; });
    const auto deadline = clock->now() + 20s;
    while (clock->now() < deadline && consumer.counts().received < 500) co_await sleep_for(*clock, 10ms);
    co_await sleep_for(*clock, 500ms);  // it takes as much of the one key as it may
    EXPECT_TRUE(is_stuck);
    std::ptrdiff_t elsewhere = 0;
    for (const auto& result : co_await publish(300, 30)) elsewhere += result.value().partition != hot;
    while (clock->now() < deadline && handled_elsewhere < elsewhere) co_await sleep_for(*clock, 10ms);
    EXPECT_EQ(handled_elsewhere, elsewhere);
    is_free = true;
    while (clock->now() < deadline && consumer.counts().handled < 3300) co_await sleep_for(*clock, 10ms);
    EXPECT_EQ(consumer.counts().handled, 3300U);
    consumer.stop();
    while (!ended) co_await sleep_for(*clock, 10ms);
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

TEST_F(KafkaBehaviour, AStaticProgramMayReadSeveralTopics) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config({{"group_instance_id", "one"}, {"session_timeout", 6000}}));
    const auto clock = Clock::real();
    EventConsumer consumer(broker, {.group_id = unique("g")});
    std::multiset<std::string> handled;
    std::vector<std::string> topics;
    for (const auto* name : {"first", "second", "third"}) {
      const auto topic = topics.emplace_back(unique(name));
      for (int i = 0; i < 10; ++i) co_await broker.publish(topic, Value(i));
      consumer.subscribe(topic, [&handled, topic](const Event&) -> awaitable<void> {
        handled.insert(topic);
        co_return;
      });
    }
    std::exception_ptr error;
    bool ended = false;
    boost::asio::co_spawn(context, consumer.start(), [&](std::exception_ptr why) {
      error = why;
      ended = true;
    });
    // Whoever is fenced hears of it with its next heartbeat, a second later at the latest.
    const auto until = clock->now() + 40s;
    while (!ended && handled.size() < 30 && clock->now() < until) co_await sleep_for(*clock, 50ms);
    co_await sleep_for(*clock, 3s);
    EXPECT_FALSE(ended);
    for (const auto& topic : topics) co_await broker.publish(topic, Value(10));
    while (!ended && handled.size() < 33 && clock->now() < until) co_await sleep_for(*clock, 50ms);
    for (const auto& topic : topics) EXPECT_EQ(handled.count(topic), 11U);
    consumer.stop();
    while (!ended) co_await sleep_for(*clock, 10ms);
    EXPECT_FALSE(error);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, PlacesAreCommittedByCountToo) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config({{"commit_interval", 3'600'000}, {"commit_messages", 100}}));
    const auto clock = Clock::real();
    const auto topic = unique("counted");
    const auto group = unique("g");
    co_await broker.administration().create_topic(topic, {.partitions = 1});
    for (int i = 0; i < 250; ++i) co_await broker.publish(topic, Value(i), {.confirm = false});
    co_await broker.flush();
    auto reader = co_await broker.subscribe(topic, {.group_id = group, .enable_auto_commit = false});
    const auto lag = [&]() -> awaitable<std::int64_t> {
      for (const auto& each : (co_await broker.administration().describe_topic(topic)).groups)
        if (each.group == group) co_return each.lag;
      co_return 250;
    };
    const auto settle = [&](int count) -> awaitable<void> {
      for (int i = 0; i < count; ++i) reader.acknowledge(*co_await reader.next());
    };
    co_await settle(99);
    co_await sleep_for(*clock, 1s);
    EXPECT_EQ(co_await lag(), 250);
    co_await settle(151);
    const auto until = clock->now() + 10s;
    while (co_await lag() > 100 && clock->now() < until) co_await sleep_for(*clock, 50ms);
    EXPECT_LE(co_await lag(), 100);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, AStaticMemberWhoseNameIsTakenOverSaysSo) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto settings = config({{"group_instance_id", "one"}, {"session_timeout", 6000}});
    MessageBroker older(context.get_executor(), settings);
    MessageBroker newer(context.get_executor(), settings);
    const auto topic = unique("static");
    const SubscribeOptions options{.group_id = unique("g")};
    co_await older.publish(topic, Value(1));
    auto first = co_await older.subscribe(topic, options);
    EXPECT_EQ((co_await first.next())->value(), 1);
    auto second = co_await newer.subscribe(topic, options);
    const auto failure = co_await failure_of([](Subscription& reader) -> awaitable<void> { co_await reader.next(); }(first));
    EXPECT_EQ(failure.code(), errc::closed) << failure.what();
    EXPECT_THAT(failure.what(), ::testing::HasSubstr("group_instance_id"));
    EXPECT_FALSE(co_await older.health_check());
    EXPECT_EQ((co_await second.next())->value(), 1) << "it was not acknowledged";
    co_await older.publish(topic, Value(2));
    EXPECT_EQ((co_await second.next())->value(), 2);
    co_await older.disconnect();
    co_await newer.disconnect();
  });
}

TEST_F(KafkaBehaviour, TheLagOfWhatIsReadByHandIsShown) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto made = config();
    made.enable_monitoring = true;
    MessageBroker broker(context.get_executor(), made);
    const auto clock = Clock::real();
    const auto topic = unique("lag");
    for (int i = 0; i < 3; ++i) co_await broker.publish(topic, Value(i), {.partition = 0});
    const auto becomes = [&](double wanted) -> awaitable<bool> {
      const auto& gauge =
          metrics_registry()->gauge("messaging_consumer_lag", {{"broker", "kafka"}, {"topic", topic}, {"group", topic}, {"partition", "0"}});
      for (const auto deadline = clock->now() + 10s; gauge.value() != wanted && clock->now() < deadline;) co_await sleep_for(*clock, 50ms);
      co_return gauge.value() == wanted;
    };
    auto reader = co_await broker.subscribe(topic, {.group_id = topic});
    EXPECT_TRUE(co_await becomes(3));
    for (int i = 0; i < 3; ++i) co_await reader.next();
    co_await reader.commit();
    EXPECT_TRUE(co_await becomes(0));
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, ASeekInAnotherMembersPartitionSaysWhoseItIs) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto made = config();
    made.connection_config.insert_or_assign("connect_timeout", 60'000);
    MessageBroker broker(context.get_executor(), made);
    const auto clock = Clock::real();
    const auto topic = unique("shared");
    co_await broker.administration().create_topic(topic, {.partitions = 2});
    auto first = co_await broker.subscribe(topic, {.group_id = topic});
    auto second = co_await broker.subscribe(topic, {.group_id = topic});
    for (std::int32_t i = 0; i < 2; ++i) {
      // Each has one of the two.
      int refused = 0;
      const auto began = clock->now();
      for (auto* each : {&first, &second}) {
        try {
          co_await each->seek(topic, i, 0);
        } catch (const MessagingError& failure) {
          ++refused;
          EXPECT_EQ(failure.reason(), errc::not_owned) << failure.what();
          EXPECT_THAT(failure.what(), ::testing::HasSubstr("another member's"));
          EXPECT_THAT(failure.what(), ::testing::Not(::testing::HasSubstr("delivery")));
        }
      }
      EXPECT_EQ(refused, 1);
      EXPECT_LT(clock->now() - began, 20s) << "it waits for a rebalance, and there is none";
    }
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, ASeekWaitsForNoFetch) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config({{"raw.fetch.wait.max.ms", "8000"}}));
    const auto clock = Clock::real();
    const auto topic = unique("sought");
    for (int i = 0; i < 3; ++i) co_await broker.publish(topic, Value(i), {.key = "k"});
    auto reader = co_await broker.subscribe(topic, {.group_id = topic});
    std::int32_t partition = -1;
    for (int i = 0; i < 3; ++i) partition = (co_await reader.next())->position().partition;
    const auto began = clock->now();
    co_await reader.seek(topic, partition, 1);
    co_await reader.seek(topic, partition, Timestamp{});
    EXPECT_LT(clock->now() - began, 4s);
    EXPECT_EQ((co_await reader.next())->value().as_int64(), 0);
    co_await broker.disconnect();
  });
}

void set_partitions(const std::string& url, const std::string& topic, std::size_t partitions) {
  char text[256] = "";
  auto* conf = rd_kafka_conf_new();
  rd_kafka_conf_set(conf, "bootstrap.servers", url.substr(url.find("//") + 2).c_str(), text, sizeof text);
  auto* client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
  auto* queue = rd_kafka_queue_new(client);
  auto* wanted = rd_kafka_NewPartitions_new(topic.c_str(), partitions, text, sizeof text);
  rd_kafka_CreatePartitions(client, &wanted, 1, nullptr, queue);
  auto* answer = rd_kafka_queue_poll(queue, 30'000);
  std::size_t count = 0;
  const auto* const* results =
      rd_kafka_CreatePartitions_result_topics(rd_kafka_event_CreatePartitions_result(answer), &count);
  EXPECT_EQ(count, 1U);
  if (count == 1) EXPECT_EQ(rd_kafka_topic_result_error(results[0]), RD_KAFKA_RESP_ERR_NO_ERROR);
  rd_kafka_event_destroy(answer);
  rd_kafka_NewPartitions_destroy(wanted);
  rd_kafka_queue_destroy(queue);
  rd_kafka_destroy(client);
}

// Where a group begins is said of a new group, and not of what comes later.
TEST_F(KafkaBehaviour, PartitionsThatCameWhileNoMemberRanAreReadFromTheirBeginning) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("grown");
    const SubscribeOptions options{.group_id = topic, .auto_offset_reset = OffsetReset::latest};
    const auto publish = [&](std::int32_t partition, int number) -> awaitable<void> {
      co_await broker.publish(topic, Value(number), {.partition = partition});
    };
    co_await broker.administration().create_topic(topic, {.partitions = 2});
    for (std::int32_t i = 0; i < 2; ++i) co_await publish(i, 0);  // before the group was
    auto first = co_await broker.subscribe(topic, options);
    co_await publish(0, 1);
    EXPECT_EQ((co_await first.next())->value().as_int64(), 1);
    co_await first.commit();
    co_await first.close();
    set_partitions(server("kafka").url, topic, 4);
    MessageBroker other(context.get_executor(), config());  // one that has not seen the topic before
    for (std::int32_t i = 0; i < 4; ++i) co_await other.publish(topic, Value(2 + i), {.partition = i});
    auto second = co_await other.subscribe(topic, options);
    std::set<std::int64_t> numbers;
    for (int i = 0; i < 4; ++i) numbers.insert((co_await second.next())->value().as_int64());
    EXPECT_EQ(numbers, (std::set<std::int64_t>{2, 3, 4, 5}));
    co_await second.close();
    auto newcomer =
        co_await other.subscribe(topic, {.group_id = unique("new"), .auto_offset_reset = OffsetReset::latest});
    co_await other.publish(topic, Value(6), {.partition = 3});
    EXPECT_EQ((co_await newcomer.next())->value().as_int64(), 6);
    co_await broker.disconnect();
    co_await other.disconnect();
  });
}

TEST_F(KafkaBehaviour, AMemberThatWasTakenOverWaitsForNoCommit) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto settings = config({{"group_instance_id", "one"}, {"session_timeout", 6000}});
    MessageBroker older(context.get_executor(), settings);
    MessageBroker newer(context.get_executor(), settings);
    const auto clock = Clock::real();
    const auto topic = unique("static");
    const SubscribeOptions options{.group_id = unique("g"), .enable_auto_commit = false};
    for (int i = 1; i <= 3; ++i) co_await older.publish(topic, Value(i), {.key = "k"});
    auto first = co_await older.subscribe(topic, options);
    const auto message = *co_await first.next();
    auto second = co_await newer.subscribe(topic, options);
    co_await second.next();
    const auto began = clock->now();
    for (int tries = 0; tries < 2; ++tries) {
      const auto failure = co_await failure_of([](Subscription& of) -> awaitable<void> { co_await of.commit(); }(first));
      EXPECT_EQ(failure.reason(), errc::closed) << failure.what();
      EXPECT_THAT(failure.what(), ::testing::HasSubstr("group_instance_id"));
    }
    const auto relay = [&](Transaction& transaction) -> awaitable<void> {
      transaction.acknowledge(first, message);
      co_return;
    };
    EXPECT_EQ((co_await failure_of(older.transaction(relay))).reason(), errc::closed);
    co_await first.close();
    EXPECT_LT(clock->now() - began, 8s);
    co_await older.disconnect();
    co_await newer.disconnect();
  });
}

TEST_F(KafkaBehaviour, AConsumerThatWasTakenOverEndsAtOnce) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto settings = config({{"group_instance_id", "one"}, {"session_timeout", 6000}});
    MessageBroker older(context.get_executor(), settings);
    MessageBroker newer(context.get_executor(), settings);
    const auto clock = Clock::real();
    const auto topic = unique("static");
    const auto group = unique("g");
    for (int i = 0; i < 300; ++i) co_await older.publish(topic, Value(i), {.confirm = false});
    co_await older.flush();
    EventConsumer consumer(older, {.group_id = group});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> { co_await sleep_for(*clock, 100ms); });
    std::exception_ptr error;
    bool ended = false;
    boost::asio::co_spawn(context, consumer.start(), [&](std::exception_ptr why) {
      error = why;
      ended = true;
    });
    while (consumer.counts().handled == 0) co_await sleep_for(*clock, 10ms);
    auto second = co_await newer.subscribe(topic, {.group_id = group});
    const auto began = clock->now();
    while (!ended && clock->now() - began < 40s) co_await sleep_for(*clock, 10ms);
    EXPECT_LT(clock->now() - began, 8s);
    EXPECT_EQ((co_await failure_of([](std::exception_ptr what) -> awaitable<void> {
                if (what) std::rethrow_exception(what);
                co_return;
              }(error))).reason(),
              errc::closed);
    co_await older.disconnect();
    co_await newer.disconnect();
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
    // However often it tries, and subscribing neither brings it back.
    for (int i = 0; i < 3; ++i) {
      const auto failure = co_await failure_of(publish(zombie, 3));
      EXPECT_EQ(failure.reason(), errc::closed) << failure.what();
      EXPECT_FALSE(failure.retriable());
      EXPECT_THAT(failure.what(), ::testing::HasSubstr(id));
      co_await publish(successor, 4 + i);
      co_await (co_await zombie.subscribe(topic, {.group_id = unique("g")})).close();
    }
    auto reader = co_await successor.subscribe(topic);
    for (const int expected : {1, 2, 4, 5, 6}) EXPECT_EQ((co_await reader.next())->value(), expected);
    co_await successor.disconnect();
    co_await zombie.disconnect();
  });
}

// What the broker alone can tell.
TEST_F(KafkaBehaviour, ATransactionThatTheBrokerWillNeverTakeSaysWhy) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("refused");
    co_await broker.administration().create_topic(
        topic, {.partitions = 1, .configuration = {{"max.message.bytes", "2000"}, {"message.timestamp.before.max.ms", "3600000"}}});
    const auto clock = Clock::real();
    const auto attempt = [&](OutgoingMessage bad) -> awaitable<void> {
      bad.topic = topic;
      co_await broker.transaction([&](Transaction& transaction) -> awaitable<void> {
        transaction.publish(topic, Value("with it"));
        transaction.publish(bad);
        transaction.publish(topic, Value("behind it"));
        co_return;
      });
    };
    const auto now = clock->wall();
    for (const auto& [bad, reason] : {std::pair(OutgoingMessage{.payload = Payload(std::string(9000, 'x'))}, errc::message_too_large),
                                      std::pair(OutgoingMessage{.payload = Payload("1"), .partition = 7}, errc::invalid_argument),
                                      std::pair(OutgoingMessage{.payload = Payload("1"), .timestamp = now - 24h}, errc::invalid_argument),
                                      std::pair(OutgoingMessage{.payload = Payload("1"), .timestamp = Timestamp{}}, errc::invalid_argument)}) {
      const auto began = clock->now();
      const auto failure = co_await failure_of(attempt(bad));
      EXPECT_EQ(failure.reason(), reason) << failure.what();
      EXPECT_FALSE(failure.retriable());
      EXPECT_THAT(failure.what(), ::testing::HasSubstr("transaction was aborted"));
      EXPECT_LT(clock->now() - began, 5s);
      co_await broker.transaction([&](Transaction& transaction) -> awaitable<void> {
        transaction.publish(topic, Value("after"));
        co_return;
      });
    }
    auto reader = co_await broker.subscribe(topic);
    for (int i = 0; i < 4; ++i) EXPECT_EQ((co_await reader.next())->value(), "after");
    co_await broker.disconnect();
  });
}

// The transaction is under way when the signal cancels what waits for it.
TEST_F(KafkaBehaviour, ASignalLetsATransactionEndBeforeRunReturns) {
  const auto topic = unique("signalled");
  bool cancelled = false;
  const auto work = [](MessagingConfig made, std::string to, bool& told) -> awaitable<void> {
    MessageBroker broker(co_await boost::asio::this_coro::executor, std::move(made));
    const auto publish = [&](int number) {
      return broker.transaction([&to, number](Transaction& transaction) -> awaitable<void> {
        transaction.publish(to, Value(number), "k");
        if (number == 2) std::raise(SIGTERM);
        co_return;
      });
    };
    co_await publish(1);
    try {
      co_await publish(2);
    } catch (const boost::system::system_error& error) {
      told = error.code() == boost::asio::error::operation_aborted;
    }
  };
  EXPECT_EQ(run(work(config(), topic, cancelled)), EXIT_SUCCESS);
  EXPECT_TRUE(cancelled);
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    EXPECT_EQ((co_await broker.administration().describe_topic(topic)).messages, 4) << "two, and the marker of each";
    auto reader = co_await broker.subscribe(topic);
    for (const int expected : {1, 2}) EXPECT_EQ((co_await reader.next())->value(), expected);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, ALoopMayEndInTheMiddleOfATransaction) {
  const auto topic = unique("abandoned");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    bool begun = false;
    const auto publish = [&](int number) -> awaitable<void> {
      co_await broker.transaction([&](Transaction& transaction) -> awaitable<void> {
        transaction.publish(topic, Value(number), "k");
        begun = number == 2;
        co_return;
      });
    };
    co_await publish(1);
    boost::asio::co_spawn(context, publish(2), boost::asio::detached);
    for (int turns = 0; turns < 10; turns += begun) co_await boost::asio::post(context, boost::asio::use_awaitable);
  });
  // It ends after its loop, where nobody hears of it.
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    auto reader = co_await broker.subscribe(topic);
    for (const int expected : {1, 2}) EXPECT_EQ((co_await reader.next())->value(), expected);
    co_await broker.disconnect();
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

// Half of fetch_buffer_bytes is what handlers and their queues may hold.
TEST_F(KafkaBehaviour, LargeMessagesAreTakenWhileThereIsRoomForTheirBytes) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker broker(context.get_executor(), config({{"fetch_buffer_bytes", 2'097'152}}));
    const auto topic = unique("large");
    constexpr int count = 60;
    for (int i = 0; i < count; ++i) co_await broker.publish(topic, Value(std::string(100'000, 'x')));
    EventConsumer consumer(broker, {.group_id = unique("g"), .concurrency = 1});
    bool stuck = true;
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      while (stuck) co_await sleep_for(*clock, 5ms);
    });
    bool ended = false;
    boost::asio::co_spawn(context, consumer.start(), [&](std::exception_ptr) { ended = true; });
    for (std::uint64_t before = 0; before == 0 || before != consumer.counts().received;) {
      before = consumer.counts().received;
      co_await sleep_for(*clock, 1s);
    }
    EXPECT_GE(consumer.counts().received, 10U);
    EXPECT_LE(consumer.counts().received, 12U);
    stuck = false;
    const auto deadline = clock->now() + 20s;
    while (consumer.counts().handled < count && clock->now() < deadline) co_await sleep_for(*clock, 5ms);
    EXPECT_EQ(consumer.counts().handled, static_cast<std::uint64_t>(count));
    consumer.stop();
    while (!ended) co_await sleep_for(*clock, 10ms);
    co_await broker.disconnect();
  });
}

/// Numbers from `from` on.
awaitable<void> publish_numbers(MessageBroker& broker, const std::string& topic, int from, std::size_t count,
                                std::size_t size = 0, int partition = 0) {
  std::vector<OutgoingMessage> messages(count);
  for (std::size_t i = 0; i < count; ++i) {
    auto& message = messages[i];
    message.topic = topic;
    message.partition = partition;
    message.payload = Payload(fmt::format("{} {:x>{}}", from + static_cast<int>(i), "", size));
  }
  for (const auto& result : co_await broker.publish_many(std::move(messages)))
    EXPECT_TRUE(result.ok()) << result.detail;
}

/// As many to each partition, numbered on from one to the next.
awaitable<void> publish_to_each(MessageBroker& broker, const std::string& topic, int partitions, int from, std::size_t each) {
  for (int partition = 0; partition < partitions; ++partition)
    co_await publish_numbers(broker, topic, from + partition * static_cast<int>(each), each, 0, partition);
}

int number_in(const Message& message) {
  return std::stoi(std::string(message.body().substr(0, message.body().find(' '))));
}

/// Reads numbers until there are `count` different ones that are `from` or more; gives up when none comes for long.
awaitable<std::set<int>> read_numbers(boost::asio::io_context& context, Subscription& reader, int from,
                                      std::size_t count) {
  boost::asio::steady_timer patience(context);
  std::set<int> seen;
  while (seen.size() < count) {
    patience.expires_after(30s);
    patience.async_wait([&](boost::system::error_code error) {
      if (!error) boost::asio::co_spawn(context, reader.close(), boost::asio::detached);
    });
    const auto message = co_await reader.next();
    if (!message) break;
    if (const auto number = number_in(*message); number >= from) seen.insert(number);
  }
  co_return seen;
}

// The new log is longer than the old one at once, so that the old position is in it.
TEST_F(KafkaBehaviour, ATopicThatWasMadeAgainIsReadFromItsBeginning) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    for (const bool in_group : {true, false}) {
      const auto topic = unique("again");
      const auto group = unique("g");
      co_await publish_numbers(broker, topic, 0, 5);
      SubscribeOptions options;
      if (in_group) options.group_id = group;
      auto reader = co_await broker.subscribe(topic, options);
      for (int i = 0; i < 5; ++i) EXPECT_EQ(number_in(*co_await reader.next()), i);
      co_await reader.commit();
      constexpr std::size_t count = 500;
      co_await broker.administration().delete_topic(topic);
      co_await publish_numbers(broker, topic, 100, count);
      EXPECT_EQ((co_await read_numbers(context, reader, 100, count)).size(), count)
          << (in_group ? "in a group" : "without a group");
      co_await reader.close();
    }
    co_await broker.disconnect();
  });
}

// One partition tells that the topic is gone; the others are not read any more, and say nothing.
TEST_F(KafkaBehaviour, EveryPartitionOfATopicThatWasGoneForSecondsIsReadFromItsBeginning) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker broker(context.get_executor(), config());
    constexpr int partitions = 6;
    constexpr std::size_t each = 300;
    const auto topic = unique("gone");
    const auto publish = [&](int from) -> awaitable<void> {
      co_await broker.administration().create_topic(topic, {.partitions = partitions});
      co_await publish_to_each(broker, topic, partitions, from, each);
    };
    co_await publish(0);
    auto alone = co_await broker.subscribe(topic);
    auto member = co_await broker.subscribe(topic, {.group_id = unique("g")});
    EXPECT_EQ((co_await read_numbers(context, alone, 0, partitions * each)).size(), partitions * each);
    EXPECT_EQ((co_await read_numbers(context, member, 0, partitions * each)).size(), partitions * each);
    co_await broker.administration().delete_topic(topic);
    co_await sleep_for(*clock, 3s);
    co_await publish(10'000);
    EXPECT_EQ((co_await read_numbers(context, alone, 10'000, partitions * each)).size(), partitions * each) << "without a group";
    EXPECT_EQ((co_await read_numbers(context, member, 10'000, partitions * each)).size(), partitions * each) << "in a group";
    co_await broker.disconnect();
  });
}

// One answer says that some partitions do not have the old place, and brings what the others have behind it.
TEST_F(KafkaBehaviour, EveryPartitionOfATopicThatIsFilledAnewUnevenlyIsReadFromItsBeginning) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker broker(context.get_executor(), config());
    constexpr int partitions = 6;
    constexpr std::size_t each = 300;
    const auto topic = unique("filled");
    const auto create = [&] { return broker.administration().create_topic(topic, {.partitions = partitions}); };
    const auto publish = [&](int end, int from) { return publish_to_each(broker, topic, end, from, each); };
    co_await create();
    co_await publish(partitions, 0);
    auto alone = co_await broker.subscribe(topic);
    auto member = co_await broker.subscribe(topic, {.group_id = unique("g")});
    EXPECT_EQ((co_await read_numbers(context, alone, 0, partitions * each)).size(), partitions * each);
    EXPECT_EQ((co_await read_numbers(context, member, 0, partitions * each)).size(), partitions * each);
    co_await broker.administration().delete_topic(topic);
    co_await sleep_for(*clock, 700ms);
    co_await create();
    co_await publish(3, 10'000);
    co_await publish(3, 20'000);
    co_await sleep_for(*clock, 3s);
    co_await publish(partitions, 30'000);
    constexpr std::size_t count = (3 + 3 + partitions) * each;
    EXPECT_EQ((co_await read_numbers(context, alone, 10'000, count)).size(), count) << "without a group";
    EXPECT_EQ((co_await read_numbers(context, member, 10'000, count)).size(), count) << "in a group";
    co_await broker.disconnect();
  });
}

// What is asked while the group waits for its members to join is answered by the next generation, to which it says nothing.
TEST_F(KafkaBehaviour, ACommitWhileMembersJoinCostsNoPartition) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("joined");
    constexpr int partitions = 6;
    constexpr std::size_t each = 300;
    co_await broker.administration().create_topic(topic, {.partitions = partitions});
    co_await publish_to_each(broker, topic, partitions, 0, each);
    const SubscribeOptions options{.group_id = unique("g"), .enable_auto_commit = false};
    std::multiset<int> seen;
    int members = 0;
    const auto member = [&]() -> awaitable<void> {
      ++members;
      auto reader = co_await broker.subscribe(topic, options);
      const auto end = [&]() -> awaitable<void> {
        while (seen.size() < partitions * each) co_await sleep_for(*clock, 20ms);
        co_await reader.close();
      };
      boost::asio::co_spawn(context, end(), boost::asio::detached);
      while (const auto message = co_await reader.next()) {
        seen.insert(number_in(*message));
        co_await sleep_for(*clock, 5ms);
        try {
          co_await reader.commit();
        } catch (const MessagingError& failure) {
          if (failure.reason() != errc::closed) throw;  // by the end
        }
      }
      --members;
    };
    for (int i = 0; i < 4; ++i) {
      boost::asio::co_spawn(context, member(), [](std::exception_ptr error) {
        if (error) std::rethrow_exception(error);
      });
      co_await sleep_for(*clock, 700ms);
    }
    while (members > 0) co_await sleep_for(*clock, 20ms);
    EXPECT_EQ(std::set<int>(seen.begin(), seen.end()).size(), partitions * each) << "some came twice";
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, ATopicThatWasMadeAgainWhileNothingWasFetchedIsReadFromItsBeginning) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker broker(context.get_executor(), config({{"fetch_buffer_bytes", 1'048'576}}));
    const auto topic = unique("again");
    constexpr int old_count = 1000;
    co_await publish_numbers(broker, topic, 0, old_count, 2000);
    auto reader = co_await broker.subscribe(topic, {.group_id = unique("g")});
    EXPECT_EQ(number_in(*co_await reader.next()), 0);
    co_await sleep_for(*clock, 2s);  // more is there than may be fetched ahead
    co_await broker.administration().delete_topic(topic);
    constexpr std::size_t count = 2000;
    co_await publish_numbers(broker, topic, old_count, count, 10);
    EXPECT_EQ((co_await read_numbers(context, reader, old_count, count)).size(), count);
    co_await broker.disconnect();
  });
}

// What the first member was behind with is of the old log, and it gives a partition away before it has looked.
TEST_F(KafkaBehaviour, AMemberThatFetchesNothingHandsOnNoPlaceOfATopicThatWasMadeAgain) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    auto settings = config({{"fetch_buffer_bytes", 1'048'576}});
    settings.connection_config.insert_or_assign("rebalance_timeout", 2000);  // the first one keeps its last message
    MessageBroker broker(context.get_executor(), settings);
    const auto topic = unique("again");
    const SubscribeOptions options{.group_id = unique("g")};
    constexpr int old_count = 1000;
    co_await broker.administration().create_topic(topic, {.partitions = 2});
    for (const int partition : {0, 1}) co_await publish_numbers(broker, topic, 0, old_count, 2000, partition);
    auto first = co_await broker.subscribe(topic, options);
    for (int i = 0; i < old_count; ++i) co_await first.next();
    co_await first.commit();
    co_await sleep_for(*clock, 2s);  // more is there than may be fetched ahead
    co_await broker.administration().delete_topic(topic);
    co_await broker.administration().create_topic(topic, {.partitions = 2});
    constexpr std::size_t count = 4000;
    for (const int partition : {0, 1})
      co_await publish_numbers(broker, topic, old_count + partition * 2000, count / 2, 10, partition);
    for (int i = 0; i < 20; ++i) EXPECT_LT(number_in(*co_await first.next()), old_count);
    co_await first.commit();
    auto second = co_await broker.subscribe(topic, options);
    auto seen = co_await read_numbers(context, second, old_count, count / 2);
    seen.merge(co_await read_numbers(context, first, old_count, count / 2));
    EXPECT_EQ(seen.size(), count);
    co_await broker.disconnect();
  });
}

// Nothing is fetched while a rebalance waits for what was handed out: neither member hears of another topic.
TEST_F(KafkaBehaviour, ATopicThatWasMadeAgainDuringARebalanceIsReadFromItsBeginningByBothMembers) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("again");
    const SubscribeOptions options{.group_id = unique("g")};
    constexpr int old_count = 1000;
    co_await broker.administration().create_topic(topic, {.partitions = 2});
    for (const int partition : {0, 1}) co_await publish_numbers(broker, topic, 0, old_count, 10, partition);
    auto first = co_await broker.subscribe(topic, options);
    std::vector<Message> held;
    while (held.size() < 2 * old_count) {
      co_await sleep_for(*clock, 500ms);
      for (auto& message : co_await first.next_batch(2 * old_count)) held.push_back(std::move(message));
    }
    std::optional<Subscription> second;
    const auto join = [&]() -> awaitable<void> { second.emplace(co_await broker.subscribe(topic, options)); };
    boost::asio::co_spawn(context, join(), boost::asio::detached);
    co_await sleep_for(*clock, 4s);  // a partition is asked for
    co_await broker.administration().delete_topic(topic);
    co_await broker.administration().create_topic(topic, {.partitions = 2});
    constexpr std::size_t count = 4000;
    for (const int partition : {0, 1})
      co_await publish_numbers(broker, topic, old_count + partition * 2000, count / 2, 10, partition);
    held.clear();
    co_await first.commit();
    while (!second) co_await sleep_for(*clock, 10ms);
    auto seen = co_await read_numbers(context, *second, old_count, count / 2);
    seen.merge(co_await read_numbers(context, first, old_count, count / 2));
    EXPECT_EQ(seen.size(), count);
    co_await broker.disconnect();
  });
}

/// The place of a group in partition 0, as the broker keeps it; whoever asks is no member.
class GroupPlace {
 public:
  GroupPlace(const std::string& group, const std::string& topic) {
    auto* conf = rd_kafka_conf_new();
    const auto servers = std::string(server("kafka").url).substr(std::string_view("kafka://").size());
    for (const auto& [name, value] : {std::pair<const char*, const char*>{"bootstrap.servers", servers.c_str()}, {"group.id", group.c_str()}})
      rd_kafka_conf_set(conf, name, value, nullptr, 0);
    client_ = rd_kafka_new(RD_KAFKA_CONSUMER, conf, nullptr, 0);
    place_ = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(place_, topic.c_str(), 0);
  }
  ~GroupPlace() {
    rd_kafka_topic_partition_list_destroy(place_);
    rd_kafka_destroy(client_);
  }
  GroupPlace(const GroupPlace&) = delete;
  GroupPlace& operator=(const GroupPlace&) = delete;

  std::int64_t read() {
    EXPECT_EQ(rd_kafka_committed(client_, place_, 10'000), RD_KAFKA_RESP_ERR_NO_ERROR);
    return place_->elems[0].offset;
  }
  /// Of what was read.
  [[nodiscard]] std::string_view metadata() const {
    const auto& place = place_->elems[0];
    return {static_cast<const char*>(place.metadata), place.metadata_size};
  }
  /// Commits what was read, with its metadata.
  void write() { EXPECT_EQ(rd_kafka_commit(client_, place_, 0), RD_KAFKA_RESP_ERR_NO_ERROR); }

 private:
  rd_kafka_t* client_;
  rd_kafka_topic_partition_list_t* place_;
};

/// Publishes and reads 0 to 99; the group's member leaves with all of it settled.
awaitable<void> settle_a_hundred(boost::asio::io_context& context, MessageBroker& broker, const std::string& topic,
                                 const SubscribeOptions& options) {
  co_await publish_numbers(broker, topic, 0, 100);
  auto reader = co_await broker.subscribe(topic, options);
  EXPECT_EQ((co_await read_numbers(context, reader, 0, 100)).size(), 100U);
  co_await reader.commit();
  co_await reader.close();
}

// librdkafka keeps metadata with a stored place since 2.2; before, only what we commit by ourselves has it.
TEST_F(KafkaBehaviour, APlaceThatIsCommittedOnAPeriodHasItsLandmarkWhereLibrdkafkaKeepsIt) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto clock = Clock::real();
    const auto topic = unique("periodic");
    const SubscribeOptions options{.group_id = unique("g")};
    auto reader = co_await broker.subscribe(topic, options);
    for (const int first : {0, 100}) {
      co_await publish_numbers(broker, topic, first, 100);
      EXPECT_EQ((co_await read_numbers(context, reader, first, 100)).size(), 100U);
    }
    GroupPlace place(*options.group_id, topic);
    for (const auto until = clock->now() + 20s; place.read() < 199 && clock->now() < until;) co_await sleep_for(*clock, 100ms);
    EXPECT_EQ(place.read(), 199);
    constexpr int keeps_it = 0x020200ff;
    EXPECT_EQ(place.metadata().starts_with("maestro-landmark:199,"), rd_kafka_version() >= keeps_it) << place.metadata();
    co_await broker.disconnect();
  });
}

// As if the topic had been deleted and made again just before a member committed, and died.
TEST_F(KafkaBehaviour, APlaceOfAnotherLogIsNotGoneOnFrom) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("again");
    const SubscribeOptions options{.group_id = unique("g")};
    co_await settle_a_hundred(context, broker, topic, options);
    GroupPlace place(*options.group_id, topic);
    EXPECT_EQ(place.read(), 100);
    co_await broker.administration().delete_topic(topic);
    constexpr std::size_t count = 300;
    co_await publish_numbers(broker, topic, 1000, count);
    place.write();
    auto next = co_await broker.subscribe(topic, options);
    EXPECT_EQ((co_await read_numbers(context, next, 0, count)).size(), count);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBehaviour, AReaderGoesOnWhereTheMessageBeforeItsPlaceIsGone) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto topic = unique("trimmed");
    const SubscribeOptions options{.group_id = unique("g")};
    co_await settle_a_hundred(context, broker, topic, options);
    co_await broker.administration().purge_topic(topic);
    auto next = co_await broker.subscribe(topic, options);
    co_await publish_numbers(broker, topic, 1000, 10);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(number_in(*co_await next.next()), 1000 + i);
    co_await broker.disconnect();
  });
}

}  // namespace
}  // namespace maestro::messaging::testing

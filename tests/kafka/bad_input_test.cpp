#include <random>

#include "runtime/notifier.hpp"
#include "support/real_time.hpp"

namespace maestro::messaging::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class KafkaBadInput : public ::testing::Test {
 protected:
  MessagingConfig config() const { return MessagingConfig::from_url(server("kafka").url); }
  std::string topic() const { return fmt::format("bad-input.{:08x}", std::random_device{}()); }
};

TEST_F(KafkaBadInput, AMessageOverTheTopicsLimitFailsAlone) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    co_await broker.connect();
    const auto name = topic();
    co_await broker.administration().create_topic(name,
                                                  {.partitions = 1, .configuration = {{"max.message.bytes", "2000"}}});
    std::vector<OutgoingMessage> messages(3);
    for (auto& message : messages) message.topic = name;
    messages[0].payload = Payload(std::string("first"));
    messages[1].payload = Payload(std::string(5000, 'x'));
    messages[2].payload = Payload(std::string("third"));
    // Apart, for Kafka refuses a whole batch.
    for (auto& message : messages) {
      const bool large = message.payload.size() > 2000;
      const auto publish = [&]() -> awaitable<void> { co_await broker.publish(std::move(message)); };
      if (!large) {
        co_await publish();
        continue;
      }
      const auto failure = co_await failure_of(publish());
      EXPECT_EQ(failure.reason(), errc::message_too_large) << failure.what();
      EXPECT_THAT(failure.what(), HasSubstr("max.message.bytes"));
    }
    auto reader = co_await broker.subscribe(name);
    EXPECT_EQ((co_await reader.next())->body(), "first");
    EXPECT_EQ((co_await reader.next())->body(), "third");
    co_await broker.disconnect();
  });
}

// Kafka refuses a batch as a whole, and the client's usual ones are larger than this topic's limit.
class KafkaSmallLimit : public KafkaBadInput {
 protected:
  static constexpr std::size_t count = 50;
  static constexpr std::size_t large = 21;  // this one's index, where one is over the limit

  awaitable<std::string> small_topic(MessageBroker& broker) const {
    auto name = topic();
    co_await broker.connect();
    co_await broker.administration().create_topic(name,
                                                  {.partitions = 1, .configuration = {{"max.message.bytes", "10000"}}});
    co_return name;
  }
  static std::string body(std::size_t i) { return fmt::format("{:04}{:x>{}}", i, "", i == large ? 20'000 : 1000); }
  static std::vector<OutgoingMessage> messages(const std::string& topic, bool with_large = false) {
    std::vector<OutgoingMessage> made(count);
    for (std::size_t i = 0; i < count; ++i) {
      made[i].topic = topic;
      made[i].key = "k";
      made[i].payload = Payload(body(i == large && !with_large ? 0 : i));
    }
    return made;
  }
  static awaitable<void> expect_in_order(MessageBroker& broker, const std::string& topic,
                                         const std::vector<std::string>& bodies) {
    const auto stored = (co_await broker.administration().describe_topic(topic)).messages;
    EXPECT_EQ(stored, static_cast<std::int64_t>(bodies.size()));
    auto reader = co_await broker.subscribe(topic);
    for (std::int64_t i = 0; i < stored; ++i)
      EXPECT_EQ((co_await reader.next())->body(), bodies.at(static_cast<std::size_t>(i)));
  }
  static std::vector<std::string> bodies(const std::vector<OutgoingMessage>& messages) {
    std::vector<std::string> made;
    for (const auto& each : messages) made.emplace_back(each.payload.view());
    return made;
  }
};

TEST_F(KafkaSmallLimit, TakesManyMessagesTogether) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto name = co_await small_topic(broker);
    auto given = messages(name);
    const auto sent = bodies(given);
    for (const auto& result : co_await broker.publish_many(std::move(given))) EXPECT_TRUE(result.ok()) << result.detail;
    co_await expect_in_order(broker, name, sent);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaSmallLimit, TakesManyMessagesFromTheBuffer) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto name = co_await small_topic(broker);
    const auto sent = bodies(messages(name));
    for (const auto& each : sent) co_await broker.publish(name, Payload(each), {.key = "k", .confirm = false});
    const auto report = co_await broker.flush();
    EXPECT_EQ(report.confirmed, count);
    EXPECT_TRUE(report.failures.empty());
    co_await expect_in_order(broker, name, sent);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaSmallLimit, TakesManyPublishesAtOnce) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto name = co_await small_topic(broker);
    const auto sent = bodies(messages(name));
    std::size_t ended = 0;
    Notifier all(*broker.clock(), context.get_executor());
    for (const auto& each : sent)
      boost::asio::co_spawn(context, broker.publish(name, Payload(each), {.key = "k"}),
                            [&](std::exception_ptr error, const Receipt&) {
                              EXPECT_FALSE(error);
                              if (++ended == count) all.notify();
                            });
    while (ended < count) co_await all.wait();
    co_await expect_in_order(broker, name, sent);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaSmallLimit, TakesManyMessagesInATransaction) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto name = co_await small_topic(broker);
    const auto sent = bodies(messages(name));
    co_await broker.transaction([&](Transaction& transaction) -> awaitable<void> {
      for (auto& each : messages(name)) transaction.publish(std::move(each));
      co_return;
    });
    auto reader = co_await broker.subscribe(name);
    for (const auto& each : sent) EXPECT_EQ((co_await reader.next())->body(), each);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaSmallLimit, OneMessageOverItHarmsNoneBesideIt) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto name = co_await small_topic(broker);
    auto given = messages(name, true);
    auto sent = bodies(given);
    const auto results = co_await broker.publish_many(std::move(given));
    for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(results[i].ok(), i != large) << i << ": " << results[i].detail;
    EXPECT_EQ(results[large].error, errc::message_too_large);
    for (const auto& each : sent) co_await broker.publish(name, Payload(each), {.key = "k", .confirm = false});
    const auto report = co_await broker.flush();
    EXPECT_EQ(report.confirmed, count - 1);
    EXPECT_EQ(report.failures.size(), 1U);
    EXPECT_EQ(report.failures.at(0).message.payload.view(), sent[large]);
    sent.erase(sent.begin() + large);
    const auto once = sent;
    sent.insert(sent.end(), once.begin(), once.end());
    co_await expect_in_order(broker, name, sent);
    co_await broker.disconnect();
  });
}

// For who may not read a topic's settings: the client that all topics share.
TEST_F(KafkaSmallLimit, IsKeptByABatchSizeOfTheUsers) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto given = config();
    given.producer_config = {{"raw.batch.size", "10000"}};
    MessageBroker broker(context.get_executor(), given);
    const auto name = co_await small_topic(broker);
    for (const auto& result : co_await broker.publish_many(messages(name))) EXPECT_TRUE(result.ok()) << result.detail;
    co_await broker.disconnect();
  });
}

TEST_F(KafkaSmallLimit, OfATopicThatWasMadeAgainIsHeeded) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto name = topic();
    co_await broker.publish(name, Value("to a topic without a limit of its own"));
    co_await broker.administration().delete_topic(name);
    co_await broker.administration().create_topic(name,
                                                  {.partitions = 1, .configuration = {{"max.message.bytes", "10000"}}});
    for (const auto& result : co_await broker.publish_many(messages(name))) EXPECT_TRUE(result.ok()) << result.detail;
    co_await broker.disconnect();
  });
}

// Only the client has kept it, and so it is made anew from what the client says of it.
TEST_F(KafkaBadInput, ABufferedMessageThatIsRefusedComesBackAsItWas) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    co_await broker.connect();
    const auto name = topic();
    co_await broker.administration().create_topic(name,
                                                  {.partitions = 2, .configuration = {{"max.message.bytes", "2000"}}});
    co_await broker.publish(name, Value("there"));
    const std::string large(5000, 'x');
    Headers headers;
    headers.add("tenant", "eu");
    headers.add("tenant", "");
    const Timestamp time(std::chrono::milliseconds(1'700'000'000'123));
    co_await broker.publish(name, Payload(large), {.key = "k", .headers = headers, .timestamp = time, .confirm = false});
    EXPECT_EQ((co_await broker.flush()).failures.size(), 1U);
    co_await broker.publish(name, Payload(large), {.headers = headers, .partition = 1, .timestamp = time, .confirm = false});
    auto report = co_await broker.flush();
    EXPECT_EQ(report.confirmed, 0U);
    EXPECT_EQ(report.failures.size(), 1U);
    const auto& failure = report.failures.at(0);
    EXPECT_EQ(failure.error, errc::message_too_large) << failure.detail;
    EXPECT_EQ(failure.message.topic, name);
    EXPECT_EQ(failure.message.payload.view(), large);
    EXPECT_FALSE(failure.message.key);
    EXPECT_EQ(failure.message.headers.view().block(), headers.view().block());
    EXPECT_EQ(failure.message.partition, 1);
    EXPECT_EQ(failure.message.timestamp, time);
    co_await broker.publish(name, Payload(large), {.key = "k", .confirm = false});
    report = co_await broker.flush();
    EXPECT_EQ(report.failures.at(0).message.key, "k");
    EXPECT_FALSE(report.failures.at(0).message.partition) << "the sender left it open";
    EXPECT_FALSE(report.failures.at(0).message.timestamp);
    EXPECT_TRUE(report.failures.at(0).message.headers.empty());
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBadInput, AMissingTopicWhereNoneMayBeMade) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto given = config();
    given.connection_config.insert_or_assign("auto_create_topics", false);
    MessageBroker broker(context.get_executor(), given);
    const auto name = topic();
    const auto publish = [&]() -> awaitable<void> { co_await broker.publish(name, Value(1)); };
    const auto began = Clock::real()->now();
    const auto failure = co_await failure_of(publish());
    EXPECT_LT(Clock::real()->now() - began, std::chrono::seconds(10)) << "not after all of publish_timeout";
    EXPECT_EQ(failure.reason(), errc::topic_not_found) << failure.what();
    EXPECT_THAT(failure.what(), HasSubstr(name));
    EXPECT_THAT(failure.what(), HasSubstr("auto_create_topics"));
    co_await broker.disconnect();
  });
}

// librdkafka takes it for "now".
TEST_F(KafkaBadInput, TheBeginningOfTimeIsRefused) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto name = topic();
    for (const auto time : {Timestamp{}, Timestamp(std::chrono::milliseconds(-5))}) {
      const auto publish = [&]() -> awaitable<void> { co_await broker.publish(name, Value(1), {.timestamp = time}); };
      const auto failure = co_await failure_of(publish());
      EXPECT_EQ(failure.reason(), errc::invalid_argument) << failure.what();
      EXPECT_THAT(failure.what(), HasSubstr("after 1970-01-01"));
      EXPECT_THAT(failure.what(), ::testing::Not(HasSubstr("Broker:"))) << "it was not asked";
    }
    const auto receipt =
        co_await broker.publish(name, Value(1), {.timestamp = Timestamp(std::chrono::milliseconds(1))});
    EXPECT_EQ(receipt.timestamp, Timestamp(std::chrono::milliseconds(1)));
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBadInput, ANameThatKafkaRefuses) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    for (const auto& name : {std::string(250, 'x'), std::string("ä")}) {
      const auto publish = [&]() -> awaitable<void> { co_await broker.publish(name, Value(1)); };
      EXPECT_EQ((co_await failure_of(publish())).reason(), errc::invalid_topic);
      const auto subscribe = [&]() -> awaitable<void> { co_await broker.subscribe(name); };
      EXPECT_EQ((co_await failure_of(subscribe())).reason(), errc::invalid_topic);
    }
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBadInput, APropertyThatLibrdkafkaDoesNotKnowOrTake) {
  boost::asio::io_context context;
  const auto failure = [&](const char* name, const char* value) {
    auto given = config();
    given.connection_config.insert_or_assign(name, value);
    try {
      MessageBroker broker(context.get_executor(), given);
    } catch (const MessagingError& thrown) {
      return thrown;
    }
    ADD_FAILURE() << name << " was taken";
    return MessagingError(errc::broker_error, "");
  };
  EXPECT_EQ(failure("raw.no.such.property", "1").reason(), errc::unknown_option);
  EXPECT_THAT(failure("raw.no.such.property", "1").what(), HasSubstr("raw.no.such.property"));
  EXPECT_EQ(failure("raw.socket.timeout.ms", "soon").reason(), errc::invalid_option);
  EXPECT_THAT(failure("raw.socket.timeout.ms", "soon").what(), HasSubstr("raw.socket.timeout.ms"));
}

TEST_F(KafkaBadInput, ATopicsSettingThatKafkaDoesNotTake) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    co_await broker.connect();
    const auto failure = co_await failure_of(
        broker.administration().create_topic(topic(), {.configuration = {{"retention.ms", "tomorrow"}}}));
    EXPECT_EQ(failure.reason(), errc::invalid_argument) << failure.what();
    EXPECT_THAT(failure.what(), HasSubstr("retention.ms"));
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBadInput, APartitionThatIsNotThere) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto name = topic();
    co_await broker.publish(name, Value(1));
    const auto publish = [&]() -> awaitable<void> { co_await broker.publish(name, Value(2), {.partition = 99}); };
    const auto failure = co_await failure_of(publish());
    EXPECT_EQ(failure.reason(), errc::invalid_argument) << failure.what();
    EXPECT_THAT(failure.what(), HasSubstr("99"));
    co_await broker.disconnect();
  });
}

TEST_F(KafkaBadInput, ATopicThatIsNotThereIsWaitedForAndSaid) {
  for (const bool in_group : {false, true}) {
    run_real([&](boost::asio::io_context& context) -> awaitable<void> {
      auto given = config();
      given.connection_config.insert_or_assign("auto_create_topics", false);
      MessageBroker broker(context.get_executor(), given);
      const auto name = topic();
      int warnings = 0;
      set_log_level(LogLevel::warning);
      set_log_sink([&](const LogRecord&) { ++warnings; });
      SubscribeOptions options;
      if (in_group) options.group_id = name;
      boost::asio::co_spawn(
          context,
          [&]() -> awaitable<void> {
            co_await sleep_for(*broker.clock(), 2s);
            MessageBroker other(context.get_executor(), config());
            co_await other.publish(name, Value("there"));
            co_await other.disconnect();
          },
          boost::asio::detached);
      auto reader = co_await broker.subscribe(name, options);
      EXPECT_EQ((co_await reader.next())->value(), "there");
      set_log_sink(make_log_sink(LogFormat::text));
      set_log_level(LogLevel::off);
      EXPECT_GE(warnings, 1) << (in_group ? "in a group" : "by a private reader");
      co_await broker.disconnect();
    });
  }
}

TEST_F(KafkaBadInput, ASessionTimeoutThatTheBrokerRefuses) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto given = config();
    given.consumer_config.insert_or_assign("session_timeout", 1000);
    MessageBroker broker(context.get_executor(), given);
    const auto name = topic();
    co_await broker.publish(name, Value(1));
    const auto began = broker.clock()->now();
    const auto subscribe = [&]() -> awaitable<void> { co_await broker.subscribe(name, {.group_id = "g"}); };
    const auto failure = co_await failure_of(subscribe());
    EXPECT_EQ(failure.reason(), errc::invalid_option) << failure.what();
    EXPECT_THAT(failure.what(), HasSubstr("group.min.session.timeout.ms"));
    co_await broker.disconnect();
    EXPECT_LT(broker.clock()->now() - began, 5s);
  });
}

TEST_F(KafkaBadInput, ABrokerThatIsTooOld) {
  const auto old = server("kafka --variant old");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), MessagingConfig::from_url(old.url));
    const auto publish = [&]() -> awaitable<void> { co_await broker.publish(topic(), Value(1)); };
    for (int i = 0; i < 2; ++i) {
      const auto failure = co_await failure_of(publish());
      EXPECT_EQ(failure.reason(), errc::unsupported) << failure.what();
      const auto address = old.url.substr(std::string("kafka://").size());
      EXPECT_THAT(failure.what(),
                  HasSubstr("Kafka at " + address + " is older than 2.8; allowed is Kafka 2.8 or newer"));
    }
    const auto subscribe = [&]() -> awaitable<void> { co_await broker.subscribe(topic(), {.group_id = "g"}); };
    EXPECT_EQ((co_await failure_of(subscribe())).reason(), errc::unsupported);
    co_await broker.disconnect();
  });
}

}  // namespace
}  // namespace maestro::messaging::testing

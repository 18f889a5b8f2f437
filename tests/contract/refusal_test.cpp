#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

/// What cannot be is refused by whoever is asked first, before anything runs.
class Refusal : public Contract {
 protected:
  template <class Work>
  static std::pair<boost::system::error_code, std::string> refused(Work work) {
    try {
      work();
    } catch (const MessagingError& error) {
      return {error.code(), error.detail()};
    }
    return {};
  }
  static EventHandler nothing() {
    return [](const Event&) -> awaitable<void> { co_return; };
  }
  static bool names(const std::string& text, std::string_view what) { return text.find(what) != std::string::npos; }
};

TEST_P(Refusal, OptionsOutOfRangeNameThemselves) {
  auto client = broker();
  const std::vector<std::pair<std::string, EventConsumerOptions>> cases{
      {"concurrency: 1000000000; allowed is 1 to 100000", {.concurrency = 1'000'000'000}},
      {"concurrency: 0", {.concurrency = 0}},
      {"prefetch: 0", {.prefetch = 0}},
      {"drain_timeout: -5 ms; allowed is 0 to 86400000 ms", {.drain_timeout = -5ms}},
      {"deduplication_lease: 0 ms", {.deduplication_lease = 0s}},
      {"deduplication_lease: -1000 ms", {.deduplication_lease = -1s}},
      {"deduplication_lease: 86400001 ms; allowed is 1 to 86400000 ms", {.deduplication_lease = 24h + 1ms}},
      {"max_retry_attempts: -1; allowed is 0 to 1000000", {.max_retry_attempts = -1}},
      {"backoff_multiplier: 101; allowed is 1 to 100", {.backoff_multiplier = 101}},
      {"max_backoff: 86400001 ms; allowed is 0 to 86400000 ms", {.max_backoff = 24h + 1ms}},
      {"initial_backoff: 5000 ms; allowed is max_backoff at most, and that is 1000 ms",
       {.initial_backoff = 5s, .max_backoff = 1s}},
      {"initial_backoff: 31000 ms; allowed is max_backoff at most, and that is 30000 ms", {.initial_backoff = 31s}},
      {"reset_timeout: 86400001 ms; allowed is 1 to 86400000 ms",
       {.circuit_breaker = CircuitBreakerOptions{.reset_timeout = 24h + 1ms}}},
      {"ordering: 9; allowed are key, partition, none", {.ordering = static_cast<Ordering>(9)}},
      {"auto_offset_reset: 7; allowed are earliest, latest", {.auto_offset_reset = static_cast<OffsetReset>(7)}},
      {"handler_executor: an empty one", {.handler_executor = boost::asio::any_io_executor()}}};
  for (const auto& [expected, options] : cases) {
    const auto [code, why] = refused([&] { EventConsumer consumer(client, options); });
    EXPECT_EQ(code, errc::invalid_option) << expected;
    EXPECT_TRUE(names(why, expected)) << why;
  }
  run([&]() -> awaitable<void> {
    EXPECT_EQ(co_await error_of(ignore(client.subscribe(unique(), {.prefetch = 0}))), errc::invalid_option);
    EXPECT_EQ(co_await error_of(ignore(client.subscribe(unique(), {.auto_offset_reset = static_cast<OffsetReset>(7)}))),
              errc::invalid_option);
  });
}

TEST_P(Refusal, GroupsThatCannotBePartOfATopic) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    for (const auto& bad :
         {std::string(), std::string("a b"), std::string("a\0b", 3), std::string("a\x01"), std::string("a\xff"),
          std::string(".a"), std::string("a."), std::string("a..b"), std::string("a.*"), std::string("a/b")}) {
      EXPECT_EQ(co_await error_of(ignore(client.subscribe(unique(), {.group_id = bad}))), errc::invalid_argument)
          << bad;
      EXPECT_EQ(refused([&] { EventConsumer consumer(client, {.group_id = bad}); }).first, errc::invalid_argument)
          << bad;
    }
  });
  for (const auto* option : {"client_id", "group_id"})
    for (const auto* bad : {"", "two words", "a.*"}) {
      const auto [code, why] = refused([&] { broker({{option, bad}}); });
      EXPECT_EQ(code, errc::invalid_option) << option << bad;
      EXPECT_TRUE(names(why, std::string(option) + " in connection_config: \"" + bad +
                                 "\"; allowed is name, what can be part of a topic"))
          << why;
    }
}

TEST_P(Refusal, ADeadLetterTopicThatCannotBe) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto start_of = [&](const std::string& topic, EventConsumerOptions options) -> awaitable<std::string> {
      EventConsumer consumer(client, std::move(options));
      consumer.subscribe(topic, nothing());
      consumer.stop();
      try {
        co_await consumer.start();
      } catch (const MessagingError& error) {
        EXPECT_EQ(error.reason(), errc::invalid_topic) << error.what();
        co_return error.detail();
      }
      ADD_FAILURE() << "it started";
      co_return "";
    };
    const std::string name(200, 't');
    const auto why = co_await start_of(name, {.group_id = std::string(60, 'g')});
    EXPECT_TRUE(names(why, "the dead letters of \"" + name)) << why;
    EXPECT_TRUE(names(why, ".dlq") || names(why, "265 bytes, at most 249")) << why;
    const auto pattern = co_await start_of(name + ".*", {.group_id = std::string(60, 'g')});
    EXPECT_TRUE(names(pattern, "267 bytes, at most 249")) << pattern;
    EventConsumer consumer(client, {.group_id = group("g")});
    EXPECT_EQ(refused([&] { consumer.subscribe(unique(), nothing()).on_error("not allowed"); }).first,
              errc::invalid_topic);
    EXPECT_EQ(refused([&] { consumer.subscribe(unique(), nothing()).on_error(std::string(250, 'x')); }).first,
              errc::invalid_topic);
  });
}

TEST_P(Refusal, TwoHandlersForOneTopic) {
  auto client = broker();
  EventConsumer consumer(client, {.group_id = group("g")});
  consumer.subscribe("orders.created", nothing());
  consumer.subscribe("refunds.>", nothing());
  for (const auto* again :
       {"orders.created", "orders.*", "orders.>", ">", "refunds.created", "refunds.*", "refunds.#", "*.created"}) {
    const auto [code, why] = refused([&] { consumer.subscribe(again, nothing()); });
    EXPECT_EQ(code, errc::invalid_argument) << again;
    EXPECT_TRUE(names(why, "has a handler for")) << why;
  }
  consumer.subscribe("orders.created.late", nothing());
  consumer.subscribe("invoices.*", nothing());
  consumer.subscribe("*.sent", nothing());
}

TEST_P(Refusal, AdministrationTakesNoPatternAndNoBadName) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    auto& topics = client.administration();
    for (const auto* bad : {"c.*", "c.>", "", "a b", "a..b"}) {
      EXPECT_EQ(co_await error_of(topics.create_topic(bad, {})), errc::invalid_topic) << bad;
      EXPECT_EQ(co_await error_of(ignore(topics.describe_topic(bad))), errc::invalid_topic) << bad;
      EXPECT_EQ(co_await error_of(topics.delete_topic(bad)), errc::invalid_topic) << bad;
      EXPECT_EQ(co_await error_of(ignore(topics.purge_topic(bad))), errc::invalid_topic) << bad;
    }
  });
}

TEST_P(Refusal, ATransactionWithoutABody) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    EXPECT_EQ(co_await error_of(client.transaction(nullptr)), errc::invalid_argument);
  });
}

TEST_P(Refusal, ASeekInATopicThatIsNotReadOrNotThere) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto other = unique("other");
    co_await client.publish(topic, Value(1));
    co_await client.publish(other, Value(1));
    for (const bool grouped : {true, false}) {
      SubscribeOptions options;
      if (grouped) options.group_id = group("g");
      auto reader = co_await client.subscribe(topic, options);
      const auto began = clock_->now();
      EXPECT_EQ(co_await error_of(reader.seek(other, 0, 0)), errc::invalid_argument);
      EXPECT_EQ(co_await error_of(reader.seek(other, 0, clock_->wall())), errc::invalid_argument);
      if (client.capabilities().partitions) {
        EXPECT_EQ(co_await error_of(reader.seek(topic, 99, 0)), errc::invalid_argument);
        EXPECT_EQ(co_await error_of(reader.seek(topic, 99, clock_->wall())), errc::invalid_argument);
      }
      EXPECT_LT(clock_->now() - began, 5s);
      EXPECT_EQ((co_await reader.next())->value(), 1) << "that changed nothing";
      co_await reader.close();
    }
    co_await client.disconnect();
  });
}

TEST_P(Refusal, PlacesAndCountsBelowZero) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    co_await client.publish(topic, Value(1));
    auto reader = co_await client.subscribe(topic);
    EXPECT_EQ(co_await error_of(reader.seek(topic, 0, -7)), errc::invalid_argument);
    EXPECT_EQ(co_await error_of(ignore(reader.next_batch(0))), errc::invalid_argument);
    EXPECT_EQ(refused([&] { (void)reader.try_next_batch(0); }).first, errc::invalid_argument);
    if (client.capabilities().release_with_delay) {
      auto member = co_await client.subscribe(topic, {.group_id = group("g")});
      const auto message = co_await member.next();
      for (const auto delay : {Duration(-1), Duration::max()})
        EXPECT_EQ(refused([&] { member.release(*message, delay); }).first, errc::invalid_argument);
      member.release(*message);
      EXPECT_EQ((co_await member.next())->body(), message->body()) << "the refused ones changed nothing";
    }
    DeadLetters console(client, topic);
    EXPECT_EQ(co_await error_of(ignore(console.replay({.max_replays = -1}))), errc::invalid_argument);
    EXPECT_EQ(co_await error_of(ignore(console.replay({.wait_for_others = -1ms}))), errc::invalid_argument);
    for (const double rate : {0.0, 1e-300, 1e300, std::numeric_limits<double>::quiet_NaN()})
      EXPECT_EQ(co_await error_of(ignore(console.replay({.per_second = rate}))), errc::invalid_argument) << rate;
    EXPECT_EQ(co_await error_of(ignore(console.replay({.dry_run = true, .per_second = 5}))), errc::invalid_argument);
    const DeadLetterFilter impossible{.reason = static_cast<DeadLetterReason>(9)};
    EXPECT_EQ(co_await error_of(ignore(console.replay({.filter = impossible}))), errc::invalid_option);
    EXPECT_EQ(co_await error_of(ignore(console.list(impossible))), errc::invalid_option);
  });
}

TEST_P(Refusal, EventsThatNobodyCouldTellApart) {
  auto client = broker();
  for (const auto* bad : {"", "a\nb", "\xff"}) {
    const auto [code, why] = refused([&] { EventPublisher publisher(client, {.source = bad}); });
    EXPECT_EQ(code, errc::invalid_option);
    EXPECT_TRUE(names(why, "source: \"")) << why;
  }
  EventPublisher publisher(client, {.source = "/orders"});
  for (const EventAttributes& bad : {EventAttributes{.id = ""}, {.source = ""}, {.type = ""}}) {
    const auto [code, why] = refused([&] { (void)publisher.make_message("orders", Value(1), {.attributes = bad}); });
    EXPECT_EQ(code, errc::invalid_argument);
    EXPECT_TRUE(names(why, "attributes.")) << why;
  }
  EXPECT_EQ(refused([&] { EventPublisher publisher(client, std::shared_ptr<Serializer>()); }).first,
            errc::invalid_argument);
}

MAESTRO_CONTRACT(Refusal);

class RefusalOfAnAddress : public Contract {};

TEST_P(RefusalOfAnAddress, AnotherBrokersUrlIsRefusedWithoutItsPassword) {
  try {
    MessageBroker broker(context_->get_executor(), BrokerType::memory, "kafka://u:hunter2@h:1");
    ADD_FAILURE() << "it was taken";
  } catch (const MessagingError& error) {
    EXPECT_EQ(error.reason(), errc::invalid_option);
    EXPECT_EQ(error.detail().find("hunter2"), std::string::npos) << error.detail();
    EXPECT_NE(error.detail().find("one of kafka, and this broker is memory"), std::string::npos) << error.detail();
  }
}

TEST_P(RefusalOfAnAddress, WhatIsNoBrokerAndWhatDoesNotRun) {
  const auto refused = [](auto work) {
    try {
      work();
    } catch (const MessagingError& error) {
      return error.detail();
    }
    return std::string();
  };
  EXPECT_EQ(refused([&] { MessageBroker(context_->get_executor(), static_cast<BrokerType>(9), "memory://x"); }),
            "broker_type: 9; allowed are memory, kafka, redis, rabbitmq, nats");
  EXPECT_EQ(refused([&] {
              MessageBroker(context_->get_executor(), BrokerType::memory, "memory://x?partitions=2&partitions=3");
            }),
            "partitions in memory://x?partitions=2&partitions=3: it is there twice");
  EXPECT_NE(refused([&] { MessageBroker(context_->get_executor(), BrokerType::memory, "memory://a\n"); }), "");
  EXPECT_EQ(refused([&] { MessageBroker({}, BrokerType::memory, "memory://x"); }).substr(0, 22),
            "executor: an empty one");
}

MAESTRO_CONTRACT_ON_MEMORY(RefusalOfAnAddress);

}  // namespace
}  // namespace maestro::messaging::testing

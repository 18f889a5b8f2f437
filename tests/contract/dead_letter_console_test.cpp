#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

class DeadLetterConsole : public Contract {
 protected:
  /// Dead letters of `topic` as a group of consumers would leave them.
  static awaitable<void> leave_letters(MessageBroker client, std::string topic, std::string dlq, int count) {
    std::vector<OutgoingMessage> letters;
    for (int i = 0; i < count; ++i) {
      const auto body = std::to_string(i);
      const Message failed({.topic = topic, .key = "k", .payload = body});
      letters.push_back(make_dead_letter(failed, dlq, "g", {.message = "letter " + body}));
    }
    for (const auto& result : co_await client.publish_many(std::move(letters))) EXPECT_TRUE(result.ok());
  }
};

// More letters than are fetched ahead, so that the purge takes some that were not read yet.
TEST_P(DeadLetterConsole, ListAndReplayEndWhenTheTopicIsPurgedMeanwhile) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = dead_letter_topic(topic, group("g"));
    DeadLetters console(client, dlq);
    const auto purged_while = [&](awaitable<void> work) -> awaitable<void> {
      bool ended = false;
      std::exception_ptr error;
      asio::co_spawn(*context_, std::move(work), [&](std::exception_ptr failure) {
        ended = true;
        error = failure;
      });
      for (int i = 0; i < 20; ++i) co_await asio::post(*context_, asio::use_awaitable);
      EXPECT_FALSE(ended) << "the purge comes too late to show anything";
      co_await console.purge();
      const auto began = clock_->now();
      co_await until([&] { return ended; });
      EXPECT_LT(clock_->now() - began, 5s);
      if (error) std::rethrow_exception(error);
    };
    co_await client.administration().create_topic(topic, {});  // for a purge may come before the first replay
    co_await leave_letters(client, topic, dlq, 3000);
    std::size_t listed = 0;
    const auto list = [&]() -> awaitable<void> { listed = (co_await console.list({}, 10'000)).size(); };
    co_await purged_while(list());
    EXPECT_LT(listed, 3000U);
    co_await leave_letters(client, topic, dlq, 3000);
    std::size_t replayed = 0;
    const auto replay = [&]() -> awaitable<void> { replayed = (co_await console.replay()).replayed; };
    co_await purged_while(replay());
    EXPECT_LT(replayed, 3000U);
    EXPECT_EQ((co_await client.administration().describe_topic(topic)).messages, static_cast<std::int64_t>(replayed));
  });
}

TEST_P(DeadLetterConsole, ADryRunCountsFromWhereTheReplayWouldGoOn) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = dead_letter_topic(topic, group("g"));
    DeadLetters console(client, dlq);
    co_await leave_letters(client, topic, dlq, 9);
    EXPECT_EQ((co_await console.replay({.dry_run = true})).replayed, 9U);
    EXPECT_EQ((co_await console.replay({.limit = 4})).replayed, 4U);
    for (int i = 0; i < 2; ++i)
      EXPECT_EQ((co_await console.replay({.dry_run = true})).replayed, 5U) << "and it leaves no trace";
    EXPECT_EQ((co_await console.replay()).replayed, 5U);
    EXPECT_EQ((co_await console.replay({.dry_run = true})).replayed, 0U);
  });
}

TEST_P(DeadLetterConsole, ShowGoesStraightToThePosition) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = dead_letter_topic(topic, group("g"));
    DeadLetters console(client, dlq);
    co_await leave_letters(client, topic, dlq, 2000);
    const auto all = co_await console.list({}, 2000);
    const auto partition = all.at(1234).message.position().partition;
    const auto last = all.back().message.position().offset;
    const auto before = (co_await client.get_status()).messages_received;
    const auto letter = co_await console.show(partition, all[1234].message.position().offset);
    EXPECT_TRUE(letter.has_value());
    EXPECT_EQ(letter->error_message, "letter 1234");
    EXPECT_EQ(letter->message.body(), "1234");
    EXPECT_LE((co_await client.get_status()).messages_received - before, 1U) << "it reads no other";
    const auto shown = co_await console.show(all[1234].message.position().to_string());
    EXPECT_EQ(shown->message.body(), "1234") << "as the list shows the place";
    EXPECT_EQ(co_await error_of(ignore(console.show("1/x"))), errc::invalid_argument);
    EXPECT_FALSE((co_await console.show(partition, last + 1)).has_value());
    EXPECT_FALSE((co_await console.show(partition, -1)).has_value());
    EXPECT_FALSE((co_await console.show(partition + 1000, 0)).has_value());
    co_await client.publish(dlq, Value("none of ours"), {.key = "k"});
    EXPECT_FALSE((co_await console.show(partition, last + 1)).has_value()) << "what is no dead letter is not shown";
  });
}

TEST_P(DeadLetterConsole, AForeignReplayCountDoesNotStartTheCountAnew) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = dead_letter_topic(topic, group("g"));
    co_await client.publish(dlq, Value(1),
                            {.headers = {{"dlq-topic", topic}, {"dlq-group", "g"}, {"dlq-reason", "rejected"},
                                         {"dlq-attempts", "1"}, {"dlq-replay-count", "-5"}}});
    DeadLetters console(client, dlq);
    EXPECT_EQ((co_await console.replay()).refused, 1U);
  });
}

TEST_P(DeadLetterConsole, WhatWasReplayedTooOftenIsGoneBackToAlone) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = dead_letter_topic(topic, group("g"));
    for (const auto* count : {"0", "2", "3", "4", "5"})
      co_await client.publish(dlq, Value(count),
                              {.headers = {{"dlq-topic", topic},
                                           {"dlq-group", "g"},
                                           {"dlq-reason", "rejected"},
                                           {"dlq-attempts", "1"},
                                           {"dlq-replay-count", count}}});
    DeadLetters console(client, dlq);
    const auto first = co_await console.replay();
    EXPECT_EQ(first.replayed, 2U);
    EXPECT_EQ(first.refused, 3U);
    const DeadLetterFilter passed_over{.min_replays = 3};
    EXPECT_EQ((co_await console.list(passed_over)).size(), 3U);
    EXPECT_EQ((co_await console.replay({.max_replays = 5})).seen, 0U) << "the same filter goes on behind them";
    const auto second = co_await console.replay({.filter = passed_over, .max_replays = 5});
    EXPECT_EQ(second.replayed, 2U);
    EXPECT_EQ(second.filtered, 2U);
    EXPECT_EQ(second.refused, 1U);
    EXPECT_EQ((co_await console.replay({.filter = passed_over, .max_replays = 9})).seen, 0U);
    EXPECT_EQ((co_await console.replay({.filter = {.min_replays = 5}, .max_replays = 9})).replayed, 1U);
    EXPECT_EQ((co_await client.administration().describe_topic(topic)).messages, 5);
  });
}

TEST_P(DeadLetterConsole, AReplayPassesOverWhatCannotBePublished) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = dead_letter_topic(topic, group("g"));
    const auto leave = [&](std::string origin, std::string body) -> awaitable<Receipt> {
      co_return co_await client.publish(dlq, Value(std::move(body)),
                                        {.key = "k",
                                         .headers = {{"dlq-topic", std::move(origin)},
                                                     {"dlq-group", "g"},
                                                     {"dlq-reason", "rejected"},
                                                     {"dlq-attempts", "1"}}});
    };
    co_await leave(topic, "first");
    co_await leave("bad topic", "from nowhere");
    co_await leave(topic, std::string(40'000, 'x'));
    co_await leave(dlq, "from here");
    co_await leave(topic, "last");
    // Its limit is lower than that of the client that left them.
    DeadLetters console(broker({}, {}, {{"max_message_bytes", 1000}}), dlq);
    const auto letters = co_await console.list();
    EXPECT_EQ(letters.size(), 5U);
    const auto dry = co_await console.replay({.dry_run = true});
    EXPECT_EQ(dry.replayed, 3U) << "the name alone tells that two cannot be";
    EXPECT_EQ(dry.failed, 2U);
    const auto report = co_await console.replay();
    EXPECT_EQ(report.seen, 5U);
    EXPECT_EQ(report.replayed, 2U);
    EXPECT_EQ(report.failed, 3U);
    EXPECT_TRUE(report.first_failure.has_value());
    EXPECT_EQ(report.first_failure->position, letters.at(1).message.position().to_string());
    EXPECT_EQ(report.first_failure->error, errc::invalid_topic);
    EXPECT_NE(report.first_failure->detail.find("bad topic"), std::string::npos) << report.first_failure->detail;
    EXPECT_EQ((co_await client.administration().describe_topic(topic)).messages, 2);
    EXPECT_EQ((co_await console.replay()).seen, 0U) << "the same filter goes on behind them";
    EXPECT_EQ((co_await console.list()).size(), 5U) << "and they stay";
    const auto again = co_await console.replay({.filter = {.error_contains = ""}});
    EXPECT_EQ(again.failed, 3U) << "another filter comes back to them";
  });
}

TEST_P(DeadLetterConsole, AReplayThatEndsEarlyLeavesItsReport) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = dead_letter_topic(topic, group("g"));
    co_await leave_letters(client, topic, dlq, 5);
    DeadLetters console(client, dlq);
    const auto so_far = std::make_shared<ReplayReport>();
    const auto end = [](std::size_t done, std::size_t) {
      if (done == 3) throw MessagingError(errc::connection_failed, "enough");
    };
    EXPECT_EQ(co_await error_of(ignore(console.replay({.progress = end, .so_far = so_far}))), errc::connection_failed);
    EXPECT_EQ(so_far->seen, 3U);
    EXPECT_EQ(so_far->replayed, 3U);
  });
}

TEST_P(DeadLetterConsole, TheListNamesWhatItLeavesOut) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = dead_letter_topic(topic, group("g"));
    co_await leave_letters(client, topic, dlq, 2);
    co_await client.publish(dlq, Value("none of ours"), {.key = "k"});
    DeadLetters console(client, dlq);
    std::vector<std::string> left_out;
    const auto letters =
        co_await console.list({}, 100, [&](const Message& message) { left_out.emplace_back(message.body()); });
    EXPECT_EQ(letters.size(), 2U);
    EXPECT_EQ(left_out.size(), 1U);
  });
}

MAESTRO_CONTRACT(DeadLetterConsole);

}  // namespace
}  // namespace maestro::messaging::testing

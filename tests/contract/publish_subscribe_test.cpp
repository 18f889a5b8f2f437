#include <cmath>
#include <set>

#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

class PublishSubscribe : public Contract {};

TEST_P(PublishSubscribe, WhatWasPublishedBeforeIsDelivered) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto receipt = co_await client.publish(topic, Value{{"n", 1}}, {.key = "k", .headers = {{"trace", "t1"}}});
    EXPECT_EQ(receipt.topic, topic);
    EXPECT_TRUE(receipt.confirmed);
    auto subscription = co_await client.subscribe(topic, {.group_id = group("readers")});
    const auto message = co_await subscription.next();
    EXPECT_TRUE(message.has_value());
    EXPECT_EQ(message->topic(), topic);
    EXPECT_EQ(message->key(), "k");
    EXPECT_EQ(message->value().at("n"), 1);
    EXPECT_EQ(message->header("trace"), "t1");
    EXPECT_EQ(message->position().offset, receipt.offset);
    EXPECT_EQ(message->position().partition, receipt.partition);
    co_await client.disconnect();
  });
}

TEST_P(PublishSubscribe, AnEventKeepsRepeatedHeadersInOrder) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    EventPublisher publisher(client);
    co_await publisher.publish(
        topic, Value{{"n", 1}},
        {.headers = {{"x", "1"}, {"ce_source", "mine"}, {"x", "2"}, {"traceparent", "t1"}, {"traceparent", "t2"}}});
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    const auto message = co_await subscription.next();
    std::vector<std::string> seen;
    for (const auto& [name, value] : message->headers())
      if (name == "x" || name == "ce_source" || name == "traceparent")
        seen.push_back(fmt::format("{}={}", name, value));
    EXPECT_EQ(seen, (std::vector<std::string>{"x=1", "ce_source=mine", "x=2", "traceparent=t1", "traceparent=t2"}));
    EXPECT_TRUE(message->header("ce_id"));
  });
}

TEST_P(PublishSubscribe, SameKeySamePartitionInOrder) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    for (int i = 0; i < 200; ++i) co_await client.publish(topic, Value(i), {.key = "key-" + std::to_string(i % 5)});
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    std::map<std::string, std::pair<int, std::int32_t>> last;
    for (int i = 0; i < 200; ++i) {
      const auto message = co_await subscription.next();
      const auto n = message->value().to_number<int>();
      const std::string key(*message->key());
      if (const auto found = last.find(key); found != last.end()) {
        EXPECT_EQ(n, found->second.first + 5);
        EXPECT_EQ(message->position().partition, found->second.second);
      }
      last[key] = {n, message->position().partition};
    }
    EXPECT_EQ(last.size(), 5U);
  });
}

TEST_P(PublishSubscribe, GroupsShareAndEachGroupSeesAll) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    std::vector<Subscription> members;
    for (int i = 0; i < 2; ++i) members.push_back(co_await client.subscribe(topic, {.group_id = group("shared")}));
    members.push_back(co_await client.subscribe(topic, {.group_id = group("other")}));
    std::vector<OutgoingMessage> batch;
    for (int i = 0; i < 600; ++i) {
      OutgoingMessage message;
      message.topic = topic;
      message.payload = Payload(std::to_string(i));
      message.key = std::to_string(i);
      batch.push_back(std::move(message));
    }
    for (const auto& result : co_await client.publish_many(std::move(batch))) EXPECT_TRUE(result.ok());
    std::array<std::multiset<std::string>, 3> seen;
    std::size_t ended = 0;
    for (std::size_t m = 0; m < members.size(); ++m) {
      auto reader = [](Subscription& from, std::multiset<std::string>& into) -> awaitable<void> {
        while (const auto message = co_await from.next()) into.insert(std::string(message->body()));
      };
      asio::co_spawn(*context_, reader(members[m], seen[m]), [&ended](const std::exception_ptr&) { ++ended; });
    }
    co_await until([&] { return seen[0].size() + seen[1].size() == 600 && seen[2].size() == 600; });
    EXPECT_GT(seen[0].size(), 100U);
    EXPECT_GT(seen[1].size(), 100U);
    for (const auto& one : seen[0]) EXPECT_EQ(seen[1].count(one), 0U) << one;
    co_await client.disconnect();
    co_await until([&] { return ended == members.size(); });
  });
}

// What the first one has fetched ahead, to the end of the log, goes to the second.
TEST_P(PublishSubscribe, AMemberThatJoinsABacklogLosesNothing) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    constexpr std::size_t count = 3000;
    std::vector<OutgoingMessage> batch(count);
    for (std::size_t i = 0; i < count; ++i) {
      batch[i].topic = topic;
      batch[i].payload = Payload(std::to_string(i));
      batch[i].key = std::to_string(i % 50);
    }
    for (const auto& result : co_await client.publish_many(std::move(batch))) EXPECT_TRUE(result.ok());
    std::array<std::multiset<std::string>, 2> seen;
    const auto reader = [](Subscription& from, std::multiset<std::string>& into, std::shared_ptr<Clock> clock) -> awaitable<void> {
      while (const auto message = co_await from.next()) {
        into.insert(std::string(message->body()));
        if (into.size() % 10 == 0) co_await sleep_for(*clock, 5ms);
      }
    };
    std::size_t ended = 0;
    auto first = co_await client.subscribe(topic, {.group_id = group("g")});
    asio::co_spawn(*context_, reader(first, seen[0], clock_), [&ended](const std::exception_ptr&) { ++ended; });
    co_await until([&] { return seen[0].size() >= 200; });
    auto second = co_await client.subscribe(topic, {.group_id = group("g")});
    asio::co_spawn(*context_, reader(second, seen[1], clock_), [&ended](const std::exception_ptr&) { ++ended; });
    const auto all = [&] {
      auto both = seen[0];
      both.merge(std::multiset(seen[1]));
      return both;
    };
    const auto deadline = clock_->now() + 30s;
    while (all().size() < count && clock_->now() < deadline) co_await sleep_for(*clock_, 100ms);
    const auto both = all();
    EXPECT_EQ(std::set(both.begin(), both.end()).size(), count);
    EXPECT_GT(seen[1].size(), 0U);
    co_await client.disconnect();
    co_await until([&] { return ended == seen.size(); });
  });
}

TEST_P(PublishSubscribe, APrivateReaderSeesAllAndSettlesNothing) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    for (int i = 0; i < 10; ++i) co_await client.publish(topic, Value(i));
    auto reader = co_await client.subscribe(topic);
    for (int i = 0; i < 10; ++i) EXPECT_TRUE((co_await reader.next()).has_value());
    co_await reader.close();
    auto shared = co_await client.subscribe(topic, {.group_id = group("g")});
    for (int i = 0; i < 10; ++i) EXPECT_TRUE((co_await shared.next()).has_value());
  });
}

TEST_P(PublishSubscribe, ANewGroupStartsWhereItSays) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    co_await client.publish(topic, Value("before"), {.key = "k"});
    auto latest = co_await client.subscribe(topic, {.group_id = group("late"), .auto_offset_reset = OffsetReset::latest});
    auto earliest = co_await client.subscribe(topic, {.group_id = group("early")});
    co_await client.publish(topic, Value("after"), {.key = "k"});
    EXPECT_EQ((co_await latest.next())->value(), "after");
    EXPECT_EQ((co_await earliest.next())->value(), "before");
  });
}

TEST_P(PublishSubscribe, APatternSeesTopicsThatComeLater) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto base = unique("pattern");
    auto one = co_await client.subscribe(base + ".*", {.group_id = group("one")});
    auto rest = co_await client.subscribe(base + ".>", {.group_id = group("rest")});
    co_await client.publish(base + ".a", Value("a"));
    co_await client.publish(base + ".a.b", Value("ab"));
    EXPECT_EQ((co_await one.next())->value(), "a");
    std::set<std::string> topics;
    for (int i = 0; i < 2; ++i) topics.insert(std::string((co_await rest.next())->topic()));
    EXPECT_EQ(topics, (std::set<std::string>{base + ".a", base + ".a.b"}));
    // Had the first matched too much, its next message would be here already.
    co_await client.publish(base + ".z", Value("z"));
    EXPECT_EQ((co_await one.next())->value(), "z");
  });
}

TEST_P(PublishSubscribe, WhatIsNotSettledComesBack) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    for (int i = 0; i < 3; ++i) co_await client.publish(topic, Value(i), {.key = "k"});
    {
      auto first = co_await client.subscribe(topic, {.group_id = group("g")});
      EXPECT_EQ((co_await first.next())->value(), 0);
      EXPECT_EQ((co_await first.next())->value(), 1);  // acknowledges 0; 1 is left unsettled
    }
    auto second = co_await client.subscribe(topic, {.group_id = group("g")});
    const auto again = co_await second.next();
    EXPECT_EQ(again->value(), 1);
    EXPECT_EQ(again->redelivered(), client.capabilities().counts_deliveries);
    EXPECT_EQ((co_await second.next())->value(), 2);
  });
}

TEST_P(PublishSubscribe, WithoutAutoCommitOnlyCommitSettles) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    for (int i = 0; i < 4; ++i) co_await client.publish(topic, Value(i), {.key = "k"});
    const SubscribeOptions options{.group_id = group("g"), .enable_auto_commit = false};
    {
      auto first = co_await client.subscribe(topic, options);
      for (int i = 0; i < 2; ++i) co_await first.next();
      co_await client.commit();
      co_await first.next();
    }
    auto second = co_await client.subscribe(topic, options);
    EXPECT_EQ((co_await second.next())->value(), 2);
  });
}

TEST_P(PublishSubscribe, SettlingOutOfOrderLosesNothing) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    for (int i = 0; i < 3; ++i) co_await client.publish(topic, Value(i), {.key = "k"});
    {
      auto first = co_await client.subscribe(topic, {.group_id = group("g"), .enable_auto_commit = false});
      const auto batch = co_await first.next_batch(3);
      EXPECT_EQ(batch.size(), 3U);
      first.acknowledge(batch[2]);
      first.acknowledge(batch[1]);
      co_await first.close();
    }
    auto second = co_await client.subscribe(topic, {.group_id = group("g")});
    EXPECT_EQ((co_await second.next())->value(), 0);
  });
}

TEST_P(PublishSubscribe, ReleaseWithDelay) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    co_await client.publish(topic, Value("later"), {.key = "k"});
    co_await client.publish(topic, Value("now"), {.key = "k"});
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g"), .enable_auto_commit = false});
    const auto first = co_await subscription.next();
    const auto released = clock_->now();
    subscription.release(*first, 5s);
    EXPECT_EQ((co_await subscription.next())->value(), "now");
    const auto again = co_await subscription.next();
    EXPECT_EQ(again->value(), "later");
    EXPECT_EQ(again->delivery_count(), 2U);
    EXPECT_GE(clock_->now() - released, 5s);
    EXPECT_LT(clock_->now() - released, 6s);
  });
}

TEST_P(PublishSubscribe, PauseKeepsThePlace) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    subscription.pause();
    co_await client.publish(topic, Value(1));
    bool received = false;
    auto reader = [](Subscription& from, bool& flag) -> awaitable<void> { flag = (co_await from.next()).has_value(); };
    asio::co_spawn(*context_, reader(subscription, received), asio::detached);
    co_await sleep(10s);
    EXPECT_FALSE(received);
    subscription.resume();
    co_await until([&] { return received; });
  });
}

TEST_P(PublishSubscribe, PauseStopsWhatWasFetchedToo) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    constexpr int count = 20;
    for (int i = 0; i < count; ++i) co_await client.publish(topic, Value(i), {.key = "k"});
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    int received = 0;
    const auto reader = [&]() -> awaitable<void> {
      for (; received < count; ++received) {
        if (received == 5) subscription.pause();
        EXPECT_EQ((co_await subscription.next())->value(), received);
      }
    };
    asio::co_spawn(*context_, reader, asio::detached);
    co_await until([&] { return received == 5; });
    co_await sleep(2s);
    EXPECT_EQ(received, 5);
    EXPECT_FALSE(subscription.try_next().has_value());
    subscription.resume();
    co_await until([&] { return received == count; });
  });
}

TEST_P(PublishSubscribe, SeekGoesBackAndToTheEnd) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    std::vector<Receipt> receipts;
    for (int i = 0; i < 5; ++i) receipts.push_back(co_await client.publish(topic, Value(i), {.key = "k"}));
    const auto partition = receipts[0].partition;
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    for (int i = 0; i < 5; ++i) co_await subscription.next();
    co_await subscription.seek(topic, partition, receipts[3].offset);
    EXPECT_EQ((co_await subscription.next())->value(), 3);
    co_await subscription.seek(topic, partition, Subscription::beginning);
    EXPECT_EQ((co_await subscription.next())->value(), 0);
    co_await subscription.seek(topic, partition, Subscription::end);
    co_await client.publish(topic, Value("new"), {.key = "k"});
    EXPECT_EQ((co_await subscription.next())->value(), "new");
    if (!client.capabilities().partitions) co_return;
    co_await subscription.seek(topic, partition, 1'000'000);  // there is nothing so far
    co_await client.publish(topic, Value("newer"), {.key = "k"});
    EXPECT_EQ((co_await subscription.next())->value(), "newer");
  });
}

TEST_P(PublishSubscribe, SeekPutsTheGroupsPlaceThere) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    std::vector<Receipt> receipts;
    for (int i = 0; i < 10; ++i) receipts.push_back(co_await client.publish(topic, Value(i), {.key = "k"}));
    const SubscribeOptions options{.group_id = group("g"), .enable_auto_commit = false};
    const auto expect = [](Subscription& reader, int from, int to) -> awaitable<void> {
      for (int i = from; i < to; ++i) EXPECT_EQ((co_await reader.next())->value(), i);
    };
    auto reader = co_await client.subscribe(topic, options);
    co_await expect(reader, 0, 10);
    co_await reader.commit();
    co_await reader.seek(topic, receipts[4].partition, receipts[4].offset);
    co_await reader.commit();
    co_await expect(reader, 4, 10);
    co_await reader.close();  // nothing was settled since
    reader = co_await client.subscribe(topic, options);
    co_await expect(reader, 4, 10);
    co_await reader.seek(topic, receipts[2].partition, receipts[2].offset);
    co_await expect(reader, 2, 10);
    co_await reader.commit();
    co_await reader.close();
    co_await client.publish(topic, Value(10), {.key = "k"});
    reader = co_await client.subscribe(topic, options);
    co_await expect(reader, 10, 11);
  });
}

TEST_P(PublishSubscribe, SeekLeavesOtherPartitionsAlone) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    if (!client.capabilities().partitions) co_return;
    const auto topic = unique();
    constexpr int count = 20;
    for (int i = 0; i < count; ++i) co_await client.publish(topic, Value(i), {.partition = i % 2});
    const SubscribeOptions options{.group_id = group("g"), .enable_auto_commit = false};
    auto reader = co_await client.subscribe(topic, options);
    std::vector<Message> seen;
    while (seen.size() < count) seen.push_back(*co_await reader.next());
    // One of partition 0 stays in our hands; what is acknowledged after it is no place to go on from.
    std::vector<Message> done;
    for (const auto& message : seen)
      if (message.position() != Position{0, 5, {}}) done.push_back(message);
    co_await reader.seek(topic, 1, 4);
    reader.acknowledge(done);
    for (int i = 4; i < count / 2; ++i) EXPECT_EQ((co_await reader.next())->position().partition, 1);
    co_await reader.close();
    reader = co_await client.subscribe(topic, options);
    std::set<std::pair<int, int>> again;
    while (again.size() < 11) {
      const auto message = co_await reader.next();
      again.emplace(message->position().partition, message->position().offset);
    }
    std::set<std::pair<int, int>> expected;
    for (int i = 5; i < 10; ++i) expected.emplace(0, i);
    for (int i = 4; i < 10; ++i) expected.emplace(1, i);
    EXPECT_EQ(again, expected);
  });
}

TEST_P(PublishSubscribe, SeekGoesToATime) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    std::vector<Receipt> receipts;
    for (int i = 0; i < 5; ++i) {
      receipts.push_back(co_await client.publish(topic, Value(i), {.key = "k"}));
      co_await sleep(10ms);
    }
    const auto partition = receipts[0].partition;
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    for (int i = 0; i < 5; ++i) co_await subscription.next();
    co_await subscription.seek(topic, partition, *receipts[2].timestamp);
    EXPECT_EQ((co_await subscription.next())->value(), 2);
    co_await subscription.seek(topic, partition, *receipts[2].timestamp + 1ms);
    EXPECT_EQ((co_await subscription.next())->value(), 3);
    co_await subscription.seek(topic, partition, *receipts[4].timestamp + 1h);
    co_await client.publish(topic, Value("new"), {.key = "k"});
    EXPECT_EQ((co_await subscription.next())->value(), "new");
  });
}

TEST_P(PublishSubscribe, CancellingAWaitLosesNoMessage) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    for (int i = 0; i < 50; ++i) {
      asio::cancellation_signal cancel;
      bool cancelled = false;
      std::optional<Message> got;
      auto wait = [](Subscription& from, std::optional<Message>& into) -> awaitable<void> { into = co_await from.next(); };
      asio::co_spawn(*context_, wait(subscription, got),
                     asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr) { cancelled = true; }));
      co_await sleep(1ms);
      if (i % 2 == 0) co_await client.publish(topic, Value(i), {.key = "k"});
      cancel.emit(asio::cancellation_type::terminal);
      co_await until([&] { return cancelled; });
      if (i % 2 == 0 && !got) got = co_await subscription.next();
      if (i % 2 == 0) EXPECT_EQ(got->value(), i);
    }
  });
}

TEST_P(PublishSubscribe, ClosingEndsNextAndGoesOnElsewhere) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    bool ended = false;
    auto reader = [](Subscription& from, bool& flag) -> awaitable<void> { flag = !(co_await from.next()).has_value(); };
    asio::co_spawn(*context_, reader(subscription, ended), asio::detached);
    co_await sleep(1ms);
    co_await subscription.close();
    co_await until([&] { return ended; });
    EXPECT_FALSE((co_await subscription.next()).has_value());
    co_await client.publish(topic, Value(1));
    auto other = co_await client.subscribe(topic, {.group_id = group("g")});
    EXPECT_EQ((co_await other.next())->value(), 1);
  });
}

TEST_P(PublishSubscribe, BufferedPublishesAreFlushedAndBounded) {
  run([&]() -> awaitable<void> {
    auto client = broker({}, {}, {{"buffer_messages", 10}});
    const auto topic = unique();
    for (int i = 0; i < 100; ++i) {
      const auto receipt = co_await client.publish(topic, Value(i), {.key = "k", .confirm = false});
      EXPECT_FALSE(receipt.confirmed);
    }
    const auto report = co_await client.flush();
    EXPECT_EQ(report.confirmed, 100U);
    EXPECT_TRUE(report.failures.empty());
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    for (int i = 0; i < 100; ++i) EXPECT_EQ((co_await subscription.next())->value(), i);
  });
}

// `latest` says where a new group begins, and not that of what comes later the first messages are skipped.
TEST_P(PublishSubscribe, AGroupThatBeganAtTheEndReadsALaterTopicFromItsBeginning) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto prefix = unique();
    co_await client.publish(prefix + ".old", Value("old"), {.key = "k"});
    auto subscription =
        co_await client.subscribe(prefix + ".*", {.group_id = group("g"), .auto_offset_reset = OffsetReset::latest});
    co_await client.publish(prefix + ".old", Value("fresh"), {.key = "k"});
    EXPECT_EQ((co_await subscription.next())->value(), "fresh");
    for (int i = 0; i < 10; ++i) co_await client.publish(prefix + ".later", Value(i), {.key = "k"});
    for (int i = 0; i < 10; ++i) EXPECT_EQ((co_await subscription.next())->value(), i);
  });
}

// One writer, which waits for each call; then several at once, each of which has to keep its own order.
TEST_P(PublishSubscribe, WhatIsConfirmedDoesNotOvertakeWhatIsBuffered) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    constexpr int writers = 4;
    constexpr int each = 200;
    int running = writers;
    const auto write = [&](int writer) -> awaitable<void> {
      const auto key = std::to_string(writer);
      for (int i = 0; i < each; ++i) {
        const Value value{writer, i};
        if (i % 50 == 49) {
          std::vector<OutgoingMessage> batch(1);
          batch.front().topic = topic;
          batch.front().key = key;
          batch.front().payload = Payload(boost::json::serialize(value));
          for (const auto& result : co_await client.publish_many(std::move(batch))) result.value();
        } else {
          co_await client.publish(topic, value, {.key = key, .confirm = i % 10 == 9});
        }
      }
      --running;
    };
    for (int writer = 0; writer < writers; ++writer) boost::asio::co_spawn(client.executor(), write(writer), boost::asio::detached);
    co_await until([&] { return running == 0; });
    const auto report = co_await client.flush();
    EXPECT_TRUE(report.failures.empty());
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    std::array<std::int64_t, writers> expected{};
    for (int i = 0; i < writers * each; ++i) {
      const auto value = (co_await subscription.next())->value();
      auto& next = expected.at(static_cast<std::size_t>(value.at(0).as_int64()));
      EXPECT_EQ(value.at(1).as_int64(), next);
      next = value.at(1).as_int64() + 1;
    }
  });
}

TEST_P(PublishSubscribe, OverTheSizeLimitIsRefusedAndAtItIsNot) {
  run([&]() -> awaitable<void> {
    auto client = broker({}, {}, {{"max_message_bytes", 1000}});
    const auto topic = unique();
    EXPECT_EQ(co_await error_of(ignore(client.publish(topic, Payload(std::string(1001, 'x'))))), errc::message_too_large);
    co_await client.publish(topic, Payload(std::string(1000, 'x')));
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    EXPECT_EQ((co_await subscription.next())->body().size(), 1000U);
  });
}

TEST_P(PublishSubscribe, AValueThatNoReaderWouldTakeIsRefused) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    for (const Value& value : {Value{{"price", std::nan("")}}, Value("\xff"), Value{{"huge", HUGE_VAL}}})
      EXPECT_EQ(co_await error_of([&]() -> awaitable<void> { co_await client.publish(topic, value); }()), errc::invalid_argument);
    EXPECT_EQ(co_await error_of(client.transaction([&](Transaction& transaction) -> awaitable<void> {
      transaction.publish(topic, Value(std::nan("")));
      co_return;
    })), errc::invalid_argument);
    co_await client.publish(topic, Value("fine"));
    auto reader = co_await client.subscribe(topic);
    EXPECT_EQ((co_await reader.next())->value(), "fine");
  });
}

TEST_P(PublishSubscribe, BadNamesSendNothing) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const std::vector<std::string> names{"", "a..b", "a b", "a.*", "orders.>", "#", "a\n", std::string(250, 'a'), "\xff"};
    for (const auto& bad : names)
      EXPECT_EQ(co_await error_of(ignore(client.publish(bad, Value(1)))), errc::invalid_topic) << bad;
    std::vector<OutgoingMessage> batch(2);
    batch[0].topic = unique();
    batch[1].topic = "not allowed";
    const auto good = batch[0].topic;
    EXPECT_EQ(co_await error_of(ignore(client.publish_many(std::move(batch)))), errc::invalid_topic);
    EXPECT_EQ(co_await error_of(ignore(client.administration().describe_topic(good))), errc::topic_not_found);
    EXPECT_EQ(co_await error_of(ignore(client.subscribe("a.>.b"))), errc::invalid_topic);
  });
}

TEST_P(PublishSubscribe, AfterDisconnectEverythingSaysClosed) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    co_await client.publish(topic, Value(0));
    const auto message = co_await subscription.next();
    co_await client.disconnect();
    EXPECT_EQ(co_await error_of(ignore(client.publish(topic, Value(1)))), errc::closed);
    EXPECT_EQ(co_await error_of([](Subscription& of) -> awaitable<void> { co_await of.commit(); }(subscription)), errc::closed);
    EXPECT_EQ(co_await error_of([](Subscription& of, const Message& what) -> awaitable<void> {
                of.acknowledge(what);
                co_return;
              }(subscription, *message)),
              errc::closed);
    EXPECT_EQ(co_await error_of(ignore(client.subscribe(topic))), errc::closed);
    EXPECT_FALSE((co_await subscription.next()).has_value());
    EXPECT_FALSE(co_await client.health_check());
    co_await client.disconnect();
  });
}

TEST_P(PublishSubscribe, TransactionsAreAllOrNothing) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto in = unique("in");
    const auto out = unique("out");
    co_await client.publish(in, Value(1), {.key = "k"});
    co_await client.publish(in, Value(2), {.key = "k"});
    auto subscription = co_await client.subscribe(in, {.group_id = group("g"), .enable_auto_commit = false});
    auto results = co_await client.subscribe(out, {.group_id = group("g")});
    const auto first = co_await subscription.next();
    const auto error = co_await error_of(client.transaction([&](Transaction& tx) -> awaitable<void> {
      tx.publish(out, Value("dropped"));
      tx.acknowledge(subscription, *first);
      throw MessagingError(errc::rejected, "abort");
      co_return;
    }));
    EXPECT_EQ(error, errc::rejected);
    co_await client.transaction([&](Transaction& tx) -> awaitable<void> {
      tx.publish(out, Value("kept"));
      tx.acknowledge(subscription, *first);
      co_return;
    });
    EXPECT_EQ((co_await results.next())->value(), "kept");
    co_await subscription.close();
    auto again = co_await client.subscribe(in, {.group_id = group("g")});
    EXPECT_EQ((co_await again.next())->value(), 2);
  });
}

// Who tries again what was aborted would do so for ever.
TEST_P(PublishSubscribe, ATransactionThatCanNeverBeDoneSaysWhy) {
  run([&]() -> awaitable<void> {
    auto client = broker({}, {}, {{"max_message_bytes", 1000}});
    const auto topic = unique();
    co_await client.publish(topic, Value("before"), {.key = "k"});
    const auto attempt = [&](OutgoingMessage bad) -> awaitable<void> {
      bad.topic = topic;
      co_await client.transaction([&](Transaction& tx) -> awaitable<void> {
        tx.publish(topic, Value("with it"), "k");
        tx.publish(bad);
        co_return;
      });
    };
    for (const auto& [bad, reason] : {std::pair(OutgoingMessage{.payload = Payload(std::string(1001, 'x'))}, errc::message_too_large),
                                      std::pair(OutgoingMessage{.payload = Payload("1"), .partition = 99}, errc::invalid_argument)}) {
      const auto failure = co_await error_of(attempt(bad));
      EXPECT_EQ(failure, reason) << failure.message();
      EXPECT_FALSE(is_retriable(failure));
    }
    co_await client.transaction([&](Transaction& tx) -> awaitable<void> {
      tx.publish(topic, Value("after"), "k");
      co_return;
    });
    auto reader = co_await client.subscribe(topic);
    EXPECT_EQ((co_await reader.next())->value(), "before");
    EXPECT_EQ((co_await reader.next())->value(), "after");
    co_await client.disconnect();
  });
}

TEST_P(PublishSubscribe, ATransactionSettlesNothingForAPrivateReader) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto in = unique("in");
    const auto out = unique("out");
    for (int i = 1; i <= 2; ++i) co_await client.publish(in, Value(i), {.key = "k"});
    auto reader = co_await client.subscribe(in);
    const auto first = *co_await reader.next();
    co_await client.transaction([&](Transaction& tx) -> awaitable<void> {
      tx.publish(out, Value("copied"));
      tx.acknowledge(reader, first);
      co_return;
    });
    auto results = co_await client.subscribe(out);
    EXPECT_EQ((co_await results.next())->value(), "copied");
    EXPECT_EQ((co_await reader.next())->value(), 2);
    for (const auto& each : (co_await client.administration().describe_topic(in)).groups) ADD_FAILURE() << "the group " << each.group;
    co_await client.disconnect();
  });
}

// However often it is tried: what was read with it comes again, and settling that works.
TEST_P(PublishSubscribe, ATransactionWithADeliveryOfBeforeIsNotOwned) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto in = unique("in");
    const auto out = unique("out");
    co_await client.publish(in, Value(1));
    auto before = co_await client.subscribe(in, {.group_id = group("g"), .enable_auto_commit = false});
    const auto first = co_await before.next();
    co_await before.close();
    auto reader = co_await client.subscribe(in, {.group_id = group("g"), .enable_auto_commit = false});
    const auto again = co_await reader.next();
    const auto relay = [&](const Subscription& from, const Message& message) {
      return client.transaction([&](Transaction& tx) -> awaitable<void> {
        tx.publish(out, Value("copied"));
        tx.acknowledge(from, message);
        co_return;
      });
    };
    for (int tries = 0; tries < 2; ++tries) EXPECT_EQ(co_await error_of(relay(before, *first)), errc::not_owned);
    co_await relay(reader, *again);
    auto results = co_await client.subscribe(out);
    EXPECT_EQ((co_await results.next())->value(), "copied");
    EXPECT_EQ((co_await client.administration().describe_topic(in)).groups.front().lag, 0);
    co_await client.disconnect();
  });
}

TEST_P(PublishSubscribe, StatusAndHealthTellTheTruth) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    EXPECT_TRUE(co_await client.health_check());
    for (int i = 0; i < 3; ++i) co_await client.publish(topic, Value(i), {.key = "k"});
    auto subscription = co_await client.subscribe(topic, {.group_id = group("g")});
    co_await subscription.next();
    const auto status = co_await client.get_status();
    EXPECT_TRUE(status.connected);
    EXPECT_EQ(status.subscription_count, 1U);
    EXPECT_EQ(status.messages_sent, 3U);
    EXPECT_EQ(status.messages_received, 3U);
    std::int64_t lag = 0;
    for (const auto& each : status.lag) {
      lag += each.lag;
      EXPECT_EQ(each.group, group("g"));
    }
    EXPECT_EQ(lag, 3);
    EXPECT_TRUE(co_await client.health_check());
    if (GetParam().is_real) co_return;  // a minute of standing still is waited for on the embedded broker alone
    co_await sleep(2min);
    EXPECT_FALSE(co_await client.health_check()) << "a subscription that stands still must be seen";
    for (int i = 0; i < 2; ++i) co_await subscription.next();
    EXPECT_TRUE(co_await client.health_check());
  });
}

MAESTRO_CONTRACT(PublishSubscribe);

}  // namespace
}  // namespace maestro::messaging::testing

#include <set>

#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

/// Each awaitable is cancelled after 0, 1, 2, … turns of the loop and of the clock: it ends, and loses nothing.
class Cancellation : public Contract {
 protected:
  /// As many at least; on a machine that is busy so many more that something is done in time.
  static constexpr int usual_steps = 40;

  /// All that the topic holds, read by a private reader until `last` comes, which is published for that.
  awaitable<std::multiset<std::string>> contents(MessageBroker client, std::string topic) {
    co_await client.publish(topic, Value("last"), {.key = "k"});
    auto reader = co_await client.subscribe(topic);
    std::multiset<std::string> all;
    for (;;) {
      const auto message = co_await reader.next();
      if (message->body() == "\"last\"") break;
      all.insert(std::string(message->body()));
    }
    co_await reader.close();
    co_return all;
  }

  /// What was said to be done is there, and nothing is there twice.
  static void expect_kept(const std::multiset<std::string>& all, const std::set<std::string>& confirmed) {
    for (const auto& each : confirmed) EXPECT_EQ(all.count(each), 1U) << each;
    for (const auto& each : all) EXPECT_EQ(all.count(each), 1U) << each << " is there twice";
  }
};

TEST_P(Cancellation, Publish) {
  run([&]() -> awaitable<void> {
    // The connection breaks now and then, so that a publish waits for its next try.
    auto client = broker({{"fault_publish_failure", 0.3}});
    auto quiet = broker();
    const auto topic = unique();
    std::set<std::string> confirmed;
    unsigned steps = 0;
    for (; steps < usual_steps || confirmed.size() <= 10; ++steps)
      for (unsigned i = 0; i < 4; ++i) {
        const auto body = std::to_string(steps * 10 + i);
        OutgoingMessage message;
        message.topic = topic;
        message.key = "k";
        message.payload = Payload(std::string(body));
        if (co_await cancelled_after(static_cast<int>(steps), ignore(client.publish(std::move(message))))) confirmed.insert(body);
      }
    EXPECT_LT(confirmed.size(), 4 * steps) << "none was cancelled on its way: the test shows nothing";
    expect_kept(co_await contents(quiet, topic), confirmed);
  });
}

TEST_P(Cancellation, PublishMany) {
  run([&]() -> awaitable<void> {
    auto client = broker({{"fault_publish_failure", 0.2}});
    auto quiet = broker();
    const auto topic = unique();
    std::set<std::string> confirmed;
    int done = 0;
    int steps = 0;
    for (; steps < usual_steps || done == 0; ++steps) {
      std::vector<OutgoingMessage> batch(5);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        batch[i].topic = topic;
        batch[i].key = "k";
        batch[i].payload = Payload(std::to_string(steps * 10 + static_cast<int>(i)));
      }
      std::vector<PublishResult> results;
      const auto work = [&]() -> awaitable<void> { results = co_await client.publish_many(std::move(batch)); };
      done += co_await cancelled_after(steps, work());
      for (std::size_t i = 0; i < results.size(); ++i)
        if (results[i].ok()) confirmed.insert(std::to_string(steps * 10 + static_cast<int>(i)));
    }
    EXPECT_LT(done, steps);
    expect_kept(co_await contents(quiet, topic), confirmed);
  });
}

TEST_P(Cancellation, FlushAndBufferedPublish) {
  run([&]() -> awaitable<void> {
    auto client = broker({{"fault_publish_failure", 0.3}}, {}, {{"buffer_messages", 4}});
    auto quiet = broker();
    const auto topic = unique();
    std::size_t accepted = 0;
    std::size_t confirmed = 0;
    for (int steps = 0; steps < usual_steps; ++steps) {
      const auto publish = [&]() -> awaitable<void> {
        for (int i = 0; i < 6; ++i) {
          co_await client.publish(topic, Payload(std::to_string(steps * 10 + i)), {.key = "k", .confirm = false});
          ++accepted;
        }
      };
      co_await cancelled_after(steps, publish());
      const auto flush = [&]() -> awaitable<void> { confirmed += (co_await client.flush()).confirmed; };
      co_await cancelled_after(steps, flush());
    }
    confirmed += (co_await client.flush()).confirmed;
    EXPECT_GT(accepted, 0U);
    EXPECT_EQ(confirmed, accepted) << "a flush that was cancelled forgets nothing";
    const auto all = co_await contents(quiet, topic);
    EXPECT_EQ(all.size(), accepted);
    expect_kept(all, {});
  });
}

TEST_P(Cancellation, NextNextBatchAndCommit) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    auto reader = co_await client.subscribe(topic, {.group_id = group("g"), .enable_auto_commit = false});
    std::multiset<std::int64_t> seen;
    for (int steps = 0; steps < usual_steps; ++steps) {
      const auto publish_later = [&]() -> awaitable<void> {
        for (int i = 0; i < 20; ++i) co_await asio::post(*context_, asio::use_awaitable);
        for (int i = 0; i < 3; ++i) co_await client.publish(topic, Value(steps * 10 + i), {.key = "k"});
      };
      bool published = false;
      asio::co_spawn(*context_, publish_later(), [&](std::exception_ptr) { published = true; });
      const auto take = [&]() -> awaitable<void> { seen.insert((co_await reader.next())->value().as_int64()); };
      const auto take_batch = [&]() -> awaitable<void> {
        for (const auto& message : co_await reader.next_batch(2)) seen.insert(message.value().as_int64());
      };
      co_await cancelled_after(steps, take());
      co_await cancelled_after(steps, take_batch());
      co_await cancelled_after(steps, reader.commit());
      co_await until([&] { return published; });
    }
    while (seen.size() < 3U * usual_steps) seen.insert((co_await reader.next())->value().as_int64());
    for (const auto each : seen) EXPECT_EQ(seen.count(each), 1U) << each;
    co_await reader.commit();
    EXPECT_EQ((co_await client.administration().describe_topic(topic)).groups.at(0).lag, 0);
  });
}

TEST_P(Cancellation, Start) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    constexpr int count = 2000;
    for (int i = 0; i < count; ++i) co_await client.publish(topic, Value(i), {.key = std::to_string(i % 7)});
    std::set<std::int64_t> handled;
    const auto handler = [&](const Event& event) -> awaitable<void> {
      const auto number = event.data().as_int64();
      co_await sleep(1ms);
      handled.insert(number);
    };
    // Joining and leaving a real group takes a while.
    const int stride = GetParam().is_real ? 8 : 1;
    for (int steps = 0; steps < usual_steps; steps += stride) {
      EventConsumer consumer(client, {.group_id = group("g"), .concurrency = 3});
      consumer.subscribe(topic, handler);
      EXPECT_FALSE(co_await cancelled_after(steps, consumer.start()));
    }
    EXPECT_LT(handled.size(), static_cast<std::size_t>(count));
    EventConsumer rest(client, {.group_id = group("g"), .concurrency = 3});
    rest.subscribe(topic, handler);
    auto started = start(rest);
    co_await until([&] { return handled.size() == count; });
    co_await finish(rest, started);
    EXPECT_EQ((co_await client.administration().describe_topic(topic)).groups.at(0).lag, 0);
  });
}

TEST_P(Cancellation, TransactionIsAllOrNothing) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto first = unique("first");
    const auto second = unique("second");
    std::set<std::string> done;
    int steps = 0;
    for (; steps < usual_steps || done.empty(); ++steps) {
      const auto body = [&](Transaction& transaction) -> awaitable<void> {
        transaction.publish(first, Value(steps), "k");
        co_await sleep(3ms);
        transaction.publish(second, Value(steps), "k");
      };
      if (co_await cancelled_after(steps, client.transaction(body))) done.insert(std::to_string(steps));
    }
    EXPECT_LT(done.size(), static_cast<std::size_t>(steps));
    // A commit on its way when it was cancelled may have been done; but then in both topics.
    const auto contents_of = [&](const std::string& topic) -> awaitable<std::set<std::string>> {
      const auto all = co_await contents(client, topic);
      co_return std::set<std::string>(all.begin(), all.end());
    };
    const auto in_first = co_await contents_of(first);
    EXPECT_EQ(co_await contents_of(second), in_first);
    EXPECT_TRUE(std::ranges::includes(in_first, done));
  });
}

TEST_P(Cancellation, HealthCheck) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    auto reader = co_await client.subscribe(unique(), {.group_id = group("g")});
    for (int steps = 0; steps < 10; ++steps)
      co_await cancelled_after(steps, ignore(client.health_check()));
    EXPECT_TRUE(co_await client.health_check());
  });
}

TEST_P(Cancellation, DeadLettersListAndReplay) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = dead_letter_topic(topic, group("g"));
    DeadLetters console(client, dlq);
    for (int i = 0; i < 30; ++i) {
      const auto body = std::to_string(i);
      co_await client.publish(make_dead_letter(Message({.topic = topic, .key = "k", .payload = body}), dlq, "g", {}));
    }
    int lists = 0;
    int steps = 0;
    for (; steps < 2 * usual_steps || lists == 0; steps += 2) {
      lists += co_await cancelled_after(steps, ignore(console.list()));
      co_await cancelled_after(steps / 4, ignore(console.replay()));
    }
    EXPECT_LT(lists, steps / 2);
    co_await console.replay();
    const auto all = co_await contents(client, topic);
    for (int i = 0; i < 30; ++i) EXPECT_TRUE(all.contains(std::to_string(i))) << i << " was not replayed";
    EXPECT_EQ((co_await console.replay()).seen, 0U) << "nothing is left to replay";
  });
}

MAESTRO_CONTRACT(Cancellation);

}  // namespace
}  // namespace maestro::messaging::testing

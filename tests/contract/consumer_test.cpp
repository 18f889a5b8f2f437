#include <set>

#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

struct Order {
  int id;
  std::string customer;
};
BOOST_DESCRIBE_STRUCT(Order, (), (id, customer))

class Consumer : public Contract {
 protected:
  awaitable<std::vector<DeadLetter>> dead_letters(MessageBroker client, std::string topic) {
    DeadLetters console(client, std::move(topic));
    co_return co_await console.list();
  }
};

TEST_P(Consumer, ParallelByKeyInOrderWithoutOverlap) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    constexpr int keys = 10;
    constexpr int each = 30;
    for (int i = 0; i < keys * each; ++i)
      co_await client.publish(topic, Value(i), {.key = "key-" + std::to_string(i % keys)});
    EventConsumer consumer(client, {.group_id = group("g"), .concurrency = 8});
    std::map<std::string, std::vector<std::int64_t>> seen;
    std::set<std::string> running;
    std::size_t most = 0;
    std::size_t done = 0;
    consumer.subscribe(topic, [&](const Event& event) -> awaitable<void> {
      const std::string key(*event.key());
      EXPECT_TRUE(running.insert(key).second) << "two handlers of one key at once";
      most = std::max(most, running.size());
      seen[key].push_back(event.data().as_int64());
      co_await sleep(10ms);
      running.erase(key);
      ++done;
    });
    const auto began = clock_->now();
    auto started = start(consumer);
    co_await until([&] { return done == keys * each; });
    EXPECT_EQ(most, 8U);
    EXPECT_LT(clock_->now() - began, 1s) << "handlers of different keys run at once";
    for (const auto& [key, values] : seen) EXPECT_TRUE(std::ranges::is_sorted(values)) << key;
    co_await finish(consumer, started);
    EXPECT_EQ(consumer.counts().handled, static_cast<std::uint64_t>(keys * each));
  });
}

TEST_P(Consumer, RetriesWithBackoffWhileOnlyItsLaneWaits) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    co_await client.publish(topic, Value("bad"), {.key = "a"});
    co_await client.publish(topic, Value("after"), {.key = "a"});
    co_await client.publish(topic, Value("other"), {.key = "b"});
    EventConsumer consumer(client, {.group_id = group("g"), .max_retry_attempts = 3, .initial_backoff = 10s, .max_backoff = 10s});
    std::vector<std::string> log;
    std::vector<int> attempts;
    consumer.subscribe(topic, [&](const Event& event) -> awaitable<void> {
      const std::string text(event.data().as_string());
      log.push_back(text);
      if (text == "bad") {
        attempts.push_back(event.attempt());
        if (event.attempt() < 3) throw std::runtime_error("not yet");
      }
      co_return;
    });
    auto started = start(consumer);
    co_await until([&] { return log.size() == 5; });
    EXPECT_EQ(attempts, (std::vector<int>{1, 2, 3}));
    EXPECT_EQ(log.back(), "after") << "the key's next message waits for the retries";
    EXPECT_TRUE(log[0] == "other" || log[1] == "other") << "another key does not wait";
    co_await finish(consumer, started);
    EXPECT_EQ(consumer.counts().retried, 2U);
    EXPECT_EQ(consumer.counts().dead_lettered, 0U);
  });
}

TEST_P(Consumer, DeadLettersAreExactlyTheFailedSet) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    for (int i = 0; i < 100; ++i)
      co_await client.publish(topic, Value{{"id", i}, {"customer", "c"}}, {.key = std::to_string(i), .headers = {{"h", "v"}}});
    co_await client.publish(topic, Payload("{ not json"), {.key = "u"});
    co_await client.publish(topic, Payload("{\"a\":\"\xff\"}"), {.key = "u"});
    co_await client.publish(topic, Value{{"id", "x"}}, {.key = "i"});
    EventConsumer consumer(client, {.group_id = group("g"), .concurrency = 4, .max_retry_attempts = 2, .initial_backoff = 1ms});
    int handled = 0;
    consumer.subscribe<Order>(topic, [&](const Order& order) -> awaitable<void> {
      if (order.id % 10 == 3) throw std::invalid_argument("order " + std::to_string(order.id));
      if (order.id % 10 == 5) reject("closed account");
      if (order.id == 7) throw 42;
      ++handled;
      co_return;
    });
    auto started = start(consumer);
    co_await until([&] { return consumer.counts().handled + consumer.counts().dead_lettered == 103; });
    co_await finish(consumer, started);
    EXPECT_EQ(handled, 79);
    const auto letters = co_await dead_letters(client, dead_letter_topic(topic, group("g")));
    EXPECT_EQ(letters.size(), 24U);
    std::map<DeadLetterReason, int> reasons;
    for (const auto& letter : letters) {
      ++reasons[letter.reason];
      EXPECT_EQ(letter.topic, topic);
      EXPECT_EQ(letter.group, group("g"));
      EXPECT_FALSE(letter.position.empty());
      if (letter.reason == DeadLetterReason::retries_exhausted) {
        EXPECT_EQ(letter.attempts, 3);
        EXPECT_EQ(letter.message.header("h"), "v");
        if (letter.message.value().at("id") == 7) {
          EXPECT_EQ(letter.error_type, "int");
        } else {
          EXPECT_EQ(letter.error_type, "std::invalid_argument");
          EXPECT_EQ(letter.error_message, "order " + std::to_string(letter.message.value().at("id").as_int64()));
        }
      }
      if (letter.reason == DeadLetterReason::rejected) EXPECT_EQ(letter.attempts, 1);
      if (letter.reason == DeadLetterReason::invalid)
        EXPECT_EQ(letter.error_message, R"(id: expected integer, got "x"; customer: missing)");
    }
    EXPECT_EQ(reasons[DeadLetterReason::retries_exhausted], 11);
    EXPECT_EQ(reasons[DeadLetterReason::rejected], 10);
    EXPECT_EQ(reasons[DeadLetterReason::undecodable], 2);
    EXPECT_EQ(reasons[DeadLetterReason::invalid], 1);
  });
}

TEST_P(Consumer, ADeadLetterThatCannotBeWrittenSettlesNothing) {
  run([&]() -> awaitable<void> {
    auto client = broker({}, {}, {{"max_message_bytes", 400}});
    const auto topic = unique();
    // The copy has more headers than the original, and no longer fits into the room that dead letters have.
    co_await client.publish(topic, Payload("\"" + std::string(300, 'x') + "\""),
                            {.key = "k", .headers = {{"dlq-message-id", std::string(16'300, 'i')}}});
    {
      EventConsumer consumer(client, {.group_id = group("g"), .max_retry_attempts = 0});
      int tries = 0;
      consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
        ++tries;
        throw std::runtime_error("no");
        co_return;
      });
      auto started = start(consumer);
      co_await until([&] { return tries == 1; });
      co_await sleep(GetParam().is_real ? Duration(3s) : Duration(5min));
      EXPECT_EQ(tries, 1) << "the handler is not tried again: the dead letter is";
      EXPECT_EQ(consumer.counts().dead_lettered, 0U);
      EXPECT_EQ((co_await consumer.readiness()).not_ready,
                std::vector<std::string>{"the consumer of group \"" + group("g") +
                                         "\" cannot write dead letters: 1 of its messages wait for that"});
      co_await finish(consumer, started);
    }
    auto again = co_await client.subscribe(topic, {.group_id = group("g")});
    EXPECT_EQ((co_await again.next())->body().size(), 302U);
  });
}

TEST_P(Consumer, WhatMayBePublishedMayBeDeadLetteredAndReplayed) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = unique("dlq");
    constexpr std::size_t largest = 1'048'576;
    const std::string payload = "\"" + std::string(largest - 3, 'x') + "\"";
    co_await client.publish(topic, Payload(payload), {.key = "k"});
    for (int i = 0; i < 20; ++i) co_await client.publish(topic, Value(i), {.key = "k"});
    bool broken = true;
    std::size_t whole = 0;
    EventConsumer consumer(client, {.group_id = group("g"), .max_retry_attempts = 1, .initial_backoff = 1ms});
    consumer
        .subscribe(topic,
                   [&](const Event& event) -> awaitable<void> {
                     if (!event.data().is_string()) co_return;
                     if (broken) throw std::runtime_error(std::string(10'000, 'e'));
                     whole += event.message().body() == payload;
                   })
        .on_error(dlq);
    auto started = start(consumer);
    co_await until([&] { return consumer.counts().handled == 20; });
    const auto letters = co_await dead_letters(client, dlq);
    EXPECT_EQ(letters.size(), 1U);
    for (const auto& letter : letters) {
      EXPECT_EQ(letter.message.body(), payload);
      EXPECT_EQ(letter.message.key(), "k");
      EXPECT_EQ(letter.reason, DeadLetterReason::retries_exhausted);
      EXPECT_EQ(letter.attempts, 2);
      EXPECT_EQ(letter.error_stack.size(), 8192U);
    }
    EXPECT_EQ((co_await consumer.readiness()).not_ready, std::vector<std::string>{});
    broken = false;
    DeadLetters console(client, dlq);
    EXPECT_EQ((co_await console.replay()).replayed, 1U);
    co_await until([&] { return whole == 1; });
    co_await finish(consumer, started);
  });
}

TEST_P(Consumer, ADeadLetterThatIsTooLargeIsCutToWhatItNeeds) {
  run([&]() -> awaitable<void> {
    auto client = broker({}, {}, {{"max_message_bytes", 400}});
    const auto topic = unique();
    co_await client.publish(topic, Value("bad"), {.key = "k", .headers = {{"dlq-message-id", std::string(15'000, 'i')}}});
    EventConsumer consumer(client, {.group_id = group("g"), .max_retry_attempts = 0});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      throw std::runtime_error(std::string(2'000, 'e'));
      co_return;
    });
    auto started = start(consumer);
    co_await until([&] { return consumer.counts().dead_lettered == 1; });
    const auto letters = co_await dead_letters(client, dead_letter_topic(topic, group("g")));
    EXPECT_EQ(letters.size(), 1U);
    for (const auto& letter : letters) {
      EXPECT_EQ(letter.message.value(), "bad");
      EXPECT_EQ(letter.error_message, std::string(128, 'e'));
      EXPECT_EQ(letter.error_stack, "");
    }
    co_await finish(consumer, started);
  });
}

TEST_P(Consumer, ReplayBringsThemBackAndRefusesToLoop) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    const auto dlq = unique("dlq");
    EventPublisher publisher(client);
    for (int i = 0; i < 5; ++i) co_await publisher.publish(topic, Value{{"n", i}}, {.key = "k"});
    bool broken = true;
    std::vector<std::string> ids;
    std::vector<std::int64_t> seen;
    auto store = std::make_shared<MemoryDeduplicationStore>(clock_);
    EventConsumer consumer(client, {.group_id = group("g"), .max_retry_attempts = 0, .deduplication = store});
    consumer
        .subscribe(topic,
                   [&](const Event& event) -> awaitable<void> {
                     ids.push_back(event.id());
                     if (broken) throw std::runtime_error("downstream is out");
                     seen.push_back(event["n"].as_int64());
                     co_return;
                   })
        .on_error(dlq);
    auto started = start(consumer);
    co_await until([&] { return consumer.counts().dead_lettered == 5; });
    DeadLetters console(client, dlq);
    const auto rehearsal = co_await console.replay({.dry_run = true});
    EXPECT_EQ(rehearsal.replayed, 5U);
    const auto filtered = co_await console.replay({.filter = {.error_contains = "something else"}, .dry_run = true});
    EXPECT_EQ(filtered.filtered, 5U);
    for (int round = 1; round <= 3; ++round) {
      EXPECT_EQ((co_await console.replay({.max_replays = 3})).replayed, 5U);
      co_await until([&] { return consumer.counts().dead_lettered == 5U * static_cast<unsigned>(round + 1); });
    }
    EXPECT_EQ((co_await console.replay({.max_replays = 3})).refused, 5U);
    broken = false;
    auto more = co_await client.get_status();
    EXPECT_EQ((co_await console.replay({.max_replays = 9})).replayed, 0U) << "what was refused is behind the cursor";
    EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 20U) << "every replay has an id of its own";
    co_await publisher.publish(topic, Value{{"n", 9}});
    co_await until([&] { return seen.size() == 1; });
    co_await finish(consumer, started);
  });
}

TEST_P(Consumer, DuplicatesAreHandledOnce) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    EventPublisher publisher(client);
    for (int round = 0; round < 3; ++round)
      for (int i = 0; i < 20; ++i)
        co_await publisher.publish(topic, Value(i), {.key = "k", .attributes = {.id = "id-" + std::to_string(i)}});
    int handled = 0;
    EventConsumer consumer(client, {.group_id = group("g"), .concurrency = 4, .deduplication = std::make_shared<MemoryDeduplicationStore>(clock_)});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      ++handled;
      co_return;
    });
    auto started = start(consumer);
    co_await until([&] { return consumer.counts().handled + consumer.counts().duplicates == 60; });
    EXPECT_EQ(handled, 20);
    EXPECT_EQ(consumer.counts().duplicates, 40U);
    co_await finish(consumer, started);
  });
}

TEST_P(Consumer, ADuplicateWaitsForTheFirstAndNotForItsLease) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    EventPublisher publisher(client);
    for (int i = 0; i < 2; ++i)
      co_await publisher.publish(topic, Value(i), {.key = "k" + std::to_string(i), .attributes = {.id = "the-id"}});
    co_await publisher.publish(topic, Value(2), {.key = "k1"});
    EventConsumer consumer(client, {.group_id = group("g"),
                                    .concurrency = 4,
                                    .deduplication = std::make_shared<MemoryDeduplicationStore>(clock_),
                                    .deduplication_lease = 1h});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> { co_await sleep(50ms); });
    auto started = start(consumer);
    const auto began = clock_->now();
    co_await until([&] { return consumer.counts().handled == 2 && consumer.counts().duplicates == 1; });
    EXPECT_LT(clock_->now() - began, 30s);
    co_await finish(consumer, started);
  });
}

TEST_P(Consumer, APatternLeavesDeadLettersToThoseWhoAskForThem) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto base = unique();
    const auto failed = base + ".failed";
    std::vector<std::string> seen;
    EventConsumer consumer(client, {.group_id = group("g"), .max_retry_attempts = 0});
    consumer.subscribe(base + ".*", [&](const Event& event) -> awaitable<void> {
      seen.emplace_back(event.message().topic());
      throw std::runtime_error("always");
      co_return;
    }).on_error(failed);
    consumer.subscribe(base + ".deeper.>", [&](const Event& event) -> awaitable<void> {
      seen.emplace_back(event.message().topic());
      throw std::runtime_error("always");
      co_return;
    });
    int letters = 0;
    EventConsumer console(client, {.group_id = group("console")});
    console.subscribe(failed, [&](const Event&) -> awaitable<void> {
      ++letters;
      co_return;
    });
    console.subscribe(base + ".deeper.*.*.dlq", [&](const Event&) -> awaitable<void> {
      ++letters;
      co_return;
    });
    co_await client.publish(base + ".new", Value(1));
    co_await client.publish(base + ".deeper.new", Value(2));
    auto started = start(consumer);
    auto watching = start(console);
    co_await until([&] { return letters == 2; });
    co_await sleep(GetParam().is_real ? 3s : 1min);
    std::ranges::sort(seen);
    EXPECT_EQ(seen, (std::vector{base + ".deeper.new", base + ".new"}));
    EXPECT_EQ(letters, 2);
    EXPECT_EQ(consumer.counts().dead_lettered, 2U);
    co_await finish(consumer, started);
    co_await finish(console, watching);
  });
}

TEST_P(Consumer, DeadLettersThatWouldComeBackAreRefusedAtStart) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto handler = [](const Event&) -> awaitable<void> { co_return; };
    EventConsumer alone(client, {.group_id = group("g")});
    alone.subscribe("orders", handler).on_error("orders");
    EXPECT_EQ(co_await error_of(alone.start()), errc::invalid_argument);
    EventConsumer circle(client, {.group_id = group("g")});
    circle.subscribe("one", handler).on_error("two");
    circle.subscribe("two", handler).on_error("three");
    circle.subscribe("three", handler).on_error("one");
    EXPECT_EQ(co_await error_of(circle.start()), errc::invalid_argument);
  });
}

/// A store that may be away.
class DistantStore final : public DeduplicationStore {
 public:
  explicit DistantStore(std::shared_ptr<Clock> clock) : store_(std::move(clock)) {}

  awaitable<Claim> claim(std::string scope, std::string id, Duration lease) override {
    require_there();
    co_return co_await store_.claim(std::move(scope), std::move(id), lease);
  }
  awaitable<void> complete(std::string scope, std::string id, std::uint64_t token) override {
    require_there();
    co_await store_.complete(std::move(scope), std::move(id), token);
  }
  awaitable<void> abandon(std::string scope, std::string id, std::uint64_t token) override {
    require_there();
    co_await store_.abandon(std::move(scope), std::move(id), token);
  }

  bool is_away = false;
  int refused = 0;

 private:
  void require_there() {
    if (!is_away) return;
    ++refused;
    throw MessagingError(errc::connection_failed, "no store at the moment");
  }
  MemoryDeduplicationStore store_;
};

TEST_P(Consumer, AStoreThatIsAwayWhenAHandlerEndsIsWaitedFor) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    EventPublisher publisher(client);
    for (const auto* what : {"good", "bad"}) co_await publisher.publish(topic, Value(what), {.key = what});
    auto store = std::make_shared<DistantStore>(clock_);
    std::multiset<std::string> handled;
    EventConsumer consumer(client,
                           {.group_id = group("g"), .concurrency = 4, .max_retry_attempts = 0, .deduplication = store});
    consumer.subscribe(topic, [&](const Event& event) -> awaitable<void> {
      handled.emplace(event.data().as_string());
      if (event.data() == "later") co_return;
      co_await until([&] { return handled.size() == 2; });
      store->is_away = true;
      if (event.data() == "bad") reject("no");
    });
    std::vector<LogRecord> lines;
    set_log_sink([&](const LogRecord& record) { lines.push_back(record); });
    set_log_level(LogLevel::warning);
    auto started = start(consumer);
    co_await until([&] { return store->refused >= 6; });
    co_await publisher.publish(topic, Value("later"), {.key = "later"});
    co_await sleep(GetParam().is_real ? 200ms : 5s);
    set_log_level(LogLevel::off);
    set_log_sink(make_log_sink(LogFormat::text));
    EXPECT_FALSE(*started.ended) << "the store's absence is no end";
    EXPECT_EQ(consumer.counts().handled, 0U) << "what the store does not know stays unsettled";
    const auto said = std::ranges::count_if(lines, [](const auto& line) {
      return line.message.starts_with("the deduplication store failed") &&
             std::ranges::any_of(line.fields,
                                 [](const auto& field) { return field.second == "no store at the moment"; });
    });
    EXPECT_EQ(said, 1) << "once an outage, with its cause";
    store->is_away = false;
    co_await until([&] { return consumer.counts().handled == 2; });
    EXPECT_EQ(handled, (std::multiset<std::string>{"bad", "good", "later"})) << "each was handled once";
    EXPECT_EQ((co_await dead_letters(client, dead_letter_topic(topic, group("g")))).size(), 1U);
    co_await finish(consumer, started);
    EXPECT_EQ((co_await client.administration().describe_topic(topic)).groups.at(0).lag, 0);
  });
}

TEST_P(Consumer, AStoreThatComesBackBeforeTheDrainHearsWhatWasDone) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    EventPublisher publisher(client);
    co_await publisher.publish(topic, Value(1));
    auto store = std::make_shared<DistantStore>(clock_);
    int handled = 0;
    const auto handler = [&](const Event&) -> awaitable<void> {
      store->is_away = ++handled == 1;
      co_return;
    };
    EventConsumer first(client, {.group_id = group("g"), .deduplication = store});
    first.subscribe(topic, handler);
    auto started = start(first);
    co_await until([&] { return store->refused >= 4; });
    store->is_away = false;
    co_await finish(first, started);
    EXPECT_EQ(first.counts().handled, 1U);
    EventConsumer second(client, {.group_id = group("g"), .deduplication = store});
    second.subscribe(topic, handler);
    started = start(second);
    co_await publisher.publish(topic, Value(2));
    co_await until([&] { return second.counts().handled == 1; });
    EXPECT_EQ(handled, 2) << "the first is done";
    co_await finish(second, started);
  });
}

TEST_P(Consumer, ACrashBetweenClaimAndDoneRepeatsTheMessage) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    auto store = std::make_shared<MemoryDeduplicationStore>(clock_);
    EventPublisher publisher(client);
    co_await publisher.publish(topic, Value(1), {.attributes = {.id = "the-id"}});
    // A member claimed it and died with it.
    EXPECT_EQ((co_await store->claim(group("g"), "the-id", scaled(5min))).outcome, Claim::Outcome::claimed);
    int handled = 0;
    EventConsumer consumer(client, {.group_id = group("g"), .deduplication = store});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      ++handled;
      co_return;
    });
    auto started = start(consumer);
    co_await sleep(scaled(4min));
    EXPECT_EQ(handled, 0);
    co_await until([&] { return handled == 1; });
    co_await finish(consumer, started);
  });
}

TEST_P(Consumer, ProbesOfAnOpenCircuitCostNoMessageItsTries) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    constexpr std::uint64_t messages = 20;
    for (std::uint64_t i = 0; i < messages; ++i) co_await client.publish(topic, Value(i), {.key = std::to_string(i)});
    bool broken = true;
    int tries = 0;
    EventConsumer consumer(client, {.group_id = group("g"),
                                    .concurrency = 1,
                                    .max_retry_attempts = 0,
                                    .initial_backoff = 1ms,
                                    .circuit_breaker = CircuitBreakerOptions{.failure_threshold = 5, .reset_timeout = scaled(10s)}});
    consumer.subscribe(topic, [&](const Event& event) -> awaitable<void> {
      ++tries;
      EXPECT_EQ(event.attempt(), 1);
      if (broken) throw std::runtime_error("downstream is out");
      co_return;
    });
    auto started = start(consumer);
    co_await until([&] { return tries >= 40; });  // two probes for each that is left
    EXPECT_EQ(consumer.counts().dead_lettered, 5U) << "those whose failures opened it";
    broken = false;
    co_await until([&] { return consumer.counts().handled == messages - 5; });
    co_await finish(consumer, started);
    EXPECT_EQ(consumer.counts().dead_lettered, 5U);
  });
}

TEST_P(Consumer, WhatWasUnderWayWhenTheCircuitOpenedKeepsItsTries) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    constexpr std::uint64_t messages = 200;
    for (std::uint64_t i = 0; i < messages; ++i) co_await client.publish(topic, Value(i));
    bool broken = true;
    std::uint64_t tries = 0;
    EventConsumer consumer(client, {.group_id = group("g"),
                                    .concurrency = 64,
                                    .ordering = Ordering::none,
                                    .max_retry_attempts = 0,
                                    .initial_backoff = 1ms,
                                    .circuit_breaker = CircuitBreakerOptions{.failure_threshold = 5, .reset_timeout = scaled(10s)}});
    consumer.subscribe(topic, [&](const Event& event) -> awaitable<void> {
      ++tries;
      EXPECT_EQ(event.attempt(), 1);
      co_await sleep(1ms);
      if (broken) throw std::runtime_error("downstream is out");
    });
    auto started = start(consumer);
    co_await until([&] { return tries >= 70; });  // all that are handled at once, and some probes
    EXPECT_EQ(consumer.counts().dead_lettered, 5U) << "those whose failures opened it";
    broken = false;
    co_await until([&] { return consumer.counts().handled == messages - 5; });
    co_await finish(consumer, started);
    EXPECT_EQ(consumer.counts().dead_lettered, 5U);
  });
}

TEST_P(Consumer, AnOpenCircuitPausesAndDoesNotEmptyTheTopic) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    for (int i = 0; i < 500; ++i) co_await client.publish(topic, Value(i), {.key = std::to_string(i)});
    bool broken = true;
    int tries = 0;
    EventConsumer consumer(client, {.group_id = group("g"),
                                    .concurrency = 4,
                                    .max_retry_attempts = 5,
                                    .initial_backoff = 1ms,
                                    .circuit_breaker = CircuitBreakerOptions{.failure_threshold = 5, .reset_timeout = scaled(60s)}});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      ++tries;
      if (broken) throw std::runtime_error("downstream is out");
      co_return;
    });
    auto started = start(consumer);
    co_await until([&] { return tries >= 5; });
    EXPECT_EQ(consumer.circuit(), CircuitState::open);
    EXPECT_LE(tries, 9);
    co_await sleep(scaled(10min));
    EXPECT_LE(tries, 30) << "one probe a minute";
    EXPECT_LE(consumer.counts().dead_lettered, 5U);
    broken = false;
    co_await until([&] { return consumer.counts().handled + consumer.counts().dead_lettered == 500; });
    EXPECT_EQ(consumer.circuit(), CircuitState::closed);
    co_await finish(consumer, started);
  });
}

TEST_P(Consumer, StopDrainsAndTheRestGoesToAnother) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    for (int i = 0; i < 100; ++i) co_await client.publish(topic, Value(i), {.key = std::to_string(i)});
    std::multiset<std::int64_t> handled;
    const auto handler = [&](const Event& event) -> awaitable<void> {
      const auto n = event.data().as_int64();
      co_await sleep(100ms);
      handled.insert(n);
    };
    EventConsumer first(client, {.group_id = group("g"), .concurrency = 10});
    first.subscribe(topic, handler);
    auto started = start(first);
    co_await until([&] { return handled.size() >= 20; });
    co_await sleep(50ms);  // in the midst of the next ten
    co_await finish(first, started);
    EXPECT_EQ(handled.size(), 30U) << "running handlers finish, no new one begins";
    EventConsumer second(client, {.group_id = group("g"), .concurrency = 10});
    second.subscribe(topic, handler);
    auto again = start(second);
    co_await until([&] { return std::set<std::int64_t>(handled.begin(), handled.end()).size() == 100; });
    co_await finish(second, again);
  });
}

TEST_P(Consumer, CancellingStartDrainsToo) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    co_await client.publish(topic, Value(1));
    bool finished = false;
    EventConsumer consumer(client, {.group_id = group("g")});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      co_await sleep(5s);
      finished = true;
    });
    auto started = start(consumer);
    co_await sleep(1s);
    started.cancel->emit(asio::cancellation_type::terminal);
    co_await until([&] { return *started.ended; });
    EXPECT_TRUE(finished);
    EXPECT_EQ(consumer.counts().handled, 1U);
    EXPECT_TRUE(*started.error);
  });
}

TEST_P(Consumer, AHandlerThatIgnoresTheDrainIsCancelledAndItsMessageComesBack) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    co_await client.publish(topic, Value(1));
    EventConsumer consumer(client, {.group_id = group("g"), .drain_timeout = 2s});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> { co_await sleep(1h); });
    auto started = start(consumer);
    co_await sleep(1s);
    const auto stopped = clock_->now();
    co_await finish(consumer, started);
    EXPECT_LT(clock_->now() - stopped, 4s);
    auto again = co_await client.subscribe(topic, {.group_id = group("g")});
    EXPECT_EQ((co_await again.next())->value(), 1);
  });
}

TEST_P(Consumer, AHandlerThatEndsAfterItsConsumerHarmsNothing) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    co_await client.publish(topic, Value(1));
    EventConsumer consumer(client, {.group_id = group("g"), .drain_timeout = 10ms});
    bool running = false;
    bool ended = false;
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      running = true;
      co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
      co_await sleep(2s);
      ended = true;
    });
    auto started = start(consumer);
    co_await until([&] { return running; });
    co_await finish(consumer, started);
    EXPECT_FALSE(ended);
    co_await until([&] { return ended; });
    co_await sleep(1ms);
    auto again = co_await client.subscribe(topic, {.group_id = group("g")});
    EXPECT_EQ((co_await again.next())->value(), 1) << "it was given up when the consumer ended";
  });
}

TEST_P(Consumer, StopFromWithinAHandlerAndStartTwice) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    EventConsumer consumer(client, {.group_id = group("g")});
    int handled = 0;
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      ++handled;
      consumer.stop();
      co_return;
    });
    auto started = start(consumer);
    co_await sleep(1ms);
    EXPECT_EQ(co_await error_of(consumer.start()), errc::already_started);
    co_await client.publish(topic, Value(1));
    co_await until([&] { return *started.ended; });
    EXPECT_EQ(handled, 1);
    auto again = start(consumer);
    co_await client.publish(topic, Value(2));
    co_await until([&] { return *again.ended; });
    EXPECT_EQ(handled, 2);
  });
}

TEST_P(Consumer, WhatFailsDuringTheDrainIsNotKeptForTheNextStart) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    co_await client.publish(topic, Value(1), {.key = "k"});
    bool running = false;
    bool broken = true;
    int handled = 0;
    EventConsumer consumer(client, {.group_id = group("g"),
                                    .initial_backoff = 1ms,
                                    .deduplication = std::make_shared<MemoryDeduplicationStore>(clock_)});
    consumer.subscribe(topic, [&](const Event& event) -> awaitable<void> {
      running = true;
      co_await sleep(100ms);
      if (broken) throw std::runtime_error("no");
      EXPECT_EQ(event.attempt(), 1) << "it was delivered anew";
      ++handled;
    });
    auto started = start(consumer);
    co_await until([&] { return running; });
    co_await finish(consumer, started);
    broken = false;
    started = start(consumer);
    co_await until([&] { return handled == 1; });
    co_await client.publish(topic, Value(2), {.key = "k"});
    co_await until([&] { return handled == 2; });
    EXPECT_EQ(consumer.counts().received, 3U);
    co_await finish(consumer, started);
    EXPECT_EQ(consumer.counts().handled, 2U);
  });
}

TEST_P(Consumer, StopBeforeTheFirstStepEndsThatStartAlone) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    EventConsumer consumer(client, {.group_id = group("g")});
    consumer.subscribe(topic, [](const Event&) -> awaitable<void> { co_return; });
    auto first = consumer.start();
    consumer.stop();
    co_await std::move(first);
    auto started = start(consumer);
    co_await client.publish(topic, Value(1));
    co_await until([&] { return consumer.counts().handled == 1; });
    co_await finish(consumer, started);
  });
}

TEST_P(Consumer, StopBeforeTheFirstStartEndsThatStartAlone) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    EventConsumer consumer(client, {.group_id = group("g")});
    consumer.subscribe(topic, [](const Event&) -> awaitable<void> { co_return; });
    consumer.stop();
    auto started = start(consumer);
    co_await until([&] { return *started.ended; });
    co_await client.publish(topic, Value(1));
    started = start(consumer);
    co_await until([&] { return consumer.counts().handled == 1; });
    co_await finish(consumer, started);
    consumer.stop();  // it does not run, and has run: there is nothing to end
    co_await client.publish(topic, Value(2));
    started = start(consumer);
    co_await until([&] { return consumer.counts().handled == 2; });
    co_await finish(consumer, started);
  });
}

TEST_P(Consumer, ASlowHandlerHoldsNoMoreThanPrefetch) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    for (int i = 0; i < 2000; ++i) co_await client.publish(topic, Value(i), {.key = std::to_string(i)});
    EventConsumer consumer(client, {.group_id = group("g"), .concurrency = 2, .drain_timeout = 1s, .prefetch = 50});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> { co_await sleep(1h); });
    auto started = start(consumer);
    co_await sleep(10s);
    EXPECT_EQ(consumer.counts().received, 50U);
    co_await finish(consumer, started);
  });
}

TEST_P(Consumer, DeadLettersSwitchedOffDiscardsAndSaysSo) {
  run([&]() -> awaitable<void> {
    auto client = broker();
    const auto topic = unique();
    co_await client.publish(topic, Value(1));
    EventConsumer consumer(client, {.group_id = group("g"), .max_retry_attempts = 0, .enable_dead_letter_queue = false});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      throw std::runtime_error("no");
      co_return;
    });
    std::vector<std::string> lines;
    set_log_level(LogLevel::error);
    set_log_sink([&](const LogRecord& record) { lines.push_back(record.message); });
    auto started = start(consumer);
    co_await until([&] { return consumer.counts().discarded == 1; });
    co_await finish(consumer, started);
    set_log_sink(make_log_sink(LogFormat::text));
    EXPECT_EQ(lines.size(), 1U);
    auto left = co_await client.administration().describe_topic(topic);
    EXPECT_EQ(left.groups.at(0).lag, 0);
  });
}

MAESTRO_CONTRACT(Consumer);

}  // namespace
}  // namespace maestro::messaging::testing

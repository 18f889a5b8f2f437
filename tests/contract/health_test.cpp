#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

class Health : public Contract {
 protected:
  static double health() { return metrics_registry()->gauge("messaging_broker_health", {{"broker", "memory"}}).value(); }
  static std::uint64_t reconnects() {
    return metrics_registry()->counter("messaging_reconnects_total", {{"broker", "memory"}}).value();
  }
  MessageBroker watched(ConfigMap connection) {
    auto made = config();
    made.enable_monitoring = true;
    made.connection_config.merge(connection);
    return {context_->get_executor(), std::move(made)};
  }
};

TEST_P(Health, IsFalseWhileTheBrokerIsAwayAndTrueAgain) {
  run([&]() -> awaitable<void> {
    auto client = watched({{"fault_disconnect", 0.5}, {"fault_seed", 11}});
    const auto before = reconnects();
    std::uint64_t returns = 0;
    bool was_healthy = true;
    int unhealthy = 0;
    for (int i = 0; i < 100; ++i) {
      const bool healthy = co_await client.health_check();
      EXPECT_EQ(health(), healthy ? 1 : 0);
      const auto status = co_await client.get_status();
      if (!healthy) EXPECT_NE(status.last_error.find("the connection broke"), std::string::npos);
      unhealthy += !healthy;
      returns += healthy && !was_healthy;
      was_healthy = healthy;
    }
    EXPECT_GT(unhealthy, 10);
    EXPECT_LT(unhealthy, 90);
    EXPECT_EQ(reconnects() - before, returns) << "each time that it is there again counts";
  });
}

TEST_P(Health, ReadinessSaysWhatIsNotReady) {
  run([&]() -> awaitable<void> {
    auto client = watched({});
    EventConsumer consumer(client, {.group_id = group("g")});
    consumer.subscribe(unique(), [](const Event&) -> awaitable<void> { co_return; });
    EXPECT_EQ((co_await client.readiness()).not_ready, std::vector<std::string>{});
    EXPECT_EQ((co_await consumer.readiness()).not_ready, std::vector<std::string>{"the consumer of group \"" + group("g") + "\" does not run"});
    auto started = start(consumer);
    co_await sleep(1s);
    EXPECT_EQ((co_await consumer.readiness()).not_ready, std::vector<std::string>{});
    co_await finish(consumer, started);
    co_await client.disconnect();
    const auto report = co_await client.readiness();
    EXPECT_EQ(report.not_ready.size(), 1U);
    EXPECT_NE(report.not_ready.at(0).find("disconnected"), std::string::npos);
  });
}

TEST_P(Health, ASubscriptionThatConnectsAnewCounts) {
  run([&]() -> awaitable<void> {
    auto client = watched({{"fault_disconnect", 0.2}, {"fault_seed", 5}});
    const auto topic = unique();
    const auto before = reconnects();
    auto reader = co_await client.subscribe(topic, {.group_id = group("g")});
    for (int i = 0; i < 50; ++i) {
      co_await client.publish(topic, Value(i), {.key = "k"});
      while ((co_await reader.next())->value() != i) {
      }
    }
    EXPECT_GT(reconnects() - before, 0U);
  });
}

TEST_P(Health, WhatMayNeverHappenIsThereFromTheBeginning) {
  auto client = watched({});
  const auto text = metrics_registry()->expose();
  EXPECT_NE(text.find("messaging_circuit_state{broker=\"memory\",operation=\"publish\"} "), std::string::npos);
  EXPECT_NE(text.find("messaging_reconnects_total{broker=\"memory\"} "), std::string::npos);
}

TEST_P(Health, WhatAHandlerFailedOfSaysWhat) {
  run([&]() -> awaitable<void> {
    auto client = watched({});
    const auto topic = unique();
    const auto count = [](const char* error) {
      return metrics_registry()
          ->counter("messaging_errors_total", {{"broker", "memory"}, {"operation", "handle"}, {"error", error}})
          .value();
    };
    std::map<std::string, std::uint64_t> before;
    for (const auto* error : {"handler_error", "rejected", "undecodable", "broker_error"}) before[error] = count(error);
    co_await client.publish(topic, Payload(std::string("not JSON")));
    for (const auto* what : {"throw", "reject"}) co_await client.publish(topic, Value(what));
    EventConsumer consumer(
        client, {.group_id = group("g"), .max_retry_attempts = 1, .circuit_breaker = CircuitBreakerOptions{}});
    consumer.subscribe(topic, [&](const Event& event) -> awaitable<void> {
      if (event.data() == "reject") reject("no");
      throw std::runtime_error("no");
      co_return;
    });
    auto started = start(consumer);
    co_await until([&] { return consumer.counts().dead_lettered == 3; });
    EXPECT_NE(metrics_registry()->expose().find("messaging_circuit_state{broker=\"memory\",operation=\"consume\"} 0"),
              std::string::npos);
    co_await finish(consumer, started);
    EXPECT_EQ(count("handler_error") - before["handler_error"], 2U);
    EXPECT_EQ(count("rejected") - before["rejected"], 1U);
    EXPECT_EQ(count("undecodable") - before["undecodable"], 1U);
    EXPECT_EQ(count("broker_error") - before["broker_error"], 0U);
  });
}

TEST_P(Health, TheConsumersCircuitIsShownAsItIs) {
  run([&]() -> awaitable<void> {
    auto client = watched({});
    const auto topic = unique();
    const auto shown = [] {
      const auto& gauge =
          metrics_registry()->gauge("messaging_circuit_state", {{"broker", "memory"}, {"operation", "consume"}});
      return static_cast<CircuitState>(gauge.value());
    };
    for (int i = 0; i < 10; ++i) co_await client.publish(topic, Value(i), {.key = std::to_string(i)});
    bool broken = true;
    Duration work = 0s;
    EventConsumer consumer(client,
                           {.group_id = group("g"),
                            .concurrency = 1,
                            .max_retry_attempts = 50,
                            .circuit_breaker = CircuitBreakerOptions{.failure_threshold = 3, .reset_timeout = 60s}});
    consumer.subscribe(topic, [&](const Event&) -> awaitable<void> {
      if (work > 0s) co_await sleep(work);
      if (broken) throw std::runtime_error("downstream is out");
    });
    auto started = start(consumer);
    co_await until([&] { return shown() == CircuitState::open; });
    EXPECT_EQ(consumer.circuit(), CircuitState::open);
    broken = false;
    work = 5s;
    co_await until([&] { return shown() == CircuitState::half_open; });
    EXPECT_EQ(consumer.circuit(), CircuitState::half_open);
    co_await until([&] { return consumer.counts().handled == 10; });
    EXPECT_EQ(shown(), CircuitState::closed);
    broken = true;
    for (int i = 0; i < 3; ++i) co_await client.publish(topic, Value(i), {.key = std::to_string(i)});
    co_await until([&] { return shown() == CircuitState::open; });
    co_await finish(consumer, started);
    EXPECT_EQ(shown(), CircuitState::closed) << "who does not run is not paused";
  });
}

TEST_P(Health, TheLagOfAPartitionThatMovedAwayIsZero) {
  run([&]() -> awaitable<void> {
    const ConfigMap connection{{"partitions", 2}, {"rebalance_timeout", 1000}};
    auto client = watched(connection);
    const auto topic = unique();
    for (int i = 0; i < 10; ++i) co_await client.publish(topic, Value(i), {.partition = i % 2});
    const auto lag = [&](const char* partition) {
      return metrics_registry()
          ->gauge("messaging_consumer_lag", {{"broker", "memory"}, {"topic", topic}, {"group", "g"}, {"partition", partition}})
          .value();
    };
    const auto stuck = [&](const Event&) -> awaitable<void> { co_await sleep(1h); };
    EventConsumer first(client, {.group_id = group("g"), .drain_timeout = 1s});
    first.subscribe(topic, stuck);
    auto first_run = start(first);
    co_await until([&] { return lag("0") == 5 && lag("1") == 5; });
    EventConsumer second(broker(connection), {.group_id = group("g"), .drain_timeout = 1s});
    second.subscribe(topic, stuck);
    auto second_run = start(second);
    co_await sleep(20s);
    EXPECT_EQ(lag("0") + lag("1"), 5) << "one partition is the other member's";
    co_await finish(first, first_run);
    EXPECT_EQ(lag("0") + lag("1"), 0) << "who has left has no lag";
    co_await finish(second, second_run);
  });
}

TEST_P(Health, TheLagOfWhatIsReadByHandIsShown) {
  run([&]() -> awaitable<void> {
    auto client = watched({{"partitions", 2}});
    const auto topic = unique();
    for (int i = 0; i < 10; ++i) co_await client.publish(topic, Value(i), {.partition = i % 2});
    const auto lag = [&](const char* partition) {
      return metrics_registry()
          ->gauge("messaging_consumer_lag", {{"broker", "memory"}, {"topic", topic}, {"group", group("g")}, {"partition", partition}})
          .value();
    };
    std::optional<Subscription> reader(co_await client.subscribe(topic, {.group_id = group("g"), .enable_auto_commit = false}));
    co_await until([&] { return lag("0") == 5 && lag("1") == 5; });
    for (int i = 0; i < 10; ++i)
      if (const auto message = co_await reader->next(); message->position().partition == 0) reader->acknowledge(*message);
    co_await sleep(6s);
    EXPECT_EQ(lag("0"), 0);
    EXPECT_EQ(lag("1"), 5);
    co_await reader->close();
    EXPECT_EQ(lag("1"), 0) << "who has left has no lag";
    reader.emplace(co_await client.subscribe(topic, {.group_id = group("g")}));
    co_await until([&] { return lag("1") == 5; });
    reader.reset();
    EXPECT_EQ(lag("1"), 0) << "nor has who was dropped";
  });
}

MAESTRO_CONTRACT_ON_MEMORY(Health);

}  // namespace
}  // namespace maestro::messaging::testing

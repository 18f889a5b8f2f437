#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

/// Publishes meet a broken connection, so that most fail within the timeout and some do not.
class PublishCircuit : public Contract {
 protected:
  MessageBroker failing(double probability, std::int64_t reset_ms = 10'000) {
    return broker({{"fault_publish_failure", probability}, {"fault_seed", 3}}, {},
                  {{"publish_timeout", 100}, {"circuit_failure_threshold", 3}, {"circuit_reset_timeout", reset_ms}});
  }
};

TEST_P(PublishCircuit, OpenItFailsFastAndSaysUntilWhen) {
  run([&]() -> awaitable<void> {
    auto client = failing(1);
    const auto topic = unique();
    for (int i = 0; i < 3; ++i)
      EXPECT_EQ(co_await error_of(ignore(client.publish(topic, Value(i)))), errc::connection_failed);
    EXPECT_EQ((co_await client.get_status()).circuit, CircuitState::open);
    co_await sleep(4s);
    const auto began = clock_->now();
    std::string why;
    try {
      co_await client.publish(topic, Value("now"));
    } catch (const MessagingError& error) {
      EXPECT_EQ(error.reason(), errc::circuit_open);
      why = error.detail();
    }
    EXPECT_EQ(clock_->now(), began) << "it does not wait for the timeout";
    EXPECT_NE(why.find("3 publishes failed in a row"), std::string::npos) << why;
    const auto at = why.find("the next try is in ");
    EXPECT_NE(at, std::string::npos) << why;
    const auto left = std::chrono::milliseconds(std::stoi(why.substr(at + 19)));
    EXPECT_LE(left, 6s);
    EXPECT_GE(left, 5s);
    // A millisecond before it is refused still; then one publish tries for all.
    co_await sleep(left - 2ms);
    EXPECT_EQ(co_await error_of(ignore(client.publish(topic, Value("early")))), errc::circuit_open);
    co_await sleep(2ms);
    EXPECT_EQ(co_await error_of(ignore(client.publish(topic, Value("probe")))), errc::connection_failed);
    EXPECT_EQ(co_await error_of(ignore(client.publish(topic, Value("after")))), errc::circuit_open);
  });
}

TEST_P(PublishCircuit, ClosesWhenAProbeSucceeds) {
  run([&]() -> awaitable<void> {
    auto client = failing(0.93);
    const auto topic = unique();
    const auto state = [&]() -> awaitable<CircuitState> { co_return (co_await client.get_status()).circuit; };
    int confirmed = 0;
    for (int i = 0; i < 1000 && co_await state() != CircuitState::open; ++i)
      confirmed += !co_await error_of(ignore(client.publish(topic, Value(i))));
    EXPECT_EQ(co_await state(), CircuitState::open);
    int probes = 0;
    while (co_await state() != CircuitState::closed && probes < 1000) {
      co_await sleep(10s);
      EXPECT_EQ(co_await state(), CircuitState::half_open);
      ++probes;
      confirmed += !co_await error_of(ignore(client.publish(topic, Value("probe"))));
    }
    EXPECT_EQ(co_await state(), CircuitState::closed) << "after " << probes << " probes";
    EXPECT_NE(co_await error_of(ignore(client.publish(topic, Value("after")))), errc::circuit_open);
    EXPECT_GE((co_await client.administration().describe_topic(topic)).messages, confirmed);
  });
}

TEST_P(PublishCircuit, AProbeThatIsCancelledOrEmptyDoesNotKeepItOpen) {
  run([&]() -> awaitable<void> {
    auto client = failing(1);
    const auto topic = unique();
    for (int i = 0; i < 3; ++i) co_await error_of(ignore(client.publish(topic, Value(i))));
    co_await sleep(11s);
    EXPECT_FALSE(co_await cancelled_after(2, ignore(client.publish(topic, Value("cancelled")))));
    EXPECT_TRUE((co_await client.publish_many({})).empty());
    EXPECT_EQ(co_await error_of(ignore(client.publish(topic, Value("probe")))), errc::connection_failed)
        << "the next publish is the probe";
  });
}

TEST_P(PublishCircuit, WhatItRefusesIsCounted) {
  run([&]() -> awaitable<void> {
    auto made = config();
    made.enable_monitoring = true;
    made.connection_config = {{"fault_publish_failure", 1}, {"fault_seed", 3}};
    made.producer_config = {{"publish_timeout", 100}, {"circuit_failure_threshold", 3}};
    MessageBroker client(context_->get_executor(), std::move(made));
    const auto topic = unique();
    for (int i = 0; i < 3; ++i) co_await error_of(ignore(client.publish(topic, Value(i))));
    const auto& failed = metrics_registry()->counter("messaging_messages_published_total",
                                                     {{"broker", "memory"}, {"topic", topic}, {"status", "failed"}});
    const auto& refused = metrics_registry()->counter(
        "messaging_errors_total", {{"broker", "memory"}, {"operation", "publish"}, {"error", "circuit_open"}});
    EXPECT_EQ(failed.value(), 3U);
    const auto before = refused.value();
    EXPECT_EQ(co_await error_of(ignore(client.publish(topic, Value("one")))), errc::circuit_open);
    std::vector<OutgoingMessage> batch(2, OutgoingMessage{.topic = topic});
    EXPECT_EQ(co_await error_of(ignore(client.publish_many(std::move(batch)))), errc::circuit_open);
    EXPECT_EQ(failed.value(), 6U);
    EXPECT_EQ(refused.value() - before, 3U);
    co_await client.publish(topic, Value("buffered"), {.confirm = false});
    EXPECT_EQ((co_await client.flush()).failures.size(), 1U);
    EXPECT_EQ(failed.value(), 7U);
    EXPECT_EQ(refused.value() - before, 4U);
  });
}

TEST_P(PublishCircuit, IsShownAsItIs) {
  run([&]() -> awaitable<void> {
    auto made = config();
    made.enable_monitoring = true;
    made.connection_config = {{"fault_publish_failure", 0.93}, {"fault_seed", 3}};
    made.producer_config = {{"publish_timeout", 100}, {"circuit_failure_threshold", 3}};
    MessageBroker client(context_->get_executor(), std::move(made));
    const auto topic = unique();
    const auto shown = [] {
      const auto& gauge =
          metrics_registry()->gauge("messaging_circuit_state", {{"broker", "memory"}, {"operation", "publish"}});
      return static_cast<CircuitState>(gauge.value());
    };
    const auto fail_until_open = [&]() -> awaitable<void> {
      for (int i = 0; i < 1000 && shown() != CircuitState::open; ++i)
        co_await error_of(ignore(client.publish(topic, Value(i))));
      EXPECT_EQ((co_await client.get_status()).circuit, CircuitState::open);
    };
    co_await fail_until_open();
    int probes = 0;
    for (; shown() != CircuitState::closed && probes < 1000; ++probes) {
      co_await sleep(10s);
      bool probed = false;
      asio::co_spawn(*context_, error_of(ignore(client.publish(topic, Value("probe")))),
                     [&](auto&&...) { probed = true; });
      co_await sleep(1ms);
      if (!probed) EXPECT_EQ(shown(), CircuitState::half_open) << "while it tries";
      co_await until([&] { return probed; });
    }
    EXPECT_LT(probes, 1000);
    EXPECT_EQ((co_await client.get_status()).circuit, CircuitState::closed);
    co_await fail_until_open();
    co_await client.disconnect();
    EXPECT_EQ(shown(), CircuitState::closed) << "nobody is refused by it any more";
  });
}

MAESTRO_CONTRACT_ON_MEMORY(PublishCircuit);

}  // namespace
}  // namespace maestro::messaging::testing

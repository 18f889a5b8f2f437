#include <fmt/format.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "runtime/notifier.hpp"
#include "support/faulty_server.hpp"
#include "support/real_time.hpp"
#include "support/redis_cli.hpp"

namespace maestro::messaging::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

/// `mode=pubsub`, on the real server.
class RedisChannels : public ::testing::Test {
 protected:
  [[nodiscard]] static MessageBroker broker(boost::asio::io_context& context, const std::string& url, ConfigMap producer = {},
                                            ConfigMap consumer = {}) {
    auto config = MessagingConfig::from_url(url);
    config.connection_config = {{"mode", "pubsub"}};
    config.producer_config = std::move(producer);
    config.consumer_config = std::move(consumer);
    config.enable_monitoring = true;
    return {context.get_executor(), std::move(config)};
  }
  [[nodiscard]] MessageBroker broker(boost::asio::io_context& context, ConfigMap producer = {}) const {
    return broker(context, server_.url, std::move(producer));
  }
  /// What another client publishes.
  [[nodiscard]] std::string publish(const std::string& channel, const std::string& payload) const {
    return redis_cli(server_.url, fmt::format("PUBLISH '{}' '{}'", channel, payload));
  }
  static std::string unique(const std::string& name) {
    static const auto run = std::random_device{}();
    return fmt::format("{}.r{:08x}", name, run);
  }
  static std::uint64_t count(const std::string& family, const MetricLabels& labels) {
    return metrics_registry()->counter(family, labels).value();
  }
  Server server_ = server("redis");
};

TEST_F(RedisChannels, OtherClientsAndThisOneUnderstandEachOther) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context);
    const auto topic = unique("chat");
    auto reader = co_await client.subscribe(topic);
    EXPECT_EQ(publish(topic, R"({"a":1})"), "1\n");
    const auto message = co_await reader.next();
    EXPECT_EQ(message->value(), (Value{{"a", 1}}));
    EXPECT_EQ(message->topic(), topic);
    EXPECT_EQ(message->key(), std::nullopt);

    const auto log = std::filesystem::temp_directory_path() / topic;
    const auto listen = fmt::format("timeout 5 redis-cli -p {} SUBSCRIBE {} > {} & echo $!", port_of(server_.url), topic, log.string());
    EXPECT_EQ(std::system(listen.c_str()), 0);
    while (redis_cli(server_.url, "PUBSUB NUMSUB " + topic) != topic + "\n2\n") co_await sleep_for(*Clock::real(), 10ms);
    const auto receipt = co_await EventPublisher(client).publish(topic, Value{{"b", 2}});
    EXPECT_TRUE(receipt.routed);
    EXPECT_EQ((co_await reader.next())->value(), (Value{{"b", 2}}));
    std::string heard;
    const auto deadline = Clock::real()->now() + 5s;
    while (heard.find("{\"b\":2}\n") == std::string::npos && Clock::real()->now() < deadline) {
      co_await sleep_for(*Clock::real(), 10ms);
      std::ifstream file(log);
      heard.assign(std::istreambuf_iterator<char>(file), {});
    }
    EXPECT_THAT(heard, HasSubstr("\n{\"b\":2}\n")) << "the payload as it is";
    std::filesystem::remove(log);
    co_await client.disconnect();
  });
}

TEST_F(RedisChannels, PatternsKeepToWholeTokens) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context);
    const auto base = unique("pattern");
    auto one = co_await client.subscribe(base + ".*.end");
    auto rest = co_await client.subscribe(base + ".a?[b].>");
    EXPECT_EQ(publish(base + ".x.y.end", "two tokens"), "1\n") << "the server's own pattern is wider";
    EXPECT_EQ(publish(base + "..end", "an empty token"), "1\n");
    EXPECT_EQ(publish(base + ".x.end", "one token"), "1\n");
    EXPECT_EQ((co_await one.next())->body(), "one token");
    EXPECT_EQ(publish(base + ".aab.z", "not literally"), "0\n");
    EXPECT_EQ(publish(base + ".a?[b]", "nothing behind"), "0\n");
    EXPECT_EQ(publish(base + ".a?[b].y.z", "both"), "1\n");
    const auto message = co_await rest.next();
    EXPECT_EQ(message->body(), "both");
    EXPECT_EQ(message->topic(), base + ".a?[b].y.z");
    co_await client.disconnect();
  });
}

TEST_F(RedisChannels, AnEnvelopeCarriesWhatABarePayloadCannot) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto bare = broker(context);
    auto wrapping = broker(context, {{"pubsub_envelope", true}});
    const auto topic = unique("envelope");
    auto reader = co_await bare.subscribe(topic);
    const std::string bytes("\x00\xff\r\n$", 5);
    co_await wrapping.publish(topic, Payload(bytes), {.key = "k", .headers = {{"n", "1"}, {"n", "2"}}});
    const auto message = co_await reader.next();
    EXPECT_EQ(message->body(), bytes);
    EXPECT_EQ(message->key(), "k");
    std::vector<std::string> values;
    for (const auto [name, value] : message->headers()) values.emplace_back(std::string(name) + std::string(value));
    EXPECT_EQ(values, (std::vector<std::string>{"n1", "n2"}));
    co_await bare.publish(topic, Payload(bytes));
    EXPECT_EQ((co_await reader.next())->body(), bytes);
    // What only looks like an envelope is a payload.
    for (const auto* text : {R"({"maestro":1,)", R"({"maestro":1,"key":7,"payload":"x"})", R"({"maestro":1,"headers":[["n"]],"payload":"x"})",
                             R"({"maestro":1,"payload_base64":"*"})"}) {
      static_cast<void>(publish(topic, text));
      EXPECT_EQ((co_await reader.next())->body(), text);
    }
    const auto keyed = [&]() -> awaitable<void> { co_await bare.publish(topic, Value(1), {.key = "k"}); };
    EXPECT_THAT((co_await failure_of(keyed())).what(), HasSubstr("key \"k\": with mode=pubsub a channel carries the payload alone"));
    const auto headed = [&]() -> awaitable<void> { co_await bare.publish(topic, Value(1), {.headers = {{"tenant", "t"}}}); };
    EXPECT_THAT((co_await failure_of(headed())).what(), HasSubstr("header \"tenant\""));
    // By who set it, and not by its name alone.
    for (const auto* name : {"ce_tenant", "content-type", "traceparent", "message-id"}) {
      const auto given = [&]() -> awaitable<void> {
        co_await bare.publish(topic, Value(1), {.headers = {{name, "x"}}});
      };
      EXPECT_THAT((co_await failure_of(given())).what(), HasSubstr(fmt::format("header \"{}\"", name)));
    }
    const auto event = [&]() -> awaitable<void> {
      co_await EventPublisher(bare).publish(topic, Value(1), {.headers = {{"ce_tenant", "x"}}});
    };
    EXPECT_THAT((co_await failure_of(event())).what(), HasSubstr("header \"ce_tenant\""));
    co_await bare.disconnect();
    co_await wrapping.disconnect();
  });
}

TEST_F(RedisChannels, AMessageThatNobodyHearsIsCountedOrRefused) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context);
    const auto topic = unique("nobody");
    EXPECT_FALSE((co_await client.publish(topic, Value(1))).routed);
    const auto results = co_await client.publish_many({{.topic = topic, .payload = Payload("2")}, {.topic = topic, .payload = Payload("3")}});
    EXPECT_FALSE(results[1].receipt.routed);
    co_await client.publish(topic, Value(4), {.confirm = false});
    EXPECT_EQ((co_await client.flush()).confirmed, 1U);
    EXPECT_EQ(count("messaging_messages_published_total", {{"broker", "redis"}, {"topic", topic}, {"status", "unrouted"}}), 4U);
    EXPECT_EQ(count("messaging_messages_published_total", {{"broker", "redis"}, {"topic", topic}, {"status", "ok"}}), 0U);
    auto strict = broker(context, {{"require_routing", true}});
    const auto refused = [&]() -> awaitable<void> { co_await strict.publish(topic, Value(5)); };
    const auto failure = co_await failure_of(refused());
    EXPECT_EQ(failure.reason(), errc::not_routed);
    EXPECT_THAT(failure.code().message(), Not(HasSubstr("queue"))) << "there is none here";
    co_await client.disconnect();
    co_await strict.disconnect();
  });
}

TEST_F(RedisChannels, ACutConnectionIsSubscribedAgain) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context);
    const auto topic = unique("cut");
    auto reader = co_await client.subscribe(topic);
    auto pattern = co_await client.subscribe(topic + ".>");
    const auto before = count("messaging_reconnects_total", {{"broker", "redis"}});
    redis_cli(server_.url, "CLIENT KILL TYPE pubsub");
    while (publish(topic, "again") != "1\n") co_await sleep_for(*Clock::real(), 10ms);
    EXPECT_EQ((co_await reader.next())->body(), "again");
    while (publish(topic + ".x", "again") != "1\n") co_await sleep_for(*Clock::real(), 10ms);
    EXPECT_EQ((co_await pattern.next())->body(), "again");
    EXPECT_EQ(count("messaging_reconnects_total", {{"broker", "redis"}}), before + 2);
    co_await client.disconnect();
  });
}

TEST_F(RedisChannels, WhatNeedsAPlaceThatIsKeptIsRefused) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context);
    const auto topic = unique("refused");
    const auto grouped = [&]() -> awaitable<void> { co_await client.subscribe(topic, {.group_id = "g"}); };
    EXPECT_EQ((co_await failure_of(grouped())).reason(), errc::unsupported);
    EventConsumer consumer(client, {.group_id = "g"});
    consumer.subscribe(topic, [](const Event&) -> awaitable<void> { co_return; });
    const auto failure = co_await failure_of(consumer.start());
    EXPECT_EQ(failure.reason(), errc::unsupported);
    EXPECT_THAT(failure.what(), HasSubstr("redis cannot keep a consumer group in this mode"));
    auto reader = co_await client.subscribe(topic);
    EXPECT_EQ((co_await failure_of(reader.seek(topic, -1, -1))).reason(), errc::unsupported);
    EXPECT_THROW(static_cast<void>(client.administration()), MessagingError);
    EXPECT_EQ((co_await failure_of(client.transaction([](Transaction&) -> awaitable<void> { co_return; }))).reason(), errc::unsupported);
    EXPECT_THAT((co_await client.get_status()).acknowledged_means, HasSubstr("kept nowhere"));
    EXPECT_EQ(publish(topic, "one"), "1\n");
    const auto message = co_await reader.next();
    const auto release = [&] { reader.release(*message, 1s); };
    EXPECT_THROW(release(), MessagingError);
    co_await client.disconnect();
  });
}

TEST_F(RedisChannels, ASubscriberThatIsTooSlowIsToldWhatItMissed) {
  const FaultyServer own("redis");
  redis_cli(own.url(), "CONFIG SET client-output-buffer-limit 'pubsub 1048576 0 0'");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto client = broker(context, own.url(), {}, {{"prefetch", 10}});
    auto publisher = broker(context, own.url());
    auto reader = co_await client.subscribe("flood");
    const MetricLabels lost{{"broker", "redis"}, {"operation", "subscribe"}, {"error", "messages_lost"}};
    const auto before = count("messaging_errors_total", lost);
    const Payload large(std::string(10'000, 'x'));
    constexpr std::size_t most = 10'000;
    std::size_t sent = 0;
    for (bool heard = true; heard && sent < most; ++sent) heard = (co_await publisher.publish("flood", large)).routed;
    EXPECT_LT(sent, most) << "the server holds a bounded part for a subscriber that does not read";
    // It reads on, and is there again.
    std::size_t seen = 0;
    bool last = false;
    const auto deadline = Clock::real()->now() + 20s;
    const auto read = [&]() -> awaitable<void> {
      while (!last) {
        const auto message = co_await reader.next();
        if (!message) co_return;
        ++seen;
        last = message->body() == "last";
      }
    };
    boost::asio::co_spawn(context, read(), boost::asio::detached);
    while (!last && Clock::real()->now() < deadline) {
      co_await publisher.publish("flood", Payload("last"));
      co_await sleep_for(*Clock::real(), 20ms);
    }
    EXPECT_TRUE(last);
    EXPECT_LT(seen, sent);
    EXPECT_EQ(count("messaging_errors_total", lost), before + 1);
    co_await client.disconnect();
    co_await publisher.disconnect();
  });
}

}  // namespace
}  // namespace maestro::messaging::testing

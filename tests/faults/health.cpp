#include "faults/health.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>

#include "runtime/notifier.hpp"
#include "support/real_time.hpp"

namespace maestro::messaging::testing {

using namespace std::chrono_literals;

void expect_health_to_follow(const std::string& broker, FaultyServer& server) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto config = MessagingConfig::from_url(server.url());
    config.enable_monitoring = true;
    MessageBroker client(context.get_executor(), std::move(config));
    const auto& gauge = metrics_registry()->gauge("messaging_broker_health", {{"broker", broker}});
    const auto clock = Clock::real();
    const auto becomes = [&](double value, Duration limit) -> awaitable<bool> {
      const auto deadline = clock->now() + limit;
      while (gauge.value() != value && clock->now() < deadline) co_await sleep_for(*clock, 10ms);
      co_return gauge.value() == value;
    };
    co_await client.publish("orders", Value(1));
    auto reader = co_await client.subscribe("orders", {.group_id = "g"});
    EXPECT_EQ((co_await reader.next())->value(), 1);
    EXPECT_EQ(gauge.value(), 1);
    co_await server.kill();
    EXPECT_TRUE(co_await becomes(0, 15s)) << "killed";
    co_await server.revive();
    EXPECT_TRUE(co_await becomes(1, 60s)) << "started again";
    EXPECT_TRUE(co_await client.health_check());

    co_await server.freeze();
    boost::asio::cancellation_signal cancel;
    bool ended = false;
    boost::asio::co_spawn(
        context, client.health_check(),
        boost::asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr, bool) { ended = true; }));
    co_await sleep_for(*clock, 1500ms);
    cancel.emit(boost::asio::cancellation_type::terminal);
    while (!ended) co_await sleep_for(*clock, 1ms);
    EXPECT_EQ(gauge.value(), 0) << "frozen";
    co_await server.thaw();
    EXPECT_TRUE(co_await becomes(1, 60s)) << "thawed";
    co_await client.disconnect();
    EXPECT_EQ(gauge.value(), 0) << "disconnected";
  });
}

}  // namespace maestro::messaging::testing

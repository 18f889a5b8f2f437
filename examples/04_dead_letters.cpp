// A service that is down: retries with backoff, then dead letters; and after it was mended, a replay.
#include <fmt/format.h>

#include <maestro/messaging.hpp>

using namespace maestro::messaging;
using namespace std::chrono_literals;

struct Payments {
  bool down = true;
  int settled = 0;
};

awaitable<void> consume(MessageBroker broker, Payments& payments, std::uint64_t until_settled) {
  EventConsumer consumer{broker, {.group_id = "payments", .max_retry_attempts = 2, .initial_backoff = 5ms}};
  consumer.subscribe("orders", [&](const Event& event) -> awaitable<void> {
    if (event["amount"].as_int64() < 0) reject("a negative amount");  // no retry can help
    if (payments.down) throw std::runtime_error("payment service: connection refused");
    fmt::print("order {} paid at try {}\n", event["order_id"].as_int64(), event.attempt());
    if (++payments.settled == 2) consumer.stop();
    co_return;
  });
  // While payments are down, nobody but the dead letters says that all of it was tried.
  if (until_settled != 0) {
    auto letters = co_await broker.subscribe("orders.payments.dlq");
    boost::asio::co_spawn(broker.executor(), consumer.start(), boost::asio::detached);
    for (std::uint64_t i = 0; i < until_settled; ++i) co_await letters.next();
    consumer.stop();
    co_return;
  }
  co_await consumer.start();
}

awaitable<void> dead_letters() {
  MessageBroker broker{co_await boost::asio::this_coro::executor, BrokerType::memory, "memory://shop"};
  EventPublisher publisher{broker};
  co_await publisher.publish("orders", {{"order_id", 1}, {"amount", 40}}, {.key = "ada"});
  co_await publisher.publish("orders", {{"order_id", 2}, {"amount", -5}}, {.key = "ada"});
  co_await publisher.publish("orders", {{"order_id", 3}, {"amount", 25}}, {.key = "ada"});

  Payments payments;
  co_await consume(broker, payments, 3);

  DeadLetters letters{broker, "orders.payments.dlq"};
  for (const auto& letter : co_await letters.list())
    fmt::print("dead letter after {} {}: {} ({})\n", letter.attempts, letter.attempts == 1 ? "try" : "tries",
               letter.error_message, to_string(letter.reason));

  payments.down = false;
  const auto report = co_await letters.replay({.filter = {.reason = DeadLetterReason::retries_exhausted}});
  fmt::print("mended: {} of {} replayed\n", report.replayed, report.seen);
  co_await consume(broker, payments, 0);
}

int main() {
  return run(dead_letters());
}

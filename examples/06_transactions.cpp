// Consume, process, produce: the results and the acknowledgement take effect together, or not at all.
#include <fmt/format.h>

#include <maestro/messaging.hpp>

using namespace maestro::messaging;

awaitable<void> transactions() {
  MessageBroker broker{co_await boost::asio::this_coro::executor, BrokerType::memory, "memory://ledger"};
  co_await broker.publish("transfers", {{"from", "ada"}, {"to", "bob"}, {"amount", 30}});

  Subscription transfers = co_await broker.subscribe("transfers", {.group_id = "booking", .enable_auto_commit = false});
  const auto transfer = co_await transfers.next();
  const auto value = transfer->value();

  try {
    co_await broker.transaction([&](Transaction& transaction) -> awaitable<void> {
      transaction.publish("bookings", {{"account", value.at("from")}, {"change", -30}});
      throw std::runtime_error("the second booking failed");
      co_return;
    });
  } catch (const std::runtime_error& error) {
    fmt::print("nothing was booked: {}\n", error.what());
  }

  co_await broker.transaction([&](Transaction& transaction) -> awaitable<void> {
    transaction.publish("bookings", {{"account", value.at("from")}, {"change", -30}}, "ledger");
    transaction.publish("bookings", {{"account", value.at("to")}, {"change", 30}}, "ledger");
    transaction.acknowledge(transfers, *transfer);
    co_return;
  });

  Subscription bookings = co_await broker.subscribe("bookings");
  for (int i = 0; i < 2; ++i) {
    const auto booking = co_await bookings.next();
    fmt::print("{}\n", std::string(booking->body()));
  }
  co_await bookings.close();
  co_await transfers.close();

  const auto info = co_await broker.administration().describe_topic("transfers");
  fmt::print("transfers left to {}: {}\n", info.groups.front().group, info.groups.front().lag);
}

int main() {
  return run(transactions());
}

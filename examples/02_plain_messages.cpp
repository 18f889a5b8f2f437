// Messages read by hand: a key, headers, positions, and what happens to a message that was not acknowledged.
#include <fmt/format.h>

#include <maestro/messaging.hpp>

using namespace maestro::messaging;

awaitable<void> plain_messages() {
  MessageBroker broker{co_await boost::asio::this_coro::executor, BrokerType::memory, "memory://plain"};
  for (int order = 1; order <= 4; ++order)
    co_await broker.publish("orders", {{"type", "order_created"}, {"order_id", order}},
                            {.key = "customer-7", .headers = {{"tenant", "acme"}}});

  Subscription first = co_await broker.subscribe("orders", {.group_id = "billing", .prefetch = 2});
  for (int i = 0; i < 2; ++i) {
    const auto message = co_await first.next();  // asking for the second acknowledges the first
    fmt::print("first member:  order {} for {} ({})\n", message->value().at("order_id").as_int64(), *message->key(),
               *message->header("tenant"));
  }
  co_await first.close();  // order 2 was handed out, but never acknowledged

  Subscription second = co_await broker.subscribe("orders", {.group_id = "billing"});
  for (int i = 0; i < 3; ++i) {
    const auto message = co_await second.next();
    fmt::print("second member: order {}{}\n", message->value().at("order_id").as_int64(),
               message->redelivered() ? ", again" : "");
  }
  co_await second.commit();
  co_await broker.disconnect();
}

int main() {
  return run(plain_messages());
}

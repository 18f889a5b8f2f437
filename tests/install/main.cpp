// A program of someone else: it knows the installed package only.
#include <fmt/format.h>

#include <maestro/messaging.hpp>

using namespace maestro::messaging;

awaitable<void> work() {
  MessageBroker broker{co_await boost::asio::this_coro::executor, "memory", "memory://outside"};
  EventPublisher publisher{broker};
  co_await publisher.publish("user.events", {{"event_type", "user_created"}, {"user_id", 123}});

  EventConsumer consumer{broker, {.group_id = "audit", .concurrency = 8}};
  consumer.subscribe("user.events", [&consumer](const Event& event) -> awaitable<void> {
    fmt::print("Received: {}\n", event);
    consumer.stop();
    co_return;
  });
  co_await consumer.start();
  co_await broker.disconnect();
}

int main() {
  return run(work());
}

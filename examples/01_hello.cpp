// An event published, and handled. Nothing has to be installed: memory://hello lives in this process.
#include <maestro/messaging.hpp>

using namespace maestro::messaging;

awaitable<void> hello() {
  MessageBroker broker{co_await boost::asio::this_coro::executor, BrokerType::memory, "memory://hello"};

  EventPublisher publisher{broker};
  co_await publisher.publish("user.events", {{"event_type", "user_created"}, {"user_id", 123}});

  EventConsumer consumer{broker, {.group_id = "audit", .concurrency = 8}};
  consumer.subscribe("user.events", [&consumer](const Event& event) -> awaitable<void> {
    fmt::print("Received {}: {}\n", event.type(), event);
    consumer.stop();  // a service goes on instead, until SIGTERM
    co_return;
  });
  co_await consumer.start();
}

int main() {
  return run(hello());
}

// A consumer in a process of its own, for tests that kill it.
//   fault_child member URL TOPIC GROUP   handles messages, and prints "KEY NUMBER" for each
//   fault_child reader URL TOPIC GROUP   reads by hand and commits now and then; prints each payload, and "lost" when a
//   commit says so
//   fault_child relay URL FROM TO GROUP  copies messages in transactions
//   fault_child stuck URL TOPIC GROUP    handlers that never return
//   fault_child blocked URL TOPIC GROUP  a handler that never returns, nor lets anything else of its thread go on
//   fault_child stuck_one URL TOPIC GROUP  the handler of one key, "stuck", never returns; prints a line for each other
//   message
// Options follow as consumer:NAME=VALUE or producer:NAME=VALUE.
#include <unistd.h>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <iostream>
#include <maestro/messaging.hpp>
#include <optional>
#include <string>
#include <vector>

namespace {

using namespace maestro::messaging;

awaitable<void> member(MessageBroker broker, std::string topic, std::string group) {
  EventConsumer consumer(broker, {.group_id = group, .concurrency = 32});
  consumer.subscribe(topic, [](const Event& event) -> awaitable<void> {
    const auto key = event.key();
    std::printf("%.*s %s\n", static_cast<int>(key->size()), key->data(),
                std::string(serialize(event.data().at("number"))).c_str());
    std::fflush(stdout);
    co_return;
  });
  co_await consumer.start();
}

awaitable<void> reader(MessageBroker broker, std::string topic, std::string group) {
  auto subscription = co_await broker.subscribe(topic, {.group_id = group, .enable_auto_commit = false});
  boost::asio::steady_timer work(co_await boost::asio::this_coro::executor);
  constexpr int between_commits = 10;
  for (int i = 1;; ++i) {
    const auto message = co_await subscription.next();
    std::puts(std::string(message->body()).c_str());
    std::fflush(stdout);
    work.expires_after(std::chrono::milliseconds(5));
    co_await work.async_wait(boost::asio::use_awaitable);
    if (i % between_commits != 0) continue;
    try {
      co_await subscription.commit();
    } catch (const MessagingError& failure) {
      std::puts(failure.code() == errc::not_owned ? "lost" : failure.what());
      std::fflush(stdout);
    }
  }
}

awaitable<void> relay(MessageBroker broker, std::string from, std::string to, std::string group) {
  auto subscription = co_await broker.subscribe(from, {.group_id = group, .enable_auto_commit = false});
  for (;;) {
    const auto batch = co_await subscription.next_batch(100);
    co_await broker.transaction([&](Transaction& transaction) -> awaitable<void> {
      for (const auto& message : batch) {
        OutgoingMessage copy;
        copy.topic = to;
        copy.payload = message.payload();
        if (const auto key = message.key()) copy.key = std::string(*key);
        transaction.publish(std::move(copy));
        transaction.acknowledge(subscription, message);
      }
      co_return;
    });
    std::printf("%zu\n", batch.size());
    std::fflush(stdout);
  }
}

awaitable<void> stuck(MessageBroker broker, std::string topic, std::string group,
                      std::optional<std::string> key = std::nullopt) {
  EventConsumer consumer(broker, {.group_id = group, .concurrency = 8});
  consumer.subscribe(topic, [key](const Event& event) -> awaitable<void> {
    std::puts("called");
    std::fflush(stdout);
    if (key && event.key() != *key) co_return;
    boost::asio::steady_timer never(co_await boost::asio::this_coro::executor,
                                    boost::asio::steady_timer::time_point::max());
    co_await never.async_wait(boost::asio::use_awaitable);
  });
  co_await consumer.start();
}

awaitable<void> blocked(MessageBroker broker, std::string topic, std::string group) {
  EventConsumer consumer(broker, {.group_id = group});
  consumer.subscribe(topic, [](const Event&) -> awaitable<void> {
    std::puts("called");
    std::fflush(stdout);
    for (;;) ::pause();
    co_return;
  });
  co_await consumer.start();
}

awaitable<void> work(std::vector<std::string> arguments) {
  const auto& what = arguments.at(0);
  auto config = MessagingConfig::from_url(arguments.at(1));
  for (const auto& argument : arguments) {
    const auto colon = argument.find(':');
    const auto equals = argument.find('=');
    if (equals == std::string::npos || colon > equals) continue;
    auto& options = argument.starts_with("consumer:") ? config.consumer_config : config.producer_config;
    options.insert_or_assign(argument.substr(colon + 1, equals - colon - 1), argument.substr(equals + 1));
  }
  MessageBroker broker(co_await boost::asio::this_coro::executor, std::move(config));
  if (what == "member") co_await member(broker, arguments.at(2), arguments.at(3));
  if (what == "reader") co_await reader(broker, arguments.at(2), arguments.at(3));
  if (what == "relay") co_await relay(broker, arguments.at(2), arguments.at(3), arguments.at(4));
  if (what == "stuck") co_await stuck(broker, arguments.at(2), arguments.at(3));
  if (what == "blocked") co_await blocked(broker, arguments.at(2), arguments.at(3));
  if (what == "stuck_one") co_await stuck(broker, arguments.at(2), arguments.at(3), "stuck");
}

}  // namespace

int main(int count, char** values) {
  return maestro::messaging::run(work({values + 1, values + count}));
}

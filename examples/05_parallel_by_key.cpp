// Many handlers at once, but never two of one key, and each key in its order.
#include <fmt/format.h>

#include <maestro/messaging.hpp>
#include <map>
#include <set>

using namespace maestro::messaging;
using namespace std::chrono_literals;

struct Watch {
  std::set<std::string> running;
  std::map<std::string, std::int64_t> last;
  std::size_t most_at_once = 0;
  int out_of_order = 0;
  int overlaps = 0;
  int handled = 0;
};

awaitable<void> wait(MessageBroker& broker, Duration duration) {
  const auto timer = broker.clock()->make_timer(broker.executor());
  timer->expires_at(broker.clock()->now() + duration);
  co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>, void(boost::system::error_code)>(
      [&timer](auto handler) { timer->async_wait(std::move(handler)); }, boost::asio::use_awaitable);
}

awaitable<void> parallel_by_key() {
  constexpr int accounts = 10, steps = 20;
  MessageBroker broker{co_await boost::asio::this_coro::executor, BrokerType::memory, "memory://bank"};
  EventPublisher publisher{broker};
  for (int step = 0; step < steps; ++step)
    for (int account = 0; account < accounts; ++account)
      co_await publisher.publish("account.changed", {{"step", step}}, {.key = fmt::format("account-{}", account)});

  Watch watch;
  EventConsumer consumer{broker, {.group_id = "ledger", .concurrency = 4}};
  consumer.subscribe("account.changed", [&](const Event& event) -> awaitable<void> {
    const std::string account(*event.key());
    if (!watch.running.insert(account).second) ++watch.overlaps;
    watch.most_at_once = std::max(watch.most_at_once, watch.running.size());
    co_await wait(broker, 1ms);  // a call to another service
    const auto step = event["step"].as_int64();
    if (watch.last.try_emplace(account, -1).first->second != step - 1) ++watch.out_of_order;
    watch.last[account] = step;
    watch.running.erase(account);
    if (++watch.handled == accounts * steps) consumer.stop();
  });
  co_await consumer.start();
  fmt::print("{} handled, {} at once; out of order within an account: {}, overlapping: {}\n", watch.handled,
             watch.most_at_once, watch.out_of_order, watch.overlaps);
}

int main() {
  return run(parallel_by_key());
}

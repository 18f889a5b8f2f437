#include <set>

#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

class Rebalance : public Contract {};

TEST_P(Rebalance, WhoHoldsAMessageDoesNotBlockItsPartitionForEver) {
  run([&]() -> awaitable<void> {
    auto client = broker({{"partitions", 2}, {"rebalance_timeout", 5000}});
    const auto topic = unique();
    for (int i = 0; i < 2; ++i) co_await client.publish(topic, Value(i), {.partition = i});
    auto holder = co_await client.subscribe(topic, {.group_id = group("g"), .enable_auto_commit = false});
    std::vector<Message> held;
    while (held.size() < 2) held.push_back(*co_await holder.next());
    auto other = co_await client.subscribe(topic, {.group_id = group("g"), .enable_auto_commit = false});
    const auto joined = clock_->now();
    const auto moved = co_await other.next();
    EXPECT_GE(clock_->now() - joined, 5s);
    EXPECT_LT(clock_->now() - joined, 6s);
    EXPECT_TRUE(moved->redelivered());
    // What the first holder says about it now is not its to say.
    for (const auto& message : held)
      if (message.position().partition == moved->position().partition) holder.acknowledge(message);
    co_await holder.commit();
    co_await other.close();
    const auto again = co_await holder.next();
    EXPECT_EQ(again->position().partition, moved->position().partition) << "it is unsettled, and comes again";
  });
}

TEST_P(Rebalance, APartitionThatIsSettledMovesAtOnce) {
  run([&]() -> awaitable<void> {
    auto client = broker({{"partitions", 2}, {"rebalance_timeout", 5000}});
    const auto topic = unique();
    auto first = co_await client.subscribe(topic, {.group_id = group("g"), .enable_auto_commit = false});
    for (int i = 0; i < 2; ++i) co_await client.publish(topic, Value(i), {.partition = i});
    for (int i = 0; i < 2; ++i) co_await first.next();
    auto second = co_await client.subscribe(topic, {.group_id = group("g")});
    const auto began = clock_->now();
    co_await first.commit();
    for (int i = 0; i < 2; ++i) co_await client.publish(topic, Value("new"), {.partition = i});
    EXPECT_EQ((co_await second.next())->value(), "new");
    EXPECT_LT(clock_->now() - began, 1s);
  });
}

// Members that read by hand; a killed one is cancelled in the middle of a message and closes nothing.
TEST_P(Rebalance, MembersKilledAndAddedUnderLoadLoseNothing) {
  run([&]() -> awaitable<void> {
    constexpr int keys = 12;
    constexpr int each = 60;
    const auto topic = unique();
    std::map<std::string, std::set<int>> seen;
    std::set<std::string> running;
    std::size_t interrupted = 0;
    int alive = 0;
    const auto handle = [&](const Message& message) -> awaitable<void> {
      const std::string key(*message.key());
      const auto number = message.value().to_number<int>();
      EXPECT_TRUE(running.insert(key).second) << "two members at work on " << key;
      struct Done {
        std::set<std::string>& running;
        const std::string& key;
        ~Done() { running.erase(key); }
      } const done{running, key};
      auto& before = seen[key];
      EXPECT_TRUE(before.contains(number) || static_cast<int>(before.size()) == number) << key << ": " << number << " is too early";
      ++interrupted;
      co_await sleep(3ms);
      --interrupted;
      before.insert(number);
    };
    const auto member = [&](MessageBroker client) -> awaitable<void> {
      auto subscription = co_await client.subscribe(topic, {.group_id = group("g"), .prefetch = 16});
      while (const auto message = co_await subscription.next()) co_await handle(*message);
    };
    std::vector<std::unique_ptr<asio::cancellation_signal>> members;
    const auto add = [&] {
      members.push_back(std::make_unique<asio::cancellation_signal>());
      ++alive;
      asio::co_spawn(*context_, member(broker()),
                     asio::bind_cancellation_slot(members.back()->slot(), [&](std::exception_ptr) { --alive; }));
    };
    for (int i = 0; i < 3; ++i) add();
    auto client = broker();
    std::size_t oldest = 0;
    for (int n = 0; n < each; ++n) {
      for (int key = 0; key < keys; ++key) co_await client.publish(topic, Value(n), {.key = "key-" + std::to_string(key)});
      co_await sleep(7ms);
      if (n % 4 == 3) {
        members[oldest++]->emit(asio::cancellation_type::terminal);
        add();
      }
    }
    const auto complete = [&] {
      return seen.size() == keys && std::ranges::all_of(seen, [](const auto& entry) { return entry.second.size() == each; });
    };
    co_await until(complete);
    EXPECT_GT(interrupted, 0U) << "nobody was killed in the middle of a message: the test shows nothing";
    for (const auto& left : members) left->emit(asio::cancellation_type::terminal);
    co_await until([&] { return alive == 0; });
  });
}

MAESTRO_CONTRACT_ON_MEMORY(Rebalance);

}  // namespace
}  // namespace maestro::messaging::testing

// Thousands of runs of the whole library on the embedded broker, each drawn from a seed: the order in which timers go off, how
// long handlers take, which of them fail, which faults strike, when members come and go. Under the virtual clock each takes
// milliseconds. MAESTRO_SEED=n repeats one, MAESTRO_SCHEDULES=n says how many.
#include <cstdlib>
#include <random>
#include <set>

#include "support/contract.hpp"

namespace maestro::messaging::testing {
namespace {

std::uint64_t environment(const char* name, std::uint64_t otherwise) {
  const auto* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

class Schedule {
 public:
  explicit Schedule(std::uint64_t seed)
      : random_(seed), clock_(std::make_shared<VirtualClock>(seed)), faults_(seed % 3 != 0), churn_(seed % 2 != 0) {
    name_ = "schedule-" + std::to_string(seed);
    keys_ = draw(1, 8);
    each_ = draw(5, 40);
    members_ = draw(1, 3);
    concurrency_ = static_cast<std::size_t>(draw(1, 8));
  }
  ~Schedule() { context_.reset(); }

  /// What went wrong; empty when all is well.
  std::string run() {
    run_virtual(*context_, *clock_, play());
    return wrong_;
  }

 private:
  using Id = std::pair<int, int>;  // key, number

  struct Member {
    std::unique_ptr<EventConsumer> consumer;
    std::shared_ptr<bool> ended = std::make_shared<bool>(false);
    std::set<int> busy;
  };

  int draw(int from, int to) { return std::uniform_int_distribution<int>(from, to)(random_); }
  Duration draw_time(int most_ms) { return std::chrono::microseconds(draw(0, most_ms * 1000)); }
  static bool poison(const Id& id) { return (id.first * 31 + id.second) % 17 == 3; }

  void fail(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }

  MessageBroker broker() {
    MessagingConfig config;
    config.connection_string = "memory://" + name_;
    config.clock = clock_;
    config.seed = random_();
    config.connection_config.insert_or_assign("partitions", draw_partitions_);
    if (faults_) {
      config.connection_config.insert_or_assign("fault_seed", static_cast<std::int64_t>(random_() >> 2U));
      for (const auto* fault : {"fault_publish_failure", "fault_publish_unknown", "fault_disconnect", "fault_duplicate", "fault_delay"})
        config.connection_config.insert_or_assign(fault, 0.02);
    }
    return {context_->get_executor(), std::move(config)};
  }

  awaitable<void> publish_key(MessageBroker client, int key) {
    for (int n = 0; n < each_; ++n) {
      co_await sleep_for(*clock_, draw_time(5));
      const Id id{key, n};
      const auto error = co_await error_of(
          ignore(client.publish("orders", Value{{"key", key}, {"n", n}}, {.key = "key-" + std::to_string(key)})));
      if (!error) {
        confirmed_.insert(id);
      } else if (error == errc::outcome_unknown) {
        unknown_.insert(id);
      } else {
        fail("publish failed: " + error.message());
      }
    }
    ++publishers_done_;
  }

  awaitable<void> handle(Member& member, const Event& event) {
    const Id id{static_cast<int>(event["key"].as_int64()), static_cast<int>(event["n"].as_int64())};
    // A connection that broke may hand a message to another member while its first handler runs; never within one member,
    // and never at all while no connection breaks.
    if (!member.busy.insert(id.first).second) fail("two handlers of one key at once in one member");
    if (!faults_ && !busy_.insert(id.first).second) fail("two handlers of one key at once");
    for (const auto& before : confirmed_)
      if (before.first == id.first && before.second < id.second && !finished_.contains(before))
        fail("key " + std::to_string(id.first) + ": " + std::to_string(id.second) + " before " + std::to_string(before.second));
    struct Done {
      Schedule& schedule;
      Member& member;
      int key;
      ~Done() {
        member.busy.erase(key);
        schedule.busy_.erase(key);
      }
    } const done{*this, member, id.first};
    co_await sleep_for(*clock_, draw_time(10));
    if (poison(id)) {
      if (event.attempt() == 3) finished_.insert(id);  // the last try: its dead letter comes before its successor
      throw std::runtime_error("poison");
    }
    if (draw(0, 9) == 0) throw std::runtime_error("at times");
    finished_.insert(id);
    handled_.insert(id);
  }

  std::shared_ptr<Member> start_member() {
    auto member = std::make_shared<Member>();
    // A poison message fails three times. Others fail one time in ten, so that ten in a row are out of the question.
    member->consumer = std::make_unique<EventConsumer>(
        broker(), EventConsumerOptions{.group_id = "g", .concurrency = concurrency_, .max_retry_attempts = 2,
                                       .initial_backoff = 5ms, .drain_timeout = 1min, .prefetch = 16});
    member->consumer->subscribe("orders", [this, raw = member.get()](const Event& event) { return guarded(*raw, event); });
    asio::co_spawn(*context_, member->consumer->start(), [this, member](std::exception_ptr error) {
      *member->ended = true;
      if (error) fail("start() threw");
    });
    return member;
  }

  // Only poison may exhaust its retries: the third try of any other message succeeds.
  awaitable<void> guarded(Member& member, const Event& event) {
    const Id id{static_cast<int>(event["key"].as_int64()), static_cast<int>(event["n"].as_int64())};
    std::exception_ptr error;
    try {
      co_await handle(member, event);
    } catch (...) {
      error = std::current_exception();
    }
    if (!error) co_return;
    if (!poison(id) && event.attempt() == 3) {
      finished_.insert(id);
      handled_.insert(id);
      co_return;
    }
    std::rethrow_exception(error);
  }

  awaitable<void> play() {
    auto client = broker();
    draw_partitions_ = draw(1, 4);
    std::vector<std::shared_ptr<Member>> members;
    for (int i = 0; i < members_; ++i) members.push_back(start_member());
    for (int key = 0; key < keys_; ++key) asio::co_spawn(*context_, publish_key(client, key), asio::detached);
    const auto deadline = clock_->now() + 1h;
    DeadLetters console(client, "orders.g.dlq");
    for (;;) {
      co_await sleep_for(*clock_, 20ms);
      if (churn_ && publishers_done_ < keys_ && draw(0, 3) == 0) {
        auto& leaving = members[static_cast<std::size_t>(draw(0, members_ - 1))];
        leaving->consumer->stop();
        while (!*leaving->ended) co_await sleep_for(*clock_, 1ms);
        leaving = start_member();
      }
      bool all = publishers_done_ == keys_;
      for (const auto& id : confirmed_) all &= finished_.contains(id);
      if (all && (co_await client.administration().describe_topic("orders")).groups.at(0).lag == 0) break;
      if (clock_->now() > deadline) {
        fail("messages are lost, or never settled: " + std::to_string(confirmed_.size() - finished_.size()) + " of " + std::to_string(confirmed_.size()));
        break;
      }
    }
    for (const auto& member : members) member->consumer->stop();
    for (const auto& member : members)
      while (!*member->ended) co_await sleep_for(*clock_, 1ms);
    co_await check_dead_letters(client);
  }

  awaitable<void> check_dead_letters(MessageBroker client) {
    std::multiset<Id> dead;
    if (std::ranges::any_of(confirmed_, poison)) {
      auto quiet = MessagingConfig{};
      quiet.connection_string = "memory://" + name_;
      quiet.clock = clock_;
      DeadLetters console(MessageBroker{context_->get_executor(), quiet}, "orders.g.dlq");
      for (const auto& letter : co_await console.list({}, 1'000'000)) {
        const auto value = letter.message.value();
        dead.insert({static_cast<int>(value.at("key").as_int64()), static_cast<int>(value.at("n").as_int64())});
      }
    }
    for (const auto& id : dead)
      if (!poison(id)) fail("a message that is no poison was dead-lettered");
    for (const auto& id : confirmed_) {
      const auto count = dead.count(id);
      if (poison(id) && count == 0) fail("a poison message is in no dead letter");
      // A member that leaves while an earlier message of the partition is unsettled makes later ones come again: the place
      // that is committed is the watermark. Nobody leaves and nothing breaks: exactly once.
      if (!faults_ && !churn_ && poison(id) && count != 1) fail("a dead letter was written twice");
    }
  }

  std::mt19937_64 random_;
  std::shared_ptr<VirtualClock> clock_;
  std::unique_ptr<asio::io_context> context_ = std::make_unique<asio::io_context>(1);
  std::string name_;
  bool faults_;
  bool churn_;
  int keys_ = 0;
  int each_ = 0;
  int members_ = 0;
  int draw_partitions_ = 3;
  std::size_t concurrency_ = 1;
  int publishers_done_ = 0;
  std::set<Id> confirmed_;
  std::set<Id> unknown_;
  std::set<Id> finished_;
  std::set<Id> handled_;
  std::set<int> busy_;
  std::string wrong_;
};

TEST(RandomSchedules, NoLossNoReorderNoOverlapExactDeadLetters) {
  set_log_level(LogLevel::off);
  const auto only = std::getenv("MAESTRO_SEED");
  const auto first = environment("MAESTRO_SEED", 1);
  const auto count = only ? 1 : environment("MAESTRO_SCHEDULES", 2000);
  for (auto seed = first; seed < first + count; ++seed) {
    const auto wrong = Schedule(seed).run();
    ASSERT_EQ(wrong, "") << "repeat it with MAESTRO_SEED=" << seed;
  }
}

}  // namespace
}  // namespace maestro::messaging::testing

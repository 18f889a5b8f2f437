#include <maestro/messaging/deduplication.hpp>
#include <maestro/messaging/virtual_clock.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using namespace std::chrono_literals;
using Outcome = Claim::Outcome;
namespace asio = boost::asio;

class Deduplication : public testing::Test {
 protected:
  void make(MemoryDeduplicationOptions options) { store = std::make_unique<MemoryDeduplicationStore>(clock, options); }

  Claim claim(std::string id, Duration lease = 30s, std::string scope = "g") {
    Claim got;
    run([&]() -> asio::awaitable<void> { got = co_await store->claim(scope, id, lease); });
    return got;
  }
  void complete(std::string id, std::uint64_t token, std::string scope = "g") {
    run([&]() -> asio::awaitable<void> { co_await store->complete(scope, id, token); });
  }
  void abandon(std::string id, std::uint64_t token) {
    run([&]() -> asio::awaitable<void> { co_await store->abandon("g", id, token); });
  }
  void done(const std::string& id) { complete(id, claim(id).token); }
  void pass(Duration span) { clock->run_for(context, span); }

  asio::io_context context;
  std::shared_ptr<VirtualClock> clock = std::make_shared<VirtualClock>();
  std::unique_ptr<MemoryDeduplicationStore> store = std::make_unique<MemoryDeduplicationStore>(clock);

 private:
  template <class Work>
  void run(Work work) {
    run_virtual(context, *clock, work());
  }
};

TEST_F(Deduplication, AClaimedIdIsBusyAndThenADuplicate) {
  const auto first = claim("a");
  EXPECT_EQ(first.outcome, Outcome::claimed);
  const auto second = claim("a");
  EXPECT_EQ(second.outcome, Outcome::busy);
  EXPECT_EQ(second.retry_at, clock->now() + 30s);
  complete("a", first.token);
  EXPECT_EQ(claim("a").outcome, Outcome::duplicate);
  EXPECT_EQ(claim("b").outcome, Outcome::claimed);
}

TEST_F(Deduplication, GroupsAndIdsDoNotMix) {
  complete("a", claim("a", 30s, "g").token, "g");
  EXPECT_EQ(claim("a", 30s, "h").outcome, Outcome::claimed);
  EXPECT_EQ(claim("c", 30s, "ab").outcome, Outcome::claimed);
  EXPECT_EQ(claim("bc", 30s, "a").outcome, Outcome::claimed);
}

TEST_F(Deduplication, AnAbandonedIdIsFreeAtOnce) {
  abandon("a", claim("a").token);
  EXPECT_EQ(store->size(), 0U);
  EXPECT_EQ(claim("a").outcome, Outcome::claimed);
}

TEST_F(Deduplication, AnExpiredLeaseFreesTheId) {
  EXPECT_EQ(claim("a", 10s).outcome, Outcome::claimed);
  pass(10s - 1ns);
  EXPECT_EQ(claim("a", 10s).outcome, Outcome::busy);
  pass(1ns);
  EXPECT_EQ(claim("a", 10s).outcome, Outcome::claimed);
}

TEST_F(Deduplication, AStaleTokenChangesNothing) {
  const auto old = claim("a", 10s);
  pass(10s);
  const auto current = claim("a", 10s);
  EXPECT_NE(old.token, current.token);
  complete("a", old.token);
  EXPECT_EQ(claim("a").outcome, Outcome::busy);
  abandon("a", old.token);
  EXPECT_EQ(claim("a").outcome, Outcome::busy);
  complete("a", current.token);
  EXPECT_EQ(claim("a").outcome, Outcome::duplicate);
  abandon("a", current.token);
  EXPECT_EQ(claim("a").outcome, Outcome::duplicate);
  complete("never seen", 1);
  EXPECT_EQ(claim("never seen").outcome, Outcome::claimed);
}

TEST_F(Deduplication, ALateCompletionStillCountsWhenNobodyTookOver) {
  const auto slow = claim("a", 10s);
  pass(60s);
  complete("a", slow.token);
  EXPECT_EQ(claim("a").outcome, Outcome::duplicate);
}

TEST_F(Deduplication, DoneIdsAreForgottenAfterTheWindow) {
  make({.window = 1min});
  done("a");
  pass(1min - 1ns);
  EXPECT_EQ(claim("a").outcome, Outcome::duplicate);
  pass(1ns);
  EXPECT_EQ(claim("a").outcome, Outcome::claimed);
  EXPECT_EQ(store->size(), 1U);
}

TEST_F(Deduplication, TheOldestDoneIdGoesFirst) {
  make({.capacity = 3});
  for (const auto* id : {"a", "b", "c", "d"}) done(id);
  EXPECT_EQ(store->size(), 3U);
  EXPECT_EQ(claim("b").outcome, Outcome::duplicate);
  EXPECT_EQ(claim("c").outcome, Outcome::duplicate);
  EXPECT_EQ(claim("d").outcome, Outcome::duplicate);
  EXPECT_EQ(claim("a").outcome, Outcome::claimed);
}

TEST_F(Deduplication, AskingForAKnownIdNeverForgetsOne) {
  make({.capacity = 2});
  done("a");
  done("b");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(claim("a").outcome, Outcome::duplicate);
    EXPECT_EQ(claim("b").outcome, Outcome::duplicate);
  }
}

TEST_F(Deduplication, CapacityNeverEvictsALiveClaim) {
  make({.capacity = 4});
  std::vector<std::uint64_t> tokens;
  for (int i = 0; i < 10; ++i) tokens.push_back(claim("live" + std::to_string(i), 1h).token);
  for (int i = 0; i < 20; ++i) done("done" + std::to_string(i));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(claim("live" + std::to_string(i)).outcome, Outcome::busy) << i;
  EXPECT_LE(store->size(), 11U);
}

TEST_F(Deduplication, ClaimsThatNobodyFinishedDoNotPileUp) {
  make({.capacity = 10});
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(claim("crashed" + std::to_string(i), 1s).outcome, Outcome::claimed);
    pass(1s);
  }
  EXPECT_LE(store->size(), 10U);
}

TEST_F(Deduplication, ALeaseTakenOverIsNotForgottenWithTheOldOne) {
  make({.capacity = 2});
  claim("a", 1s);
  pass(1s);
  const auto again = claim("a", 1h);
  for (int i = 0; i < 5; ++i) claim("b" + std::to_string(i), 1s), pass(1s);
  EXPECT_EQ(claim("a").outcome, Outcome::busy);
  complete("a", again.token);
  EXPECT_EQ(claim("a").outcome, Outcome::duplicate);
}

TEST(DeduplicationOptions, NoCapacityIsRefused) {
  EXPECT_THAT(unit::refusal(errc::invalid_option, [] { MemoryDeduplicationStore(Clock::real(), {.capacity = 0}); }),
              testing::HasSubstr("capacity: 0"));
  for (const auto window : {Duration(0s), Duration(-1s)})
    EXPECT_THAT(
        unit::refusal(errc::invalid_option, [&] { MemoryDeduplicationStore(Clock::real(), {.window = window}); }),
        testing::HasSubstr("window: "));
}

}  // namespace
}  // namespace maestro::messaging

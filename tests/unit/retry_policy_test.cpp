#include <maestro/messaging/retry.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using unit::refusal;

TEST(RetryPolicy, CeilingGrowsToTheCap) {
  const RetryPolicy policy({.initial_backoff = 100ms, .multiplier = 2, .max_backoff = 1s});
  EXPECT_EQ(policy.ceiling(1), 100ms);
  EXPECT_EQ(policy.ceiling(2), 200ms);
  EXPECT_EQ(policy.ceiling(4), 800ms);
  EXPECT_EQ(policy.ceiling(5), 1s);
  EXPECT_EQ(policy.ceiling(1'000'000), 1s);
  EXPECT_EQ(policy.ceiling(0), 100ms);
}

TEST(RetryPolicy, NoBackoffStaysNone) {
  const RetryPolicy policy({.initial_backoff = 0ms, .max_backoff = 30s});
  for (const int failures : {1, 2, 100, 2000, 1'000'000}) EXPECT_EQ(policy.ceiling(failures), 0ms) << failures;
}

TEST(RetryPolicy, TheLargestCapIsNotOverflowed) {
  const RetryPolicy policy({.initial_backoff = 1s, .max_backoff = Duration::max()});
  EXPECT_EQ(policy.ceiling(1000), Duration::max());
  EXPECT_EQ(policy.ceiling(100'000), Duration::max());
}

TEST(RetryPolicy, JitterIsWithinTheCeilingAndSpread) {
  const RetryPolicy policy({.initial_backoff = 100ms, .multiplier = 2, .max_backoff = 1s});
  std::mt19937_64 random(1);
  Duration sum{};
  bool low = false;
  bool high = false;
  for (int i = 0; i < 10'000; ++i) {
    const auto pause = policy.backoff(3, random);
    ASSERT_GE(pause, 0ms);
    ASSERT_LE(pause, 400ms);
    sum += pause;
    low |= pause < 4ms;
    high |= pause > 396ms;
  }
  EXPECT_TRUE(low && high);
  EXPECT_NEAR(static_cast<double>((sum / 10'000).count()), 200e6, 5e6);
}

TEST(RetryPolicy, ASeedGivesTheSamePausesAgain) {
  const RetryPolicy policy({});
  std::mt19937_64 one(7);
  std::mt19937_64 two(7);
  for (int i = 1; i < 50; ++i) EXPECT_EQ(policy.backoff(i, one), policy.backoff(i, two));
}

TEST(RetryPolicy, ExhaustedAfterTheFirstAndItsRetries) {
  const RetryPolicy policy({.max_attempts_after_first = 2});
  EXPECT_FALSE(policy.exhausted(1));
  EXPECT_FALSE(policy.exhausted(2));
  EXPECT_TRUE(policy.exhausted(3));
  EXPECT_TRUE(RetryPolicy({.max_attempts_after_first = 0}).exhausted(1));
}

TEST(RetryPolicy, LongestTotalIsTheSumOfTheCeilings) {
  for (const double multiplier : {1.0, 1.5, 2.0, 10.0})
    for (const int attempts : {0, 1, 3, 5, 40}) {
      const RetryPolicy policy({attempts, 100ms, multiplier, 5s});
      Duration sum{};
      for (int n = 1; n <= attempts; ++n) sum += policy.ceiling(n);
      EXPECT_NEAR(static_cast<double>(policy.longest_total().count()), static_cast<double>(sum.count()), 1e3)
          << multiplier << ' ' << attempts;
    }
}

TEST(RetryPolicy, LongestTotalOfManyAlikePauses) {
  EXPECT_EQ(RetryPolicy({20'000, 100ms, 1, 30s}).longest_total(), 2000s);
  EXPECT_EQ(RetryPolicy({1'000'000, 0ms, 2, 30s}).longest_total(), 0s);
  EXPECT_EQ(RetryPolicy({std::numeric_limits<int>::max(), 24h, 2, Duration::max()}).longest_total(), Duration::max());
}

TEST(RetryPolicy, OptionsOutOfRangeAreNamed) {
  EXPECT_THAT(refusal(errc::invalid_option, [] { RetryOptions{.max_attempts_after_first = -1}.validate(); }),
              HasSubstr("-1"));
  EXPECT_THAT(refusal(errc::invalid_option, [] { RetryOptions{.initial_backoff = -1ns}.validate(); }),
              HasSubstr("initial_backoff: -1 ms; allowed is 0 to 3600000 ms"));
  EXPECT_THAT(refusal(errc::invalid_option, [] { RetryOptions{.max_backoff = -1ns}.validate(); }),
              HasSubstr("max_backoff"));
  EXPECT_THAT(refusal(errc::invalid_option, [] { RetryOptions{.initial_backoff = 2s, .max_backoff = 1s}.validate(); }),
              HasSubstr("initial_backoff: 2000 ms; allowed is max_backoff at most, and that is 1000 ms"));
  for (const double bad : {0.5, -2.0, 101.0, std::numeric_limits<double>::quiet_NaN()})
    EXPECT_THAT(refusal(errc::invalid_option, [&] { RetryOptions{.multiplier = bad}.validate(); }),
                HasSubstr("backoff_multiplier"));
  EXPECT_NO_THROW(RetryOptions{}.validate());
}

}  // namespace
}  // namespace maestro::messaging

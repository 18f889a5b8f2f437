#include <maestro/messaging/circuit_breaker.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using unit::refusal;

class Circuit : public testing::Test {
 protected:
  /// A call that ends at once; whether it was allowed.
  bool call(CircuitBreaker& breaker, bool good) {
    const auto allowed = breaker.allow(now);
    if (!allowed) return false;
    good ? breaker.on_success(now, *allowed) : breaker.on_failure(now, *allowed);
    return true;
  }

  TimePoint now{1h};
};

TEST_F(Circuit, OpensAfterFailuresInARow) {
  CircuitBreaker breaker({.failure_threshold = 3, .reset_timeout = 10s});
  EXPECT_TRUE(call(breaker, false));
  EXPECT_TRUE(call(breaker, false));
  EXPECT_TRUE(call(breaker, true));  // the row starts anew
  EXPECT_TRUE(call(breaker, false));
  EXPECT_TRUE(call(breaker, false));
  EXPECT_EQ(breaker.state(now), CircuitState::closed);
  EXPECT_TRUE(call(breaker, false));
  EXPECT_EQ(breaker.state(now), CircuitState::open);
  EXPECT_FALSE(breaker.allow(now));
  EXPECT_EQ(breaker.opened(), 1U);
  EXPECT_EQ(breaker.open_until(), now + 10s);
}

TEST_F(Circuit, LetsOneProbeThroughAfterTheReset) {
  CircuitBreaker breaker({.failure_threshold = 1, .reset_timeout = 10s});
  call(breaker, false);
  now += 10s - 1ns;
  EXPECT_FALSE(breaker.allow(now));
  now += 1ns;
  EXPECT_EQ(breaker.state(now), CircuitState::half_open);
  const auto probe = breaker.allow(now);
  ASSERT_TRUE(probe);
  EXPECT_FALSE(breaker.allow(now));
  EXPECT_FALSE(breaker.allow(now + 1h));
  breaker.on_success(now, *probe);
  EXPECT_EQ(breaker.state(now), CircuitState::closed);
  EXPECT_TRUE(breaker.allow(now));
  EXPECT_TRUE(breaker.allow(now));
}

TEST_F(Circuit, AFailedProbeOpensAgain) {
  CircuitBreaker breaker({.failure_threshold = 5, .reset_timeout = 10s});
  for (int i = 0; i < 5; ++i) call(breaker, false);
  now += 10s;
  EXPECT_TRUE(call(breaker, false));
  EXPECT_EQ(breaker.state(now), CircuitState::open);
  EXPECT_EQ(breaker.open_until(), now + 10s);
  EXPECT_EQ(breaker.opened(), 2U);
}

TEST_F(Circuit, AnAbandonedProbeMakesRoomForTheNext) {
  CircuitBreaker breaker({.failure_threshold = 1, .reset_timeout = 10s});
  call(breaker, false);
  now += 10s;
  const auto probe = breaker.allow(now);
  ASSERT_TRUE(probe);
  breaker.on_abandoned(*probe);
  EXPECT_EQ(breaker.state(now), CircuitState::half_open);
  EXPECT_TRUE(breaker.allow(now));
  EXPECT_FALSE(breaker.allow(now));
}

TEST_F(Circuit, AfterClosingTheRowStartsAnew) {
  CircuitBreaker breaker({.failure_threshold = 2, .reset_timeout = 10s});
  call(breaker, false);
  call(breaker, false);
  now += 10s;
  call(breaker, true);
  call(breaker, false);
  EXPECT_EQ(breaker.state(now), CircuitState::closed);
}

TEST_F(Circuit, LateAnswersDoNotCloseAnOpenCircuit) {
  CircuitBreaker breaker({.failure_threshold = 1, .reset_timeout = 10s});
  const auto first = breaker.allow(now);
  const auto second = breaker.allow(now);
  const auto third = breaker.allow(now);
  ASSERT_TRUE(first && second && third);
  breaker.on_failure(now, *first);
  breaker.on_success(now, *second);
  EXPECT_EQ(breaker.state(now), CircuitState::open);
  breaker.on_failure(now + 1s, *third);
  EXPECT_EQ(breaker.open_until(), now + 10s);
  EXPECT_EQ(breaker.opened(), 1U);
}

TEST_F(Circuit, OnlyTheProbeDecidesWhileHalfOpen) {
  CircuitBreaker breaker({.failure_threshold = 1, .reset_timeout = 10s});
  const auto early = breaker.allow(now);
  const auto late = breaker.allow(now);
  ASSERT_TRUE(early && late);
  breaker.on_failure(now, *early);
  now += 10s;
  const auto probe = breaker.allow(now);
  ASSERT_TRUE(probe);
  breaker.on_success(now, *late);
  EXPECT_EQ(breaker.state(now), CircuitState::half_open) << "a late success is not the probe's";
  breaker.on_failure(now, *late);
  EXPECT_EQ(breaker.state(now), CircuitState::half_open) << "a late failure is not the probe's";
  breaker.on_abandoned(*late);
  EXPECT_FALSE(breaker.allow(now)) << "the probe is still on its way";
  breaker.on_abandoned(*probe);
  const auto second = breaker.allow(now);
  ASSERT_TRUE(second);
  breaker.on_success(now, *probe);
  EXPECT_EQ(breaker.state(now), CircuitState::half_open) << "the probe before was given up";
  breaker.on_success(now, *second);
  EXPECT_EQ(breaker.state(now), CircuitState::closed);
}

TEST_F(Circuit, TheRateCountsOverTheWindow) {
  CircuitBreaker breaker({.failure_threshold = 1000, .failure_rate = 0.5, .minimum_calls = 10, .window = 10s});
  for (int i = 0; i < 4; ++i) {
    call(breaker, true);
    call(breaker, false);
  }
  EXPECT_EQ(breaker.state(now), CircuitState::closed);  // half of them failed, but 8 calls say little
  call(breaker, true);
  call(breaker, false);
  EXPECT_EQ(breaker.state(now), CircuitState::open);
}

TEST_F(Circuit, FailuresThatLeftTheWindowAreForgotten) {
  CircuitBreaker breaker({.failure_threshold = 1000, .failure_rate = 0.5, .minimum_calls = 10, .window = 10s});
  for (int i = 0; i < 9; ++i) call(breaker, false);
  now += 11s;
  for (int i = 0; i < 9; ++i) call(breaker, true);
  call(breaker, false);
  EXPECT_EQ(breaker.state(now), CircuitState::closed);
}

TEST_F(Circuit, ClosingForgetsTheWindow) {
  CircuitBreaker breaker(
      {.failure_threshold = 1000, .failure_rate = 0.5, .minimum_calls = 4, .window = 60s, .reset_timeout = 1s});
  for (int i = 0; i < 4; ++i) call(breaker, false);
  now += 1s;
  call(breaker, true);
  EXPECT_EQ(breaker.state(now), CircuitState::closed);
  call(breaker, false);
  EXPECT_EQ(breaker.state(now), CircuitState::closed);
}

TEST(CircuitBreakerOptions, OutOfRangeIsNamed) {
  const auto why = [](CircuitBreakerOptions options) {
    return refusal(errc::invalid_option, [&] { options.validate(); });
  };
  EXPECT_THAT(why({.failure_threshold = 0}), HasSubstr("failure_threshold: 0"));
  EXPECT_THAT(why({.failure_rate = 1.1}), HasSubstr("failure_rate"));
  EXPECT_THAT(why({.failure_rate = std::numeric_limits<double>::quiet_NaN()}), HasSubstr("failure_rate"));
  EXPECT_THAT(why({.minimum_calls = 0}), HasSubstr("minimum_calls"));
  EXPECT_THAT(why({.window = 9ms}), HasSubstr("window"));
  EXPECT_THAT(why({.reset_timeout = 0s}), HasSubstr("reset_timeout"));
  EXPECT_THAT(why({.failure_threshold = 1'000'001}), HasSubstr("failure_threshold: 1000001; allowed is 1 to 1000000"));
  EXPECT_THAT(why({.window = Duration::max()}), HasSubstr("allowed is 10 to 86400000 ms"));
  EXPECT_THAT(why({.reset_timeout = Duration::max()}), HasSubstr("allowed is 1 to 86400000 ms"));
  EXPECT_NO_THROW(CircuitBreakerOptions{}.validate());
}

}  // namespace
}  // namespace maestro::messaging

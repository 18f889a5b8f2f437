#include "reliability/watermark.hpp"

#include <algorithm>
#include <map>
#include <random>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

TEST(Watermark, MovesOnlyOverWhatIsSettledFromTheFront) {
  Watermark mark;
  for (std::uint64_t n = 1; n <= 4; ++n) mark.track(n);
  EXPECT_EQ(mark.settle(3), std::nullopt);
  EXPECT_EQ(mark.settle(2), std::nullopt);
  EXPECT_EQ(mark.unsettled(), 2U);
  EXPECT_EQ(mark.window(), 4U);
  EXPECT_EQ(mark.settle(1), 3U);
  EXPECT_EQ(mark.window(), 1U);
  EXPECT_EQ(mark.settle(4), 4U);
  EXPECT_EQ(mark.window(), 0U);
}

TEST(Watermark, SettlingTwiceOrWhatIsUnknownChangesNothing) {
  Watermark mark;
  EXPECT_EQ(mark.settle(1), std::nullopt);
  mark.track(5);
  mark.track(9);
  for (const std::uint64_t unknown : {0, 4, 6, 8, 10, 1000}) EXPECT_EQ(mark.settle(unknown), std::nullopt);
  EXPECT_EQ(mark.settle(9), std::nullopt);
  EXPECT_EQ(mark.settle(9), std::nullopt);
  EXPECT_EQ(mark.unsettled(), 1U);
  EXPECT_EQ(mark.settle(5), 9U);
  EXPECT_EQ(mark.settle(10), std::nullopt);
  EXPECT_EQ(mark.unsettled(), 0U);
}

TEST(Watermark, WhatIsAtOrBelowItIsAcknowledgedAgain) {
  Watermark mark;
  mark.track(5);
  mark.track(9);
  EXPECT_EQ(mark.settle(4), std::nullopt);
  EXPECT_EQ(mark.settle(5), 5U);
  for (const std::uint64_t again : {0, 4, 5}) EXPECT_EQ(mark.settle(again), 5U);
  EXPECT_EQ(mark.settle(6), std::nullopt);
  EXPECT_EQ(mark.unsettled(), 1U);
}

TEST(Watermark, HolesDoNotHoldItUp) {
  Watermark mark;
  mark.track(10);
  mark.track(1'000'000'000'000);
  EXPECT_EQ(mark.settle(10), 10U);
  EXPECT_EQ(mark.settle(1'000'000'000'000), 1'000'000'000'000U);
}

TEST(Watermark, WhatComesAgainInTheWindowCountsOnce) {
  Watermark mark;
  mark.track(1);
  mark.track(2);
  mark.track(1);
  mark.track(2);
  EXPECT_EQ(mark.unsettled(), 2U);
  EXPECT_EQ(mark.settle(1), 1U);
  EXPECT_EQ(mark.settle(2), 2U);
}

TEST(Watermark, StartsAnewWhereTheGroupWasSetBack) {
  Watermark mark;
  mark.track(100);
  EXPECT_EQ(mark.settle(100), 100U);
  mark.track(40);
  EXPECT_EQ(mark.settle(40), 40U);
}

TEST(Watermark, ALongWindowKeepsItsOrderWhileItGrows) {
  Watermark mark;
  constexpr std::uint64_t many = 100'000;
  for (std::uint64_t n = 0; n < many; ++n) mark.track(3 * n);
  for (std::uint64_t n = many - 1; n > 0; --n) ASSERT_EQ(mark.settle(3 * n), std::nullopt);
  EXPECT_EQ(mark.settle(0), 3 * (many - 1));
  EXPECT_EQ(mark.window(), 0U);
}

/// The same by definition: everything that was handed out, in order, with what became of it.
struct Model {
  std::map<std::uint64_t, bool> window;
  std::optional<std::uint64_t> mark;

  void track(std::uint64_t sequence) {
    if (!window.empty() && sequence <= window.rbegin()->first) return;
    if (window.empty() && sequence <= mark) mark.reset();
    window.emplace(sequence, false);
  }
  std::optional<std::uint64_t> settle(std::uint64_t sequence) {
    const auto found = window.find(sequence);
    if (found == window.end() && sequence <= mark) return mark;
    if (found == window.end() || found->second) return std::nullopt;
    found->second = true;
    std::optional<std::uint64_t> moved;
    while (!window.empty() && window.begin()->second) {
      mark = moved = window.begin()->first;
      window.erase(window.begin());
    }
    return moved;
  }
  [[nodiscard]] std::size_t unsettled() const {
    return static_cast<std::size_t>(std::ranges::count(window, false, &std::pair<const std::uint64_t, bool>::second));
  }
};

TEST(Watermark, AgreesWithItsDefinitionOverManySeeds) {
  for (std::uint32_t seed = 0; seed < 3000; ++seed) {
    std::mt19937 random(seed);
    Watermark mark;
    Model model;
    std::vector<std::uint64_t> handed_out;
    std::uint64_t next = random() % 3;
    const auto hole = 1 + random() % 20;
    for (int step = 0; step < 120; ++step) {
      const auto draw = random() % 10;
      if (draw < 5 || handed_out.empty()) {
        next += random() % 4 ? 1 : 1 + random() % hole;
        handed_out.push_back(next);
        mark.track(next);
        model.track(next);
      } else if (draw < 6) {
        const auto again = handed_out[random() % handed_out.size()];  // delivered again
        mark.track(again);
        model.track(again);
      } else {
        const auto chosen = draw == 9 ? random() % (next + 3) : handed_out[random() % handed_out.size()];
        ASSERT_EQ(mark.settle(chosen), model.settle(chosen)) << "seed " << seed << " step " << step;
      }
      ASSERT_EQ(mark.window(), model.window.size()) << "seed " << seed << " step " << step;
      ASSERT_EQ(mark.unsettled(), model.unsettled()) << "seed " << seed << " step " << step;
    }
  }
}

}  // namespace
}  // namespace maestro::messaging

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace maestro::messaging {

/// Which position of one partition may be committed: the highest below which everything that was handed out is settled.
/// Committing only that, a crash repeats messages and loses none.
class Watermark {
 public:
  /// A delivery is in someone's hands. Sequences grow, gaps are allowed (a log may have holes); one that comes again
  /// after a release, or below what is settled already, changes nothing.
  void track(std::uint64_t sequence) {
    if (size_ > 0 && sequence <= at(size_ - 1).sequence) return;
    if (settled_ && sequence <= *settled_ && size_ == 0) settled_.reset();  // the group's place was set back
    if (size_ == ring_.size()) grow();
    at(size_++) = {sequence, false};
    ++unsettled_;
  }

  /// The new watermark, if it moved. The watermark again for a sequence at or below it: it was delivered twice, so the
  /// broker may have lost the first acknowledgement. Other sequences that are not tracked, or settled already, are
  /// ignored.
  std::optional<std::uint64_t> settle(std::uint64_t sequence) {
    auto* entry = find(sequence);
    if (!entry && settled_ && sequence <= *settled_) return settled_;
    if (!entry || entry->settled) return std::nullopt;
    entry->settled = true;
    --unsettled_;
    if (entry != &at(0)) return std::nullopt;
    while (size_ > 0 && at(0).settled) {
      settled_ = at(0).sequence;
      first_ = (first_ + 1) & (ring_.size() - 1);
      --size_;
    }
    return settled_;
  }

  [[nodiscard]] std::size_t unsettled() const noexcept { return unsettled_; }
  /// Tracked above the watermark: what a crash would repeat.
  [[nodiscard]] std::size_t window() const noexcept { return size_; }

 private:
  struct Entry {
    std::uint64_t sequence = 0;
    bool settled = false;
  };

  Entry& at(std::size_t index) { return ring_[(first_ + index) & (ring_.size() - 1)]; }

  Entry* find(std::uint64_t sequence) {
    if (size_ == 0 || sequence < at(0).sequence) return nullptr;
    // Without holes the place is known; with holes it is further to the front.
    const auto guess = sequence - at(0).sequence;
    if (guess < size_ && at(guess).sequence == sequence) return &at(guess);
    std::size_t low = 0;
    std::size_t high = std::min<std::uint64_t>(size_, guess + 1);
    while (low < high) {
      const auto middle = (low + high) / 2;
      if (at(middle).sequence < sequence) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < size_ && at(low).sequence == sequence ? &at(low) : nullptr;
  }

  void grow() {
    std::vector<Entry> larger(ring_.empty() ? 64 : ring_.size() * 2);
    for (std::size_t i = 0; i < size_; ++i) larger[i] = at(i);
    ring_ = std::move(larger);
    first_ = 0;
  }

  std::vector<Entry> ring_;  // a power of two long
  std::size_t first_ = 0;
  std::size_t size_ = 0;
  std::size_t unsettled_ = 0;
  std::optional<std::uint64_t> settled_;
};

}  // namespace maestro::messaging

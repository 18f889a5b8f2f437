#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <maestro/messaging/time.hpp>
#include <optional>

namespace maestro::messaging::kafka {

/// When the leader of a group looks again at the partitions that it gave out in a rebalance, and when it has to join anew.
class GivenOut {
 public:
  /// After each rebalance. Of no partitions: another member leads.
  void begin(std::optional<std::int32_t> partitions, TimePoint now) {
    partitions_ = partitions;
    ++round_;
    too_few_ = 0;
    pause_ = first_look;
    due_ = now + first_look;
  }

  [[nodiscard]] bool is_due(TimePoint now) const { return partitions_ && !looking_ && now >= due_; }

  /// A look begins; `found` ends it, and wants what this returns.
  [[nodiscard]] unsigned look() {
    looking_ = true;
    return round_;
  }

  /// So many partitions there are (0: no topic, or no answer). Returns whether to join anew.
  [[nodiscard]] bool found(unsigned round, std::int32_t partitions, TimePoint now) {
    looking_ = false;
    if (round != round_ || !partitions_) return false;
    if (partitions == 0) {
      // The topic may come, and librdkafka not see that either.
      pause_ = std::min(pause_ * 2, longest_between_looks);
      due_ = now + pause_;
      return false;
    }
    const bool is_too_few = partitions > *partitions_;
    pause_ = first_look;
    due_ = now + first_look;
    if (is_too_few && ++too_few_ < enough_looks) return false;
    in_vain_ = is_too_few ? in_vain_ + 1 : 0;
    partitions_.reset();
    return is_too_few && in_vain_ <= most_in_vain;
  }

 private:
  static constexpr Duration first_look = std::chrono::seconds(1);
  static constexpr Duration longest_between_looks = std::chrono::seconds(30);
  static constexpr int enough_looks = 2;  // librdkafka may be about to see it itself
  static constexpr int most_in_vain = 3;  // the group may not be allowed all of them

  std::optional<std::int32_t> partitions_;
  unsigned round_ = 0;
  int too_few_ = 0;  // looks in a row
  int in_vain_ = 0;  // times in a row that joining anew did not help
  bool looking_ = false;
  Duration pause_ = first_look;
  TimePoint due_{};
};

}  // namespace maestro::messaging::kafka

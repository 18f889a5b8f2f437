#pragma once

#include <librdkafka/rdkafka.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace maestro::messaging::kafka {

/// Which partitions of a topic have taken a message of this client. Until one has, a single message is under way to it.
///
/// An idempotent producer numbers its batches (KIP-98), and a broker that has never heard of the producer takes any number for
/// the first one. Where the first batch finds a partition that is not ready yet, as one that was just made or got another
/// leader, and the second one, under way with it, finds it ready, the first one is taken for a duplicate when it is tried again:
/// librdkafka calls it delivered, and it is nowhere.
class Openings {
 public:
  /// The topic has so many partitions.
  void learn(std::int32_t partitions) {
    const auto count = static_cast<std::size_t>(partitions);
    for (auto i = count; i < states_.size(); ++i) {
      open_ -= states_[i] == State::open ? 1 : 0;
      opening_ -= states_[i] == State::opening ? 1 : 0;
    }
    states_.resize(count, State::closed);
    count_ = partitions;
  }
  /// 0 when that is not known.
  [[nodiscard]] std::int32_t partitions() const noexcept { return count_; }
  /// Nobody can tell where a message goes: one that was taken stands for all.
  void trust() noexcept { is_trusted_ = true; }

  [[nodiscard]] bool all_open() const noexcept {
    return (count_ > 0 && open_ == static_cast<std::size_t>(count_)) || (is_trusted_ && open_ > 0);
  }
  [[nodiscard]] bool is_opening(std::int32_t partition) const noexcept { return state_of(partition) == State::opening; }
  /// Whether a message may be given to this partition now, or, with `RD_KAFKA_PARTITION_UA`, to one that is not known. To one that
  /// there cannot be it may: the client refuses it.
  [[nodiscard]] bool may_go(std::int32_t partition) const noexcept {
    if (all_open()) return true;
    if (partition == RD_KAFKA_PARTITION_UA) return opening_ == 0;
    return !is_possible(partition) || (!anywhere_ && state_of(partition) != State::opening);
  }
  /// Whether one may be given to a partition that is chosen as it is given, and is not one that is `is_opening`.
  [[nodiscard]] bool may_choose() const noexcept {
    return all_open() || opening_ == 0 || (!anywhere_ && opening_ < static_cast<std::size_t>(count_));
  }
  /// A message that may go goes. True when it is the one that opens the partition: then its answer is to be told.
  bool go(std::int32_t partition) {
    if (all_open()) return false;
    if (partition == RD_KAFKA_PARTITION_UA) {
      anywhere_ = true;
    } else {
      if (!is_possible(partition) || state_of(partition) != State::closed) return false;
      state_at(partition) = State::opening;
    }
    ++opening_;
    return true;
  }
  /// The answer to it: where it was to go, where it went, and whether it was taken.
  void answer(std::int32_t to, std::int32_t went, bool taken) {
    if (to == RD_KAFKA_PARTITION_UA) {
      opening_ -= anywhere_ ? 1 : 0;
      anywhere_ = false;
    } else if (state_of(to) == State::opening) {
      --opening_;
      state_at(to) = State::closed;
    }
    if (!taken || !is_possible(went) || state_of(went) != State::closed) return;
    state_at(went) = State::open;
    ++open_;
  }
  /// The topic may be another one from now on, with as many partitions as it likes.
  void close() noexcept {
    for (auto& state : states_)
      if (state == State::open) state = State::closed;
    open_ = 0;
    count_ = 0;
  }

 private:
  enum class State : char { closed, opening, open };

  [[nodiscard]] bool is_possible(std::int32_t partition) const noexcept {
    constexpr std::int32_t most = 100'000;  // of a topic; no cluster has so many
    return partition >= 0 && partition < (count_ > 0 ? count_ : most);
  }
  [[nodiscard]] State state_of(std::int32_t partition) const noexcept {
    const auto at = static_cast<std::size_t>(partition);
    return partition >= 0 && at < states_.size() ? states_[at] : State::closed;
  }
  State& state_at(std::int32_t partition) {
    const auto at = static_cast<std::size_t>(partition);
    if (at >= states_.size()) states_.resize(at + 1, State::closed);
    return states_[at];
  }

  std::vector<State> states_;  // by partition
  std::size_t open_ = 0;
  std::size_t opening_ = 0;    // under way, each the only one to its partition
  std::int32_t count_ = 0;
  bool anywhere_ = false;      // one of them, to a partition that is not known
  bool is_trusted_ = false;
};

}  // namespace maestro::messaging::kafka

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
    is_counted_ = true;
    if (states_.size() < static_cast<std::size_t>(partitions)) states_.resize(static_cast<std::size_t>(partitions), State::closed);
  }
  /// 0 when that is not known.
  [[nodiscard]] std::int32_t partitions() const noexcept { return is_counted_ ? static_cast<std::int32_t>(states_.size()) : 0; }
  /// Nobody can tell where a message goes: one that was taken stands for all.
  void trust() noexcept { is_trusted_ = true; }

  [[nodiscard]] bool all_open() const noexcept { return (is_counted_ && open_ == states_.size()) || (is_trusted_ && open_ > 0); }
  [[nodiscard]] bool is_opening(std::int32_t partition) const noexcept { return state_of(partition) == State::opening; }
  /// Whether a message may be given to this partition now, or, with `RD_KAFKA_PARTITION_UA`, to one that is not known.
  [[nodiscard]] bool may_go(std::int32_t partition) const noexcept {
    if (all_open()) return true;
    if (partition == RD_KAFKA_PARTITION_UA) return opening_ == 0;
    return !anywhere_ && state_of(partition) != State::opening;
  }
  /// Whether one may be given to a partition that is chosen as it is given, and is not one that is `is_opening`.
  [[nodiscard]] bool may_choose() const noexcept {
    return all_open() || opening_ == 0 || (is_counted_ && !anywhere_ && opening_ < states_.size());
  }
  /// A message that may go goes. True when it is the one that opens the partition: then its answer is to be told.
  bool go(std::int32_t partition) {
    if (all_open() || state_of(partition) == State::open) return false;
    ++opening_;
    if (partition == RD_KAFKA_PARTITION_UA) {
      anywhere_ = true;
    } else {
      state_at(partition) = State::opening;
    }
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
    if (!taken || went < 0 || state_of(went) != State::closed) return;
    state_at(went) = State::open;
    ++open_;
  }
  /// The topic may be another one from now on.
  void close() noexcept {
    for (auto& state : states_)
      if (state == State::open) state = State::closed;
    open_ = 0;
  }

 private:
  enum class State : char { closed, opening, open };

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
  bool anywhere_ = false;      // one of them, to a partition that is not known
  bool is_counted_ = false;
  bool is_trusted_ = false;
};

}  // namespace maestro::messaging::kafka

#pragma once

#include <algorithm>
#include <cstdint>

namespace maestro::messaging::kafka {

/// The bookkeeping of one assigned partition: what came, what was handed out, what is settled, what the group's place is.
/// Pure: no librdkafka, no clock.
class Offsets {
 public:
  /// `base` is where reading begins, -1 when only the broker knows.
  explicit Offsets(std::int64_t base = -1, std::int64_t committed = -1) : base_(base), committed_(committed) {}

  /// A message came; false when it came before, and is to be dropped.
  bool accept(std::int64_t offset) {
    if (offset < next_) return false;
    if (base_ < 0) base_ = offset;
    next_ = offset + 1;
    return true;
  }
  void hand_out(std::int64_t offset) { handed_ = std::max(handed_, offset + 1); }
  /// Where reading goes on.
  [[nodiscard]] std::int64_t position() const { return std::max(next_, base_); }
  /// The log is the one that the base is a place of: what is before that came before.
  void base_is_true() { next_ = position(); }
  /// What came and was not handed out was dropped; the end is beyond that.
  void drop_ready() {
    next_ = std::max(handed_, base_);
    end_ = -1;
  }

  /// Everything up to and with `offset` is settled; returns how many that is more than before.
  std::int64_t acknowledge(std::int64_t offset) {
    const auto before = std::max(settled_, base_);
    if (offset + 1 <= settled_ || offset >= handed_) return 0;
    settled_ = offset + 1;
    return settled_ - std::max<std::int64_t>(before, 0);
  }
  /// The broker has nothing below `offset` that it did not give us (transaction markers are never given).
  void reached_end(std::int64_t offset) {
    end_ = offset;
    if (base_ < 0) base_ = offset;
  }

  [[nodiscard]] bool is_at_end() const { return end_ >= 0; }
  [[nodiscard]] bool all_settled() const { return settled_ >= handed_; }
  /// What a member that takes over has to go on with; -1 when there is nothing to say.
  [[nodiscard]] std::int64_t place() const {
    if (all_settled() && all_handed_out() && end_ > settled_) return end_;
    return settled_ > 0 ? settled_ : base_;
  }
  [[nodiscard]] bool is_dirty() const { return place() >= 0 && place() != committed_; }
  /// Something was settled beyond the place, whatever the broker has no messages for.
  [[nodiscard]] bool has_settled_more() const { return settled_ > std::max<std::int64_t>(committed_, 0); }
  [[nodiscard]] std::int64_t committed() const { return committed_; }
  void commit_done(std::int64_t place) { committed_ = place; }

  /// Up to where everything was handed out (a private reader settles nothing).
  [[nodiscard]] std::int64_t handed_out() const {
    return all_handed_out() && end_ > handed_ ? end_ : std::max(handed_, base_);
  }
  /// Messages below `high` that are not settled.
  [[nodiscard]] std::int64_t lag(std::int64_t high, bool is_private) const {
    const auto from = is_private ? handed_out() : place();
    return std::max<std::int64_t>(0, high - std::max<std::int64_t>(from, 0));
  }

 private:
  [[nodiscard]] bool all_handed_out() const { return std::max(handed_, base_) >= next_; }

  std::int64_t base_;
  std::int64_t committed_;
  std::int64_t next_ = 0;     // above what came
  std::int64_t handed_ = 0;   // above what was handed out
  std::int64_t settled_ = 0;  // above what is settled
  std::int64_t end_ = -1;
};

}  // namespace maestro::messaging::kafka

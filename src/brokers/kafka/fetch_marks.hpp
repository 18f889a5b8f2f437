#pragma once

#include <algorithm>
#include <cstddef>

namespace maestro::messaging::kafka {

/// When fetching pauses and goes on: above a high mark of bytes it pauses, below a quarter of it it goes on. What was handed
/// out and is still held lowers the mark, to an eighth at the least: who asks for more gets it.
class FetchMarks {
 public:
  explicit FetchMarks(std::size_t high) : high_(high) {}

  void add(std::size_t bytes) { bytes_ += bytes; }
  void remove(std::size_t bytes) { bytes_ -= bytes; }

  enum class Change { none, pause, resume };
  /// What has to be done now; it counts as done.
  Change change(std::size_t handed_out = 0) {
    const auto high = std::max(high_ - std::min(high_, handed_out), high_ / 8);
    if (!paused_ && bytes_ >= high) {
      paused_ = true;
      return Change::pause;
    }
    if (paused_ && bytes_ <= high / 4) {
      paused_ = false;
      return Change::resume;
    }
    return Change::none;
  }
  [[nodiscard]] bool paused() const { return paused_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  std::size_t high_;
  std::size_t bytes_ = 0;
  bool paused_ = false;
};

}  // namespace maestro::messaging::kafka

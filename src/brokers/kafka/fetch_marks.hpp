#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace maestro::messaging::kafka {

/// When fetching pauses and goes on: above a high mark of messages or bytes it pauses, below a quarter of both it goes
/// on. What was handed out and is still held lowers the mark of bytes, to an eighth at the least: who asks for more
/// gets it.
class FetchMarks {
 public:
  FetchMarks(std::size_t messages, std::size_t bytes) : high_messages_(messages), high_bytes_(bytes) {}

  void add(std::size_t bytes) {
    ++messages_;
    bytes_ += bytes;
  }
  void remove(std::size_t messages, std::size_t bytes) {
    messages_ -= messages;
    bytes_ -= bytes;
  }

  enum class Change { none, pause, resume };
  /// What has to be done now; it counts as done.
  Change change(std::size_t handed_out = 0) {
    const auto high_bytes = std::max(high_bytes_ - std::min(high_bytes_, handed_out), high_bytes_ / 8);
    if (!paused_ && (messages_ >= high_messages_ || bytes_ >= high_bytes)) {
      paused_ = true;
      return Change::pause;
    }
    if (paused_ && messages_ <= high_messages_ / 4 && bytes_ <= high_bytes / 4) {
      paused_ = false;
      return Change::resume;
    }
    return Change::none;
  }
  [[nodiscard]] bool paused() const { return paused_; }
  [[nodiscard]] std::size_t messages() const { return messages_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  std::size_t high_messages_;
  std::size_t high_bytes_;
  std::size_t messages_ = 0;
  std::size_t bytes_ = 0;
  bool paused_ = false;
};

}  // namespace maestro::messaging::kafka

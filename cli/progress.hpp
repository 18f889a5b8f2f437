#pragma once

#include <chrono>
#include <maestro/messaging/time.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace maestro::cli {

using messaging::Clock;
using messaging::TimePoint;

/// One line on a terminal's standard error that says how far a piece of work is; it appears once that work has taken
/// half a second, and is redrawn ten times a second at most. Elsewhere it is silent.
class Progress {
 public:
  /// `total` 0: not known.
  Progress(std::string label, std::uint64_t total);
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(std::uint64_t done);
  /// Wipes the line.
  void finish();

 private:
  void draw(std::uint64_t done, TimePoint now);

  std::string label_;
  std::uint64_t total_;
  TimePoint started_;
  TimePoint due_;
  bool terminal_;
  bool drawn_ = false;
};

/// A block of lines on a terminal's standard output that is drawn over itself, ten times a second at most.
class LiveBlock {
 public:
  LiveBlock();
  ~LiveBlock() { erase(); }
  LiveBlock(const LiveBlock&) = delete;
  LiveBlock& operator=(const LiveBlock&) = delete;

  [[nodiscard]] bool active() const noexcept { return active_; }
  void draw(const std::vector<std::string>& lines);
  void erase();

 private:
  bool active_;
  std::size_t height_ = 0;
  TimePoint due_{};
};

/// `width` cells, filled as far as `done` of `total`.
[[nodiscard]] std::string bar(std::uint64_t done, std::uint64_t total, std::size_t width);

}  // namespace maestro::cli

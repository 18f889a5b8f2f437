#include "progress.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "output.hpp"

namespace maestro::cli {

using namespace std::chrono_literals;

Progress::Progress(std::string label, std::uint64_t total)
    : label_(std::move(label)),
      total_(total),
      started_(Clock::real()->now()),
      due_(started_ + 500ms),
      terminal_(standard_error_is_terminal()) {}

void Progress::update(std::uint64_t done) {
  if (!terminal_) return;
  const auto now = Clock::real()->now();
  if (now < due_) return;
  due_ = now + 100ms;
  draw(done, now);
}

void Progress::draw(std::uint64_t done, TimePoint now) {
  const double seconds = std::chrono::duration<double>(now - started_).count();
  const auto rate = static_cast<std::int64_t>(static_cast<double>(done) / seconds);
  const auto count = thousands(static_cast<std::int64_t>(done));
  drawn_ = true;
  if (total_ == 0) {
    fmt::print(stderr, "\r\x1b[K{} {} ({}/s)", label_, count, thousands(rate));
  } else {
    fmt::print(stderr, "\r\x1b[K{} {} {} of {} ({}/s)", label_, bar(done, total_, 30), count,
               thousands(static_cast<std::int64_t>(total_)), thousands(rate));
  }
  std::fflush(stderr);
}

void Progress::finish() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  drawn_ = false;
}

LiveBlock::LiveBlock() : active_(standard_output_is_terminal()) {}

void LiveBlock::draw(const std::vector<std::string>& lines) {
  const auto now = Clock::real()->now();
  if (!active_ || now < due_) return;
  due_ = now + 100ms;
  std::string text;
  if (height_ != 0) text += fmt::format("\x1b[{}A", height_);
  for (const auto& line : lines) text += "\r\x1b[K" + line + "\n";
  height_ = lines.size();
  fmt::print("{}", text);
  std::fflush(stdout);
}

void LiveBlock::erase() {
  if (height_ == 0) return;
  fmt::print("\x1b[{}A\x1b[J", height_);
  std::fflush(stdout);
  height_ = 0;
  due_ = {};
}

std::string bar(std::uint64_t done, std::uint64_t total, std::size_t width) {
  const auto filled = total == 0 ? 0 : std::min(done, total) * width / total;
  std::string cells;
  for (std::size_t i = 0; i < width; ++i) cells += i < filled ? "█" : "░";
  return cells;
}

}  // namespace maestro::cli

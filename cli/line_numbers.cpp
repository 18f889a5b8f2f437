#include "line_numbers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace maestro::cli {

void LineNumbers::add(std::size_t line) {
  ++count_;
  const auto next = std::ranges::upper_bound(ranges_, line, {}, &Range::first);
  const bool meets_next = next != ranges_.end() && next->first == line + 1;
  if (next != ranges_.begin() && std::prev(next)->last + 1 == line) {
    std::prev(next)->last = meets_next ? next->last : line;
    if (meets_next) ranges_.erase(next);
  } else if (meets_next) {
    next->first = line;
  } else {
    ranges_.insert(next, {line, line});
  }
}

std::string LineNumbers::text() const {
  constexpr std::size_t most = 20;
  std::string text = count_ == 1 ? "line " : "lines ";
  std::size_t told = 0;
  for (std::size_t i = 0; i < ranges_.size() && i < most; ++i) {
    const auto [first, last] = ranges_[i];
    text += i == 0 ? "" : ", ";
    text += first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
    told += last - first + 1;
  }
  if (told < count_) text += fmt::format(" and {} more (--json names all)", count_ - told);
  return text;
}

boost::json::array LineNumbers::json() const {
  boost::json::array ranges;
  for (const auto [first, last] : ranges_) ranges.push_back(boost::json::array{first, last});
  return ranges;
}

}  // namespace maestro::cli

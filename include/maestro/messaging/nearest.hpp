#pragma once

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace maestro::messaging {

/// Insertions, deletions and replacements that make one text of the other.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    auto diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const auto replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

/// The one that is most like what was written: what was probably meant. `known` must not be empty; what was written is cut
/// to a sane length.
template <class Range>
std::string_view nearest(std::string_view written, const Range& known) {
  written = written.substr(0, 64);
  return *std::ranges::min_element(known, {}, [&](std::string_view each) { return edit_distance(written, each); });
}

/// Whether the one can be a slip of the pen for the other: a third of its letters are wrong, and one more, at most.
inline bool is_near(std::string_view written, std::string_view known) {
  written = written.substr(0, 64);
  return !written.empty() && edit_distance(written, known) <= written.size() / 3 + 1;
}

/// The nearest, where it is near.
template <class Range>
std::optional<std::string_view> near(std::string_view written, const Range& known) {
  if (std::ranges::empty(known)) return std::nullopt;
  const auto found = nearest(written, known);
  return is_near(written, found) ? std::optional(found) : std::nullopt;
}

}  // namespace maestro::messaging

#include "nearest_word.hpp"

#include <algorithm>
#include <numeric>

namespace maestro::cli {

namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (const char each : a) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const auto replaced = diagonal + (each == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

}  // namespace

std::string nearest_word(std::string_view given, const std::vector<std::string>& words) {
  std::string nearest;
  std::size_t best = given.size() / 3 + 2;
  for (const auto& word : words)
    if (const auto distance = edit_distance(given, word); distance < best) best = distance, nearest = word;
  return nearest;
}

}  // namespace maestro::cli

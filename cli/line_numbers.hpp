#pragma once

#include <boost/json/array.hpp>
#include <cstddef>
#include <string>
#include <vector>

namespace maestro::cli {

/// Numbers of lines, kept as ranges.
class LineNumbers {
 public:
  /// Each once.
  void add(std::size_t line);
  [[nodiscard]] bool empty() const noexcept { return ranges_.empty(); }
  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  /// Of those that there are; 0 where there is none.
  [[nodiscard]] std::size_t first() const noexcept { return empty() ? 0 : ranges_.front().first; }
  /// `line 7`, `lines 1, 3-5`; of many ranges the first ones, and how many lines more.
  [[nodiscard]] std::string text() const;
  /// Each range as `[first, last]`.
  [[nodiscard]] boost::json::array json() const;

 private:
  struct Range {
    std::size_t first;
    std::size_t last;
  };
  std::vector<Range> ranges_;
  std::size_t count_ = 0;
};

}  // namespace maestro::cli

#pragma once

#include <fmt/format.h>

#include <chrono>
#include <random>
#include <string>
#include <string_view>
#include <vector>

/// What the benchmarks share.
namespace measure {

using SteadyTime = std::chrono::steady_clock;

inline double seconds_since(SteadyTime::time_point began) { return std::chrono::duration<double>(SteadyTime::now() - began).count(); }

/// A name that nothing else has.
inline std::string fresh(std::string_view what) { return fmt::format("bench.{}.{:08x}", what, std::random_device{}()); }

/// Of sorted values, the one below which this share lies.
inline double at_share(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
}

}  // namespace measure

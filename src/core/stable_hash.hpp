#pragma once

#include <cstdint>
#include <string_view>

namespace maestro::messaging {

/// FNV-1a: the same in every process and version, so that a key keeps its partition and a filter its group.
constexpr std::uint64_t stable_hash(std::string_view text) noexcept {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return hash;
}

}  // namespace maestro::messaging

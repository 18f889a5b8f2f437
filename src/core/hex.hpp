#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace maestro::messaging {

constexpr std::string_view hex_digits = "0123456789abcdef";

/// Writes the lowest `count` hexadecimal digits, an even number of them, to `to`.
inline void write_hex(char* to, std::uint64_t value, int count) {
  static constexpr auto pairs = [] {
    std::array<char, 512> made{};
    for (std::size_t i = 0; i < 256; ++i) {
      made[2 * i] = hex_digits[i >> 4U];
      made[2 * i + 1] = hex_digits[i & 0xFU];
    }
    return made;
  }();
  for (int i = count - 2; i >= 0; i -= 2, value >>= 8U) std::memcpy(to + i, &pairs[2 * (value & 0xFFU)], 2);
}

}  // namespace maestro::messaging

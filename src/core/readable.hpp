#pragma once

#include <fmt/format.h>

#include <maestro/messaging/utf8.hpp>
#include <string>
#include <string_view>

namespace maestro::messaging {

/// What somebody else wrote, as it may stand in an error: at most 80 bytes of it, well-formed, no control characters.
inline std::string readable(std::string_view written) {
  std::string shown;
  for (const char c : to_utf8(cut_utf8(written, 80))) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      shown += fmt::format("\\x{:02x}", byte);
    } else {
      shown += c;
    }
  }
  return shown;
}

}  // namespace maestro::messaging

#pragma once

#include <fmt/format.h>

#include <maestro/messaging/utf8.hpp>
#include <string>
#include <string_view>

#include "core/control_characters.hpp"

namespace maestro::messaging {

/// What somebody else wrote, as it may stand in an error: at most 80 bytes of it, well-formed, no control characters.
inline std::string readable(std::string_view written) {
  const auto text = to_utf8(cut_utf8(written, 80));
  std::string shown;
  for (std::string_view rest = text; !rest.empty();) {
    const auto length = control_character(rest);
    if (length > 0) {
      shown +=
          fmt::format("\\x{:02x}", static_cast<unsigned char>(rest[length - 1]));  // the last byte of C1 is its number
    } else {
      shown += rest[0];
    }
    rest.remove_prefix(length > 0 ? length : 1);
  }
  return shown;
}

}  // namespace maestro::messaging

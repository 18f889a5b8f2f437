#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace maestro::messaging {

/// How many bytes the control character (C0, DEL or C1) at the beginning of this well-formed text has; 0 when there is
/// none.
inline std::size_t control_character(std::string_view text) noexcept {
  if (text.empty()) return 0;
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x20 || first == 0x7f) return 1;
  // C1 is U+0080 to U+009F: steers a terminal as C0 does.
  return first == 0xC2 && text.size() > 1 && static_cast<unsigned char>(text[1]) < 0xA0 ? 2 : 0;
}

/// Well-formed text with a space in place of each control character that is not in `kept`.
inline std::string without_control_characters(std::string_view text, std::string_view kept = {}) {
  std::string clean;
  clean.reserve(text.size());
  while (!text.empty()) {
    const auto length = control_character(text);
    clean += length > 0 && kept.find(text[0]) == std::string_view::npos ? ' ' : text[0];
    text.remove_prefix(length > 0 ? length : 1);
  }
  return clean;
}

}  // namespace maestro::messaging

#pragma once

#include <string>
#include <string_view>

namespace maestro::messaging {

/// Whether the bytes are well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates).
bool is_utf8(std::string_view bytes) noexcept;
/// The text with every malformed byte replaced by U+FFFD.
std::string to_utf8(std::string_view bytes);
/// At most `limit` bytes of well-formed UTF-8, cut between characters.
std::string_view cut_utf8(std::string_view text, std::size_t limit) noexcept;

}  // namespace maestro::messaging

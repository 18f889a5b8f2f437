#pragma once

#include <cstdint>
#include <maestro/messaging/time.hpp>
#include <string_view>

namespace maestro::messaging {

/// For an argument that comes before the option of this name: throws `MessagingError(invalid_option)` for a value that
/// the options table does not allow.
void require_in_range(std::string_view option, std::uint64_t value);
void require_in_range(std::string_view option, Duration value);

}  // namespace maestro::messaging

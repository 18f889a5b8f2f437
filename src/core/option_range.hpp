#pragma once

#include <cstdint>
#include <initializer_list>
#include <maestro/messaging/time.hpp>
#include <string_view>

namespace maestro::messaging {

/// For an argument that comes before the option of this name, and is called `argument` where it has another one: throws
/// `MessagingError(invalid_option)` for a value that the options table does not allow.
void require_in_range(std::string_view option, std::uint64_t value, std::string_view argument = {});
void require_in_range(std::string_view option, int value, std::string_view argument = {});
void require_in_range(std::string_view option, double value, std::string_view argument = {});
void require_in_range(std::string_view option, Duration value, std::string_view argument = {});

/// The same for a length of time that is no option of the table.
void require_span(std::string_view argument, Duration value, Duration least, Duration most);

/// Throws `MessagingError(invalid_option)` for a first retry that would have to wait longer than any may.
void require_growing_backoff(Duration initial, Duration most);

/// Throws `MessagingError(invalid_option)` for a value that an enumeration of these names does not have.
void require_one_of(std::string_view argument, int value, std::initializer_list<std::string_view> names);

}  // namespace maestro::messaging

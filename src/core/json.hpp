#pragma once

#include <maestro/messaging/message.hpp>

namespace maestro::messaging {

/// The payload as a JSON value, UTF-8 only, nested `max_depth` deep at most, every number finite. Throws
/// `MessagingError(undecodable)` that names the message, and the byte where it is no JSON.
Value parse_json(const Message& message, std::size_t max_depth);

}  // namespace maestro::messaging

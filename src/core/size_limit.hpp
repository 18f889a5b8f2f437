#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <maestro/messaging/message.hpp>
#include <optional>
#include <string>

namespace maestro::messaging {

/// Why a message is too large (payload, key and headers together); none when it is not.
[[nodiscard]] inline std::optional<std::string> over_limit(const OutgoingMessage& message, std::size_t max_message_bytes) {
  const auto size = message.payload.size() + message.headers.block().size() + (message.key ? message.key->size() : 0);
  if (size <= max_message_bytes) return std::nullopt;
  return fmt::format("{} bytes for \"{}\", max_message_bytes is {}", size, message.topic, max_message_bytes);
}

}  // namespace maestro::messaging

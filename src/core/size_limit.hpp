#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <maestro/messaging/message.hpp>
#include <optional>
#include <string>

namespace maestro::messaging {

/// Payload, key and headers together.
[[nodiscard]] inline std::size_t size_of(const OutgoingMessage& message) noexcept {
  return message.payload.size() + message.headers.block().size() + (message.key ? message.key->size() : 0);
}

/// Why a message is too large; none when it is not.
[[nodiscard]] inline std::optional<std::string> over_limit(const OutgoingMessage& message, std::size_t max_message_bytes) {
  const auto size = size_of(message);
  if (size <= max_message_bytes) return std::nullopt;
  return fmt::format("{} bytes for \"{}\", max_message_bytes is {}", size, message.topic, max_message_bytes);
}

}  // namespace maestro::messaging

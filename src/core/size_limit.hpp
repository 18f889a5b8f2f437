#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <maestro/messaging/message.hpp>
#include <optional>
#include <string>

namespace maestro::messaging {

/// Payload, key and headers together.
[[nodiscard]] inline std::size_t size_of(const OutgoingMessage& message) noexcept {
  return message.payload.size() + message.headers.block().size() + (message.key ? message.key->size() : 0);
}

/// By how much a dead letter, and the replay of one, may exceed the limit: what may be published may be dead-lettered, whole.
inline constexpr std::size_t dead_letter_room = 16'384;

/// Why a message is too large; none when it is not.
[[nodiscard]] inline std::optional<std::string> over_limit(const OutgoingMessage& message, std::size_t max_message_bytes) {
  const auto size = size_of(message);
  if (size <= max_message_bytes) return std::nullopt;
  const auto is_of_dead_letter = [](const Header& header) { return header.first.starts_with("dlq-"); };
  if (size - max_message_bytes <= dead_letter_room && std::ranges::any_of(message.headers.view(), is_of_dead_letter))
    return std::nullopt;
  return fmt::format("{} bytes for \"{}\", max_message_bytes is {}", size, message.topic, max_message_bytes);
}

}  // namespace maestro::messaging

#pragma once

#include <maestro/messaging/headers.hpp>
#include <optional>
#include <string_view>

namespace maestro::messaging {

/// The identity that a message's headers give it: `ce_id`, else `message-id`. An empty one names nothing: every message that has it would
/// be a duplicate of the others.
[[nodiscard]] inline std::optional<std::string_view> message_id(HeadersView headers) noexcept {
  for (const auto* name : {"ce_id", "message-id"})
    if (const auto id = headers.find(name); id && !id->empty()) return id;
  return std::nullopt;
}

}  // namespace maestro::messaging

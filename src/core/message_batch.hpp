#pragma once

#include <maestro/messaging/message.hpp>
#include <memory>
#include <utility>
#include <vector>

namespace maestro::messaging {

/// Appends messages that keep all these parts, and what owns them, together.
inline void append_batch(std::vector<Message>& into, std::vector<Message::Parts> batch) {
  if (batch.empty()) return;
  const auto kept = std::make_shared<const std::vector<Message::Parts>>(std::move(batch));
  into.reserve(into.size() + kept->size());
  for (const auto& parts : *kept) into.emplace_back(std::shared_ptr<const Message::Parts>(kept, &parts));
}

}  // namespace maestro::messaging

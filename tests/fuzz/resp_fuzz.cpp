#include <maestro/messaging/error.hpp>
#include <memory>
#include <vector>

#include "brokers/redis/entry.hpp"
#include "brokers/redis/resp.hpp"
#include "fuzz.hpp"

namespace maestro::messaging::fuzz {
namespace {

std::size_t size_of(const redis::Value& value) {
  std::size_t size = value.text.size();
  for (const auto& each : value.items()) size += size_of(each);
  return size;
}

/// Replies of a server that may say anything, in parts of a length that the first byte says: every text lies in what was sent, kept
/// replies stay as they were, and whatever looks like an entry becomes a message that can be read.
void run(std::string_view text) {
  if (text.empty()) return;
  const auto part = static_cast<std::size_t>(static_cast<unsigned char>(text.front())) % 64 + 1;
  text.remove_prefix(1);
  redis::ReplyReader reader;
  std::vector<std::pair<std::shared_ptr<const void>, std::pair<redis::Value, std::size_t>>> kept;
  std::size_t fed = 0;
  try {
    for (std::size_t at = 0; at < text.size(); at += part) {
      const auto bytes = text.substr(at, part);
      reader.feed(bytes);
      fed += bytes.size();
      while (const auto* reply = reader.next()) {
        const auto size = size_of(*reply);
        require(size <= fed, "no text that was not sent");
        if (kept.size() < 16) kept.push_back({reader.keep(), {*reply, size}});
        redis::EntryBatch batch("topic", reader.keep());
        for (const auto& each : reply->items())
          if (const auto entry = redis::read_entry(each)) batch.add(*entry, {}, 1);
        std::vector<Message> messages;
        batch.take(messages);
        for (const auto& message : messages) {
          std::size_t read = message.body().size();
          for (const auto& [name, value] : message.headers()) read += name.size() + value.size();
          require(!message.id().empty() && read <= 16 * (size + 64), "a message has an id, and what was sent");
        }
      }
    }
  } catch (const MessagingError&) {
    // What is no RESP is refused.
  }
  for (const auto& [owner, reply] : kept)
    require(size_of(reply.first) == reply.second, "a kept reply stays as it was");
}

}  // namespace
}  // namespace maestro::messaging::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  maestro::messaging::fuzz::run(maestro::messaging::fuzz::text_of(data, size));
  return 0;
}

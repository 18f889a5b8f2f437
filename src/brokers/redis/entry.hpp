#pragma once

#include <cstdint>
#include <maestro/messaging/message.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brokers/redis/resp.hpp"

namespace maestro::messaging::redis {

/// The id of an entry of a stream: milliseconds and a number within them.
struct EntryId {
  std::uint64_t ms = 0;
  std::uint64_t number = 0;

  [[nodiscard]] std::string to_string() const;
  /// As one number that grows with it: exact for up to four million entries of one millisecond.
  [[nodiscard]] std::int64_t to_offset() const noexcept;
  static EntryId from_offset(std::int64_t offset) noexcept;
  static std::optional<EntryId> parse(std::string_view text) noexcept;
  friend auto operator<=>(const EntryId&, const EntryId&) = default;
};

/// An entry as it came: `fields` is nil where it was deleted while it was pending.
struct Entry {
  EntryId id;
  std::string_view id_text;
  const Value* fields = nullptr;
};

/// Reads `[id, [name, value, …]]`; none for what is no entry.
[[nodiscard]] std::optional<Entry> read_entry(const Value& value) noexcept;

/// Appends the `XADD` of a message. Its fields are `payload`, `key` and `timestamp` where it has them, then the headers, each under its name;
/// a header that is called like one of the three is written as `header:…`.
void append_add(std::string& to, const OutgoingMessage& message);
/// The key under which it is remembered that a message with this id was added to the topic.
[[nodiscard]] std::string published_key(std::string_view topic, std::string_view id);
/// The same, unless a message with this id was added within the window: then the answer is the id of that entry.
void append_add_once(std::string& to, const OutgoingMessage& message, std::string_view id, std::string_view window_ms);

/// Messages of one reply. An entry of another program's, without a field `payload`, is a JSON object of its fields: a
/// field that repeats is an array, one whose value is no UTF-8 is `{name}_base64`, and a name that is none is
/// `{base64}_name_base64`.
class EntryBatch {
 public:
  EntryBatch(std::string_view topic, std::shared_ptr<const void> reply);

  void add(const Entry& entry, DeliveryTag tag, std::uint32_t delivery_count);
  /// All that was added, in order.
  void take(std::vector<Message>& into);

 private:
  struct Memory {
    std::shared_ptr<const void> reply;
    std::string topic;
    std::string text;  // headers, and payloads that were put together here
  };
  struct Range {
    std::size_t at = 0;
    std::size_t size = 0;
  };
  struct Item {
    Message::Parts parts;
    Range headers;
    std::optional<Range> payload;
  };
  void add_header(std::string_view name, std::string_view value);
  void add_foreign(Item& item, std::span<const Value> fields);

  std::shared_ptr<Memory> memory_;
  std::vector<Item> items_;
};

}  // namespace maestro::messaging::redis

#include <algorithm>
#include <cstring>
#include <maestro/messaging/event.hpp>

#include "core/hex.hpp"

namespace maestro::messaging {

const Value& Event::operator[](std::string_view field) const {
  const auto* object = data_.if_object();
  const auto* found = object ? object->if_contains(field) : nullptr;
  if (!found) throw MessagingError(errc::invalid_event, fmt::format("{}: missing", field));
  return *found;
}

std::optional<Timestamp> Event::time() const noexcept { return parse_rfc3339(text("ce_time")); }

void write_event_headers(Headers& headers, const EventAttributes& attributes, std::string_view content_type) {
  headers.reserve(384);
  headers.add("ce_specversion", "1.0");
  if (attributes.id) headers.add("ce_id", *attributes.id);
  if (attributes.source) headers.add("ce_source", *attributes.source);
  if (attributes.type) headers.add("ce_type", *attributes.type);
  if (attributes.subject) headers.add("ce_subject", *attributes.subject);
  if (attributes.time) {
    std::string text;
    append_rfc3339(text, *attributes.time);
    headers.add("ce_time", text);
  }
  headers.add("content-type", content_type);
}

std::string_view event_type_of(const Value& data, std::string_view topic) noexcept {
  if (const auto* object = data.if_object())
    for (const auto* name : {"event_type", "type"})
      if (const auto* found = object->if_contains(name))
        if (const auto* text = found->if_string(); text && !text->empty()) return *text;
  return topic;
}

// The 12 bits after the version count within a millisecond (RFC 9562 section 6.2, method 1), and spill into the time.
void IdGenerator::write(char* to, Timestamp now) {
  auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  if (ms > last_ms_) {
    last_ms_ = ms;
    counter_ = 0;
  } else if (++counter_ == 0x1000) {
    ++last_ms_;
    counter_ = 0;
  }
  const auto random = random_();
  write_hex(to, static_cast<std::uint64_t>(last_ms_) >> 16U, 8);
  write_hex(to + 9, static_cast<std::uint64_t>(last_ms_) & 0xFFFFU, 4);
  write_hex(to + 14, 0x7000U | counter_, 4);
  write_hex(to + 19, 0x8000U | (random >> 48U & 0x3FFFU), 4);
  write_hex(to + 24, random, 12);
  for (const auto dash : {8, 13, 18, 23}) to[dash] = '-';
}

std::string IdGenerator::next(Timestamp now) {
  std::string id(36, '-');
  write(id.data(), now);
  return id;
}

std::array<char, 55> make_traceparent(std::mt19937_64& random) {
  std::array<char, 55> text;
  std::ranges::copy(std::string_view("00-"), text.data());
  write_hex(text.data() + 3, random(), 16);
  write_hex(text.data() + 19, random() | 1U, 16);
  text[35] = '-';
  write_hex(text.data() + 36, random() | 1U, 16);
  std::ranges::copy(std::string_view("-01"), text.data() + 52);
  return text;
}

bool is_traceparent(std::string_view text) noexcept {
  if (text.size() != 55 || !text.starts_with("00-") || text[35] != '-' || text[52] != '-') return false;
  const auto hex = [&](std::size_t from, std::size_t count) {
    const auto part = text.substr(from, count);
    return part.find_first_not_of(hex_digits) == std::string_view::npos;
  };
  return hex(3, 32) && hex(36, 16) && hex(53, 2) && text.substr(3, 32).find_first_not_of('0') != std::string_view::npos &&
         text.substr(36, 16).find_first_not_of('0') != std::string_view::npos;
}

}  // namespace maestro::messaging

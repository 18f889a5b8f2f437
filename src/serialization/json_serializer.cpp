#include <fmt/format.h>

#include <boost/json/serializer.hpp>
#include <cmath>
#include <maestro/messaging/serializer.hpp>
#include <maestro/messaging/utf8.hpp>

#include "core/json.hpp"

namespace maestro::messaging {
namespace {

/// Where in the data we are, linked to where we came from.
struct Place {
  const Place* up = nullptr;
  std::string_view field;
  std::size_t index = 0;
  bool in_array = false;
  std::size_t depth = 0;

  [[nodiscard]] std::string path() const {
    if (!up) return "";
    if (in_array) return fmt::format("{}[{}]", up->path(), index);
    const auto before = up->path();
    return before.empty() ? std::string(field) : fmt::format("{}.{}", before, field);
  }
};

[[noreturn]] void refuse(const Place& place, std::string_view why) {
  const auto path = to_utf8(place.path());
  throw MessagingError(errc::invalid_argument, fmt::format("{}: {}", path.empty() ? "the data" : path, why));
}

/// Throws for what no reader would take: numbers that JSON lacks, and more depth than is read.
void check(const Value& value, const Place& place, std::size_t max_depth) {
  if (const auto* number = value.if_double()) {
    if (!std::isfinite(*number)) refuse(place, fmt::format("{} is no number in JSON", *number));
    return;
  }
  if (!value.is_structured()) return;
  if (place.depth >= max_depth)
    refuse(place, fmt::format("nested deeper than is read; allowed is at most {}", max_depth));
  if (const auto* array = value.if_array()) {
    for (std::size_t i = 0; i < array->size(); ++i)
      check((*array)[i], {&place, {}, i, true, place.depth + 1}, max_depth);
  } else {
    for (const auto& member : value.get_object())
      check(member.value(), {&place, member.key(), 0, false, place.depth + 1}, max_depth);
  }
}

Payload checked(std::string text) {
  if (!is_utf8(text))
    throw MessagingError(errc::invalid_argument, "the data has text that is not valid UTF-8; JSON allows no other");
  return Payload(std::move(text));
}

}  // namespace

Payload JsonSerializer::serialize(const Value& data) const {
  check(data, {}, limits_.max_depth);
  boost::json::serializer serializer;
  serializer.reset(&data);
  char first[512];
  auto part = serializer.read(first, sizeof first);
  if (serializer.done()) return checked(std::string(part.data(), part.size()));
  std::string text(part.data(), part.size());
  while (!serializer.done()) {
    char more[4096];
    part = serializer.read(more, sizeof more);
    text.append(part.data(), part.size());
  }
  return checked(std::move(text));
}

Value JsonSerializer::deserialize(const Message& message) const {
  const auto body = message.body();
  if (body.size() > limits_.max_bytes)
    throw MessagingError(errc::undecodable,
                         fmt::format("{} at {}: {} bytes of JSON, at most {}", message.topic(),
                                     message.position().to_string(), body.size(), limits_.max_bytes));
  return parse_json(message, limits_.max_depth);
}

}  // namespace maestro::messaging

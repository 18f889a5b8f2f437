#include <fmt/format.h>

#include <algorithm>
#include <boost/json/stream_parser.hpp>
#include <charconv>
#include <cmath>
#include <maestro/messaging/message.hpp>

#include "core/json.hpp"
#include "core/message_id.hpp"

namespace maestro::messaging {

std::string Position::to_string() const {
  if (!text.empty()) return partition < 0 ? std::string(text) : fmt::format("{}/{}", partition, text);
  return fmt::format("{}/{}", partition, offset);
}

std::optional<Position> Position::parse(std::string_view text) {
  const auto read = [](std::string_view digits, auto& number) {
    const auto* const end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, number);
    return error == std::errc{} && stop == end;
  };
  Position position{0, 0, {}};
  const auto slash = text.find('/');
  const bool has_partition = slash != std::string_view::npos;
  if (has_partition && !read(text.substr(0, slash), position.partition)) return std::nullopt;
  if (!read(text.substr(has_partition ? slash + 1 : 0), position.offset)) return std::nullopt;
  return position;
}

const Receipt& PublishResult::value() const {
  if (error) {
    const bool ours = error.category() == messaging_category();
    throw MessagingError(ours ? static_cast<errc>(error.value()) : errc::broker_error, detail);
  }
  return receipt;
}

constinit const Message::Parts Message::nothing{};

std::string Message::id() const {
  if (const auto id = message_id(headers())) return std::string(*id);
  return fmt::format("{}/{}", topic(), position().to_string());
}

namespace {

/// Boost.JSON reads 1e400 as infinity, and 0e999 as no number at all.
bool has_only_numbers(const Value& value) {
  if (const auto* number = value.if_double()) return std::isfinite(*number);
  if (const auto* array = value.if_array()) return std::ranges::all_of(*array, has_only_numbers);
  if (const auto* object = value.if_object())
    return std::ranges::all_of(*object, [](const auto& member) { return has_only_numbers(member.value()); });
  return true;
}

MessagingError undecodable(const Message& message, std::string_view why) {
  return {errc::undecodable, fmt::format("{} at {}: {}", message.topic(), message.position().to_string(), why)};
}

}  // namespace

Value parse_json(const Message& message, std::size_t max_depth) {
  const auto body = message.body();
  boost::json::parse_options limits;
  limits.max_depth = max_depth;
  unsigned char scratch[1024];
  boost::json::stream_parser parser({}, limits, scratch);
  boost::system::error_code error;
  const auto read = parser.write_some(body.data(), body.size(), error);
  if (!error && read < body.size()) error = boost::json::make_error_code(boost::json::error::extra_data);
  if (!error) parser.finish(error);
  if (error) throw undecodable(message, fmt::format("not JSON at byte {}: {}", read, error.message()));
  auto value = parser.release();
  if (!has_only_numbers(value)) throw undecodable(message, "a number in the JSON is out of the range of a double");
  return value;
}

Value Message::value() const {
  return parse_json(*this, 32);
}

}  // namespace maestro::messaging

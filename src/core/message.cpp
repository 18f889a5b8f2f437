#include <fmt/format.h>

#include <boost/json/stream_parser.hpp>
#include <maestro/messaging/message.hpp>

#include "core/json.hpp"

namespace maestro::messaging {

std::string Position::to_string() const {
  if (!text.empty()) return partition < 0 ? std::string(text) : fmt::format("{}/{}", partition, text);
  return fmt::format("{}/{}", partition, offset);
}

const Receipt& PublishResult::value() const {
  if (error) {
    const bool ours = error.category() == messaging_category();
    throw MessagingError(ours ? static_cast<errc>(error.value()) : errc::broker_error, detail);
  }
  return receipt;
}

std::string Message::id() const {
  // An empty one names nothing: every message that has it would be a duplicate of the others.
  for (const auto* name : {"ce_id", "message-id"})
    if (const auto id = header(name); id && !id->empty()) return std::string(*id);
  return fmt::format("{}/{}", topic(), position().to_string());
}

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
  if (error)
    throw MessagingError(errc::undecodable, fmt::format("{} at {}: not JSON at byte {}: {}", message.topic(),
                                                        message.position().to_string(), read, error.message()));
  return parser.release();
}

Value Message::value() const { return parse_json(*this, 32); }

}  // namespace maestro::messaging

#include <fmt/format.h>

#include <boost/json/serializer.hpp>
#include <boost/json/stream_parser.hpp>
#include <maestro/messaging/serializer.hpp>

namespace maestro::messaging {

Payload JsonSerializer::serialize(const Value& data) const {
  boost::json::serializer serializer;
  serializer.reset(&data);
  char first[512];
  auto part = serializer.read(first, sizeof first);
  if (serializer.done()) return Payload(std::string(part.data(), part.size()));
  std::string text(part.data(), part.size());
  while (!serializer.done()) {
    char more[4096];
    part = serializer.read(more, sizeof more);
    text.append(part.data(), part.size());
  }
  return Payload(std::move(text));
}

Value JsonSerializer::deserialize(const Message& message) const {
  const auto body = message.body();
  const auto refuse = [&](std::string_view why) {
    throw MessagingError(errc::undecodable,
                         fmt::format("{} at {}: {}", message.topic(), message.position().to_string(), why));
  };
  if (body.size() > limits_.max_bytes) refuse(fmt::format("{} bytes of JSON, at most {}", body.size(), limits_.max_bytes));
  boost::json::parse_options options;
  options.max_depth = limits_.max_depth;
  unsigned char scratch[1024];
  boost::json::stream_parser parser({}, options, scratch);
  boost::system::error_code error;
  const auto read = parser.write_some(body.data(), body.size(), error);
  if (!error && read < body.size()) error = boost::json::make_error_code(boost::json::error::extra_data);
  if (!error) parser.finish(error);
  if (error) refuse(fmt::format("not JSON at byte {}: {}", read, error.message()));
  return parser.release();
}

}  // namespace maestro::messaging

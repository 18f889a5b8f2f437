#include <maestro/messaging/error.hpp>
#include <maestro/messaging/serializer.hpp>
#include <maestro/messaging/utf8.hpp>

#include "fuzz.hpp"

namespace maestro::messaging::fuzz {
namespace {

/// Whatever arrives is decoded or refused with `undecodable`; what was decoded is written as what can be read again.
void run(std::string_view body) {
  const JsonSerializer json({.max_depth = 16, .max_bytes = 1 << 16});
  const auto message = [](std::string_view payload) { return Message({.topic = "t", .payload = payload}); };
  Value value;
  try {
    value = json.deserialize(message(body));
  } catch (const MessagingError& error) {
    require(error.reason() == errc::undecodable, "what cannot be read is undecodable");
    return;
  }
  require(is_utf8(body), "only UTF-8 is read");
  Payload written;
  try {
    written = json.serialize(value);
  } catch (const MessagingError& error) {
    // Numbers such as 1e999 and 0e999 are read as infinity and NaN, and JSON has neither.
    require(error.reason() == errc::invalid_event, "what cannot be written is an invalid event");
    return;
  }
  require(message(body).value() == value, "a message's value is the serializer's");
  // Not that it reads the same: Boost.JSON rounds some doubles by a last place.
  if (written.size() <= std::size_t{1} << 16U)
    require(json.deserialize(message(written.view())).kind() == value.kind(), "what was written is read again");
}

}  // namespace
}  // namespace maestro::messaging::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  maestro::messaging::fuzz::run(maestro::messaging::fuzz::text_of(data, size));
  return 0;
}

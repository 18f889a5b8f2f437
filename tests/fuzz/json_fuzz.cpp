#include <algorithm>
#include <cmath>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/serializer.hpp>
#include <maestro/messaging/utf8.hpp>

#include "fuzz.hpp"

namespace maestro::messaging::fuzz {
namespace {

/// Boost.JSON 1.81 does not round every double rightly: a number that is written and read again may differ in the last places.
bool same(double a, double b) {
  constexpr int places = 2;
  for (int i = 0; i < places && a != b; ++i) a = std::nextafter(a, b);
  return a == b;
}

bool same(const Value& a, const Value& b) {
  if (a.is_double() && b.is_double()) return same(a.get_double(), b.get_double());
  if (a.is_array() && b.is_array())
    return std::ranges::equal(a.get_array(), b.get_array(), [](const Value& x, const Value& y) { return same(x, y); });
  if (a.is_object() && b.is_object())
    return std::ranges::equal(a.get_object(), b.get_object(), [](const auto& x, const auto& y) {
      return x.key() == y.key() && same(x.value(), y.value());
    });
  return a == b;
}

/// Whatever arrives is decoded or refused with `undecodable`; what was decoded is written, and read again as the same.
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
  require(message(body).value() == value, "a message's value is the serializer's");
  Payload written;
  try {
    written = json.serialize(value);
  } catch (const MessagingError&) {
    require(false, "what was read can be written");
  }
  if (written.size() > std::size_t{1} << 16U) return;
  try {
    require(same(json.deserialize(message(written.view())), value), "what was written is read again as the same");
  } catch (const MessagingError&) {
    // The largest double may be written as one that is a last place too large.
    require(written.view().find("E308") != std::string_view::npos, "what was written is read again");
  }
}

}  // namespace
}  // namespace maestro::messaging::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  maestro::messaging::fuzz::run(maestro::messaging::fuzz::text_of(data, size));
  return 0;
}

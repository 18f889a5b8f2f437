#include <maestro/messaging/error.hpp>
#include <maestro/messaging/event.hpp>
#include <string>
#include <utility>
#include <vector>

#include "fuzz.hpp"

namespace maestro::messaging::fuzz {
namespace {

using Listed = std::vector<std::pair<std::string, std::string>>;

Listed listed(HeadersView headers) {
  Listed all;
  for (const auto& [name, value] : headers) all.emplace_back(name, value);
  return all;
}

/// Headers against a list of pairs. The input is lines: what to do (`+` add, `=` set, `-` remove), a name, a tab, a
/// value.
void run(std::string_view text) {
  Headers headers;
  Listed expected;
  while (!text.empty()) {
    auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.empty()) continue;
    const auto what = line.front();
    line.remove_prefix(1);
    const auto tab = line.find('\t');
    const std::string name(line.substr(0, tab));
    const std::string value(tab == std::string_view::npos ? "" : line.substr(tab + 1));
    const auto drop = [&] { std::erase_if(expected, [&](const auto& each) { return each.first == name; }); };
    try {
      if (what == '-') {
        headers.remove(name);
        drop();
      } else if (what == '=') {
        headers.set(name, value);
        drop();
        expected.emplace_back(name, value);
      } else {
        headers.add(name, value);
        expected.emplace_back(name, value);
      }
    } catch (const MessagingError& error) {
      require(error.reason() == errc::invalid_argument, "a refused name is an invalid argument");
    }
  }
  require(listed(headers) == expected, "headers are the list of what was added");
  require(headers.view().count() == expected.size(), "count is the number of headers");
  const std::string block = headers.block();
  require(listed(HeadersView(block)) == expected, "a block holds the same headers");
  const Event event(Message({.topic = "t", .headers = headers}), {});
  (void)event.time();
  (void)is_traceparent(event.traceparent());
  if (const auto id = headers.find("ce_id"); id && !id->empty())
    require(event.id() == *id, "an event's id is its header");
  require(!event.id().empty(), "every event has an id");
}

}  // namespace
}  // namespace maestro::messaging::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  maestro::messaging::fuzz::run(maestro::messaging::fuzz::text_of(data, size));
  return 0;
}

#include <maestro/messaging/dead_letter.hpp>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/utf8.hpp>
#include <string>

#include "fuzz.hpp"

namespace maestro::messaging::fuzz {
namespace {

/// Lines of `name<tab>value` are the headers of a message in a dead-letter topic; the whole text is also its error.
void run(std::string_view text) {
  Headers headers;
  for (auto rest = text; !rest.empty();) {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const auto tab = line.find('\t');
    if (tab == std::string_view::npos) continue;
    try {
      headers.add(line.substr(0, tab), line.substr(tab + 1));
    } catch (const MessagingError& error) {
      require(error.reason() == errc::invalid_argument, "a refused name is an invalid argument");
    }
  }
  const Message message({.topic = "t", .payload = text, .headers = headers, .position = {1, 2, {}}});
  if (const auto letter = read_dead_letter(message)) {
    require(!letter->topic.empty() && !letter->group.empty(), "a dead letter says where it came from");
    require(letter->replay_count >= 0 && letter->replay_count <= 1'000'000, "replays are counted up to a million");
    require(letter->attempts >= 0 && letter->attempts <= 1'000'000, "attempts are counted up to a million");
  }

  const Failure failure{.reason = DeadLetterReason::rejected,
                        .error_type = std::string(text),
                        .message = std::string(text),
                        .stack = std::string(text),
                        .attempts = 3};
  const auto dead = make_dead_letter(message, "t.g.dlq", "g", failure);
  const Message delivered({.topic = dead.topic, .payload = dead.payload.view(), .headers = dead.headers});
  const auto letter = read_dead_letter(delivered);
  require(letter.has_value(), "what was written is read back");
  require(letter->topic == "t" && letter->group == "g" && letter->attempts == 3,
          "what was written is read back the same");
  require(letter->error_message.size() <= 1024 && is_utf8(letter->error_message),
          "the error's text is bounded and well-formed");
  require(letter->error_stack.size() <= 8192 && is_utf8(letter->error_stack), "the stack is bounded and well-formed");

  const auto replay = make_replay(delivered, "fresh");
  require(replay.topic == "t" && replay.payload.view() == text, "a replay is the message as it was");
  const Message again({.topic = replay.topic, .payload = replay.payload.view(), .headers = replay.headers});
  require(again.id() == "fresh", "a replay has the new id");
  require(again.header("dlq-message-id") == delivered.id(), "a replay remembers the old id");
  require(!again.header("dlq-reason") && !again.header("dlq-error-stack"), "a replay leaves the failure behind");
}

}  // namespace
}  // namespace maestro::messaging::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  maestro::messaging::fuzz::run(maestro::messaging::fuzz::text_of(data, size));
  return 0;
}

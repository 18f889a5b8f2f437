#include <fmt/format.h>

#include <array>
#include <charconv>
#include <maestro/messaging/dead_letter.hpp>
#include <maestro/messaging/utf8.hpp>

#include "core/control_characters.hpp"

namespace maestro::messaging {
namespace {

constexpr std::size_t longest_stack = 8192;
constexpr std::size_t longest_message = 1024;
constexpr int most_replays = 1'000'000;
constexpr std::string_view prefix = "dlq-";
constexpr std::array<std::string_view, 4> reasons{"retries_exhausted", "rejected", "undecodable", "invalid"};

/// Well-formed text without control characters, but for those in `kept`.
std::string clean(std::string_view raw, std::size_t limit, std::string_view kept = {}) {
  return std::string(cut_utf8(without_control_characters(to_utf8(raw.substr(0, limit * 4)), kept), limit));
}

std::string rfc3339(Timestamp time) {
  std::string text;
  append_rfc3339(text, time);
  return text;
}

/// A count from a header as this library writes it: digits, no leading zero, capped. Foreign text sets nothing.
std::optional<int> read_count(const Message& message, std::string_view name) {
  const auto text = message.header(name);
  if (!text || text->empty() || text->find_first_not_of("0123456789") != std::string_view::npos ||
      (text->front() == '0' && text->size() > 1))
    return std::nullopt;
  int count = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), count);
  return error == std::errc() ? std::min(count, most_replays) : most_replays;
}

/// How often it was replayed. One that cannot be read counts as at the limit, so that nobody's header starts the count anew.
int read_replays(const Message& message) {
  if (!message.header("dlq-replay-count")) return 0;
  return read_count(message, "dlq-replay-count").value_or(most_replays);
}

/// The message without what an earlier dead-lettering left.
OutgoingMessage copy(const Message& message, std::string topic) {
  OutgoingMessage out;
  out.topic = std::move(topic);
  // A copy: the bytes' owner is what they arrived in, and a broker in this process would keep that alive by what it keeps of this.
  out.payload = Payload(std::string(message.body()));
  if (message.key()) out.key = std::string(*message.key());
  // A copy of the block keeps names that another program chose and that `add` would refuse.
  constexpr std::size_t lengths = 2 * sizeof(std::uint32_t);
  std::string block;
  block.reserve(message.headers().block().size());
  for (const auto& [name, value] : message.headers())
    if (!name.starts_with(prefix)) block.append(name.data() - lengths, lengths + name.size() + value.size());
  out.headers = Headers(HeadersView(block));
  return out;
}

}  // namespace

std::string_view to_string(DeadLetterReason reason) noexcept {
  const auto at = static_cast<std::size_t>(reason);
  return at < reasons.size() ? reasons[at] : "unknown";
}

std::optional<DeadLetterReason> parse_dead_letter_reason(std::string_view name) noexcept {
  for (std::size_t i = 0; i < reasons.size(); ++i)
    if (reasons[i] == name) return static_cast<DeadLetterReason>(i);
  return std::nullopt;
}

std::string dead_letter_topic(std::string_view topic, std::string_view group) {
  return fmt::format("{}.{}.dlq", topic, group);
}

OutgoingMessage make_dead_letter(const Message& message, std::string topic, std::string_view group,
                                 const Failure& failure) {
  auto out = copy(message, std::move(topic));
  auto& headers = out.headers;
  headers.add("dlq-topic", message.topic());
  headers.add("dlq-group", group);
  headers.add("dlq-partition", std::to_string(message.position().partition));
  headers.add("dlq-position", message.position().text.empty() ? std::to_string(message.position().offset)
                                                              : std::string(message.position().text));
  headers.add("dlq-reason", to_string(failure.reason));
  headers.add("dlq-error-type", clean(failure.error_type, longest_message));
  headers.add("dlq-error-message", clean(failure.message, longest_message));
  // A long message (a field each that is wrong) is whole where there is more room.
  const auto& stack = failure.stack.empty() && failure.message.size() > longest_message ? failure.message : failure.stack;
  if (!stack.empty()) headers.add("dlq-error-stack", clean(stack, longest_stack, "\n\t"));
  headers.add("dlq-attempts", std::to_string(failure.attempts));
  headers.add("dlq-first-failed-at", rfc3339(failure.first_failed_at));
  headers.add("dlq-failed-at", rfc3339(failure.failed_at));
  headers.add("dlq-replay-count", std::to_string(read_replays(message)));
  if (const auto id = message.header("dlq-message-id")) headers.add("dlq-message-id", *id);
  return out;
}

std::optional<DeadLetter> read_dead_letter(const Message& message) {
  const auto text = [&](std::string_view name) { return std::string(message.header(name).value_or("")); };
  DeadLetter letter;
  letter.topic = text("dlq-topic");
  letter.group = text("dlq-group");
  const auto reason = parse_dead_letter_reason(text("dlq-reason"));
  const auto attempts = read_count(message, "dlq-attempts");
  if (letter.topic.empty() || letter.group.empty() || !reason || !attempts) return std::nullopt;
  if (const auto partition = message.header("dlq-partition"); partition && *partition != "-1") {
    const auto number = read_count(message, "dlq-partition");
    if (!number) return std::nullopt;
    letter.partition = *number;
  }
  letter.position = text("dlq-position");
  letter.reason = *reason;
  letter.error_type = text("dlq-error-type");
  letter.error_message = text("dlq-error-message");
  letter.error_stack = text("dlq-error-stack");
  letter.attempts = *attempts;
  letter.first_failed_at = text("dlq-first-failed-at");
  letter.failed_at = text("dlq-failed-at");
  letter.replay_count = read_replays(message);
  letter.message = message;
  return letter;
}

OutgoingMessage make_replay(const Message& dead_letter, std::string new_id) {
  auto out = copy(dead_letter, std::string(dead_letter.header("dlq-topic").value_or("")));
  const auto old_id = dead_letter.id();
  const bool event = dead_letter.header("ce_id").has_value();
  if (event) out.headers.set("ce_id", new_id);
  if (!event || dead_letter.header("message-id")) out.headers.set("message-id", new_id);
  out.headers.add("dlq-message-id", old_id);
  out.headers.add("dlq-replay-count",
                  std::to_string(std::min(read_replays(dead_letter) + 1, most_replays)));
  return out;
}

}  // namespace maestro::messaging

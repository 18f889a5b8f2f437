#include <fmt/format.h>

#include <algorithm>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/topic.hpp>
#include <maestro/messaging/utf8.hpp>

#include "core/readable.hpp"

namespace maestro::messaging {
namespace {

/// Takes the first token off the front.
std::string_view take_token(std::string_view& rest, bool& more) {
  const auto dot = rest.find('.');
  const auto token = rest.substr(0, dot);
  more = dot != std::string_view::npos;
  rest = more ? rest.substr(dot + 1) : std::string_view{};
  return token;
}

bool is_rest(std::string_view token) {
  return token == ">" || token == "#";
}

/// Of what begins with this token: other programs' names may have empty ones.
bool has_no_empty_token(std::string_view token, std::string_view rest, bool more) {
  while (more && !token.empty()) token = take_token(rest, more);
  return !token.empty();
}

/// White space and control characters beyond ASCII; the text is valid UTF-8, so that none of them is found by chance.
bool has_wide_space(std::string_view text) {
  static constexpr std::string_view spaces[] = {"\u00A0", "\u1680", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"};
  if (std::ranges::any_of(spaces, [&](auto space) { return text.find(space) != std::string_view::npos; })) return true;
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    const auto at = [&](std::size_t j) { return j < text.size() ? static_cast<unsigned char>(text[j]) : 0U; };
    if (at(i) == 0xC2 && at(i + 1) < 0xA0) return true;                                             // U+0080 to U+009F
    if (at(i) == 0xE2 && at(i + 1) == 0x80 && at(i + 2) >= 0x80 && at(i + 2) <= 0x8A) return true;  // U+2000 to U+200A
  }
  return false;
}

/// What is wrong with the tokens of a name; empty when nothing is.
std::string fault_in(std::string_view text, bool pattern_allowed) {
  if (!is_utf8(text)) return "not valid UTF-8";
  if (has_wide_space(text)) return "it has white space or a control character";
  bool more = true;
  for (auto rest = text; more;) {
    const auto token = take_token(rest, more);
    if (token.empty()) return "a token is empty";
    if (pattern_allowed && (token == "*" || is_rest(token))) {
      if (is_rest(token) && more) return "only the last token can stand for the rest";
      continue;
    }
    for (const char c : token) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte <= 0x20 || byte == 0x7f) return "it has white space or a control character";
      if (c == '*' || c == '>' || c == '#') return fmt::format("'{}' is not a whole token", c);
      if (c == '/' || c == '\\') return fmt::format("'{}' cannot be carried by every broker", c);
    }
  }
  return {};
}

/// What is wrong with a whole name; empty when nothing is.
std::string why_not(std::string_view text, bool pattern_allowed) {
  if (text.empty()) return "the name is empty";
  if (text.size() > max_topic_length) return fmt::format("{} bytes, at most {}", text.size(), max_topic_length);
  if (auto fault = fault_in(text, true); !fault.empty()) return fault;
  return pattern_allowed || !is_pattern(text) ? "" : "a pattern cannot be published to, or be made";
}

std::string why_no_group(std::string_view group) {
  return group.empty() ? "the name is empty" : fault_in(group, false);
}

void validate(std::string_view text, bool pattern_allowed) {
  const auto fault = why_not(text, pattern_allowed);
  if (fault.empty()) return;
  throw MessagingError(errc::invalid_topic,
                       fmt::format("\"{}\": {}; allowed are tokens joined by '.', without white space, control "
                                   "characters or * > #{}",
                                   readable(text), fault,
                                   pattern_allowed ? ", or in a pattern * for one token and a final > or #" : ""));
}

}  // namespace

void validate_topic(std::string_view topic) {
  validate(topic, false);
}

void validate_topic_or_pattern(std::string_view text) {
  validate(text, true);
}

bool is_topic(std::string_view text) {
  return why_not(text, false).empty();
}

bool is_group(std::string_view text) {
  return why_no_group(text).empty();
}

void validate_group(std::string_view group, std::string_view origin) {
  const auto fault = why_no_group(group);
  if (fault.empty()) return;
  throw MessagingError(
      errc::invalid_argument,
      fmt::format("{}: \"{}\": {}; allowed is what can be part of a topic's name: tokens joined by '.', without "
                  "white space, control characters or * > # /",
                  origin, readable(group), fault));
}

bool is_pattern(std::string_view text) noexcept {
  bool more = true;
  for (auto rest = text; more;) {
    const auto token = take_token(rest, more);
    if (token == "*" || is_rest(token)) return true;
  }
  return false;
}

bool matches(std::string_view pattern, std::string_view topic) noexcept {
  bool more_pattern = true;
  bool more_topic = true;
  while (more_pattern && more_topic) {
    const auto wanted = take_token(pattern, more_pattern);
    const auto token = take_token(topic, more_topic);
    if (is_rest(wanted) && !more_pattern) return has_no_empty_token(token, topic, more_topic);
    if (token.empty() || (wanted != "*" && wanted != token)) return false;
  }
  return !more_pattern && !more_topic;
}

}  // namespace maestro::messaging

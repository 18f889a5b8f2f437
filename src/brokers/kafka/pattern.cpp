#include "brokers/kafka/pattern.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/topic.hpp>

namespace maestro::messaging::kafka {

std::string regex_of(std::string_view pattern) {
  std::string regex = "^";
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    // There is no lookahead: an internal name is one of two underscores, so one in front is alone, or before something else.
    if (c == '*') {
      regex += i == 0 ? "(_|_?[^_.][^.]*)" : "[^.]+";
    } else if ((c == '>' || c == '#') && i + 1 == pattern.size()) {
      regex += i == 0 ? "(_|_?[^_].*)" : ".+";
    } else if (c == '.') {
      regex += "\\.";
    } else {
      regex += c;
    }
  }
  return regex += '$';
}

bool is_internal(std::string_view topic) noexcept { return topic.starts_with("__"); }

bool stands_for(std::string_view pattern, std::string_view topic) noexcept {
  const auto first = pattern.substr(0, pattern.find('.'));
  if (is_internal(topic) && (first == "*" || first == ">" || first == "#")) return false;
  return matches(pattern, topic);
}

void check_is_not_kafkas(std::string_view topic) {
  static constexpr std::pair<std::string_view, std::string_view> kafkas[] = {
      {"__consumer_offsets", "the places of all groups"},
      {"__transaction_state", "the transactions of all programs"},
      {"__share_group_state", "the places of all share groups"},
      {"__cluster_metadata", "its topics and brokers"},
  };
  for (const auto& [name, what] : kafkas)
    if (topic == name)
      throw MessagingError(errc::invalid_topic, fmt::format("\"{}\" is Kafka's own, with {} in it; programs neither "
                                                            "create, delete nor purge it",
                                                            topic, what));
}

void check_topic_name(std::string_view topic) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  constexpr std::size_t longest = 249;
  if (!topic.empty() && topic.size() <= longest && topic != "." && topic != ".." && std::ranges::all_of(topic, allowed)) return;
  throw MessagingError(errc::invalid_topic,
                       fmt::format("\"{}\"; Kafka allows up to {} ASCII letters, digits, '.', '_' and '-'", topic, longest));
}

}  // namespace maestro::messaging::kafka

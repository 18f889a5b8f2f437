#pragma once

#include <string>
#include <string_view>

namespace maestro::messaging {

/// The longest topic name that every broker carries, in bytes (Kafka's limit).
inline constexpr std::size_t max_topic_length = 249;

/// Throws `MessagingError(invalid_topic)` unless the name is tokens joined by `.`: no empty token, no white space,
/// no control character, valid UTF-8, none of `* > #`.
void validate_topic(std::string_view topic);

/// Whether `validate_topic` lets it pass.
bool is_topic(std::string_view text);

/// A pattern is a topic in which `*` stands for exactly one token and a final `>` (or `#`) for one or more. On Kafka
/// a topic whose name begins with two underscores is the cluster's own, and found only by a pattern whose first token names it:
/// `__x.*` finds `__x.y`, and neither `*` nor `>` finds `__consumer_offsets`.
bool is_pattern(std::string_view text) noexcept;

/// Throws `MessagingError(invalid_topic)` for what is neither a topic nor a well-formed pattern.
void validate_topic_or_pattern(std::string_view text);

/// Throws `MessagingError(invalid_argument)` unless the name of a group can be part of a topic's, as in
/// `{topic}.{group}.dlq`: by the rules of topics, but for the length. `origin` says in the error where the name came
/// from.
void validate_group(std::string_view group, std::string_view origin = "group_id");

/// Whether `validate_group` lets it pass.
bool is_group(std::string_view text);

/// Whether the topic is one that the pattern (or plain topic) stands for.
bool matches(std::string_view pattern, std::string_view topic) noexcept;

}  // namespace maestro::messaging

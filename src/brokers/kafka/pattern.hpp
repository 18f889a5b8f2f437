#pragma once

#include <string>
#include <string_view>

namespace maestro::messaging::kafka {

/// The POSIX extended regular expression, anchored and beginning with `^` as librdkafka wants it, that stands for a
/// pattern of ours: `*` for one token, a final `>` or `#` for one or more. What is internal is matched only where the first
/// token names it.
[[nodiscard]] std::string regex_of(std::string_view pattern);

/// Whether the topic is one that the pattern (or plain topic) stands for, by the same rules.
[[nodiscard]] bool stands_for(std::string_view pattern, std::string_view topic) noexcept;

/// Two underscores in front: by custom the cluster's own, such as `__consumer_offsets`, or that of a tool beside it. A reader of
/// all topics would feed itself with the places that it commits.
[[nodiscard]] bool is_internal(std::string_view topic) noexcept;

/// Throws `invalid_topic` for a topic in which Kafka keeps its own books: no program makes, deletes or empties it.
void check_is_not_kafkas(std::string_view topic);

/// Throws `invalid_topic` for a name that Kafka refuses: it has letters, digits, `.`, `_` and `-`.
void check_topic_name(std::string_view topic);

}  // namespace maestro::messaging::kafka

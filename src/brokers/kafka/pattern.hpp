#pragma once

#include <string>
#include <string_view>

namespace maestro::messaging::kafka {

/// The POSIX extended regular expression, anchored and beginning with `^` as librdkafka wants it, that stands for a
/// pattern of ours: `*` for one token, a final `>` or `#` for one or more.
[[nodiscard]] std::string regex_of(std::string_view pattern);

/// Throws `invalid_topic` for a name that Kafka refuses: it has letters, digits, `.`, `_` and `-`.
void check_topic_name(std::string_view topic);

}  // namespace maestro::messaging::kafka

#include <maestro/messaging/config.hpp>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/topic.hpp>
#include <string>

#include "fuzz.hpp"

namespace maestro::messaging::fuzz {
namespace {

void expect_refusal(const MessagingError& error) {
  require(error.reason() == errc::invalid_option || error.reason() == errc::unknown_option ||
              error.reason() == errc::invalid_topic,
          "bad configuration is refused as such");
}

/// A URL, then lines of `map key=value` (`c`, `o` and `p` for the three maps).
void run(std::string_view text) {
  const auto take_line = [&] {
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    return line;
  };
  const auto url = take_line();
  const auto shown = redact(url);
  require(redact(shown) == shown, "what was redacted stays as it is");
  // A password of letters that occur nowhere else, in front of the last server.
  const auto secret = redact("redis://user:" + std::string("QZQZ") + std::string(url) + "QZQZ@host");
  require(secret.find("QZQZ") == std::string::npos, "no password is shown");
  try {
    validate_topic_or_pattern(url);
    require(is_pattern(url) || matches(url, url), "a topic matches itself");
  } catch (const MessagingError& error) {
    expect_refusal(error);
  }
  MessagingConfig config;
  try {
    config = MessagingConfig::from_url(url);
  } catch (const MessagingError& error) {
    expect_refusal(error);
  }
  while (!text.empty()) {
    const auto line = take_line();
    const auto equals = line.find('=');
    if (line.size() < 2 || equals == std::string_view::npos || equals < 2) continue;
    auto& map = line[0] == 'c'   ? config.connection_config
                : line[0] == 'o' ? config.consumer_config
                                 : config.producer_config;
    map.insert_or_assign(std::string(line.substr(2, equals - 2)), OptionValue(line.substr(equals + 1)));
  }
  try {
    const Options options(config);
    for (const auto& row : options.shown())
      if (row.spec->type == OptionType::duration)
        require(options.integer(row.spec->name) >= static_cast<std::int64_t>(row.spec->least),
                "durations are in range");
  } catch (const MessagingError& error) {
    expect_refusal(error);
  }
}

}  // namespace
}  // namespace maestro::messaging::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  maestro::messaging::fuzz::run(maestro::messaging::fuzz::text_of(data, size));
  return 0;
}

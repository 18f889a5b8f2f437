#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace maestro::messaging {

enum class LogLevel { debug, info, warning, error, off };

/// A log line and its context. Fields are in the order in which they are printed. No field ever holds a password.
struct LogRecord {
  LogLevel level = LogLevel::info;
  std::string message;
  std::vector<std::pair<std::string, std::string>> fields;
};

using LogSink = std::function<void(const LogRecord&)>;

/// Where the library's log lines go; may be called at any time, from any thread. An empty sink silences it.
/// The default is text on standard error (`make_log_sink`).
void set_log_sink(LogSink sink);
/// Lines below this level are not even put together. Default: `warning` and above; `MESSAGING_LOG_LEVEL` (`debug`,
/// `info`, `warning`, `error`, `off`) overrides it, and what it says wrongly is logged once.
void set_log_level(LogLevel level) noexcept;
[[nodiscard]] bool log_enabled(LogLevel level) noexcept;

/// A field's value beyond 4 KiB is cut, and says how long it was.
void log(LogLevel level, std::string message, std::vector<std::pair<std::string, std::string>> fields = {});

enum class LogFormat { text, json };
/// A sink on spdlog to standard error: text for people, or one JSON object a line for programs
/// (`time`, `level`, `message`, then the fields; one of those names gets a `_` at its end).
LogSink make_log_sink(LogFormat format);

}  // namespace maestro::messaging

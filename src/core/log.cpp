#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cstdlib>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/utf8.hpp>
#include <memory>
#include <mutex>
#include <optional>

#include "core/readable.hpp"

namespace maestro::messaging {
namespace {

constexpr std::pair<std::string_view, LogLevel> levels[] = {{"debug", LogLevel::debug},
                                                            {"info", LogLevel::info},
                                                            {"warning", LogLevel::warning},
                                                            {"error", LogLevel::error},
                                                            {"off", LogLevel::off}};

// What an exception says may be of any length; a line of a log may not.
constexpr std::size_t longest_value = 4096;

struct Environment {
  LogLevel level = LogLevel::warning;
  std::optional<std::string> misspelt = std::nullopt;
};

Environment read_environment() {
  const auto* name = std::getenv("MESSAGING_LOG_LEVEL");
  const std::string_view text = name ? name : "";
  for (const auto& [known, level] : levels)
    if (text == known) return {level};
  if (text.empty()) return {};
  return {LogLevel::warning, std::string(text)};
}

const Environment& environment() {
  static const auto* kept = new Environment(read_environment());
  return *kept;
}

std::atomic<LogLevel>& threshold() noexcept {
  static std::atomic<LogLevel> level{environment().level};
  return level;
}

struct Sink {
  std::mutex mutex;
  std::shared_ptr<const LogSink> current = std::make_shared<const LogSink>(make_log_sink(LogFormat::text));
};

Sink& sink() {
  static auto* kept = new Sink;  // outlives whoever logs while the process ends
  return *kept;
}

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
    case LogLevel::off:
      break;
  }
  return spdlog::level::off;
}

bool needs_quotes(std::string_view value) {
  if (value.empty() || value.find_first_of(" \"=") != std::string_view::npos) return true;
  for (; !value.empty(); value.remove_prefix(1))
    if (control_character(value) > 0) return true;
  return false;
}

/// Text that can neither start a line of its own nor steer a terminal.
std::string one_line(std::string_view raw) {
  return without_control_characters(to_utf8(raw));
}

/// The same as a JSON text: every control character escaped, those that JSON itself would leave alone (DEL and C1) too.
std::string quoted(std::string_view raw) {
  const auto text = boost::json::serialize(boost::json::string(to_utf8(raw)));
  std::string escaped;
  escaped.reserve(text.size());
  for (std::string_view rest = text; !rest.empty();) {
    const auto length = control_character(rest);
    if (length > 0) {
      escaped += fmt::format("\\u{:04x}", static_cast<unsigned char>(rest[length - 1]));
    } else {
      escaped += rest[0];
    }
    rest.remove_prefix(length > 0 ? length : 1);
  }
  return escaped;
}

void emit(LogRecord record) {
  std::shared_ptr<const LogSink> current;
  {
    const std::lock_guard lock(sink().mutex);
    current = sink().current;
  }
  if (!current) return;
  try {
    (*current)(record);
  } catch (...) {  // NOLINT(bugprone-empty-catch): a broken sink must not break messaging, and there is nowhere to tell
  }
}

/// Once, before the first line that the library would log.
void say_what_is_misspelt() {
  static std::atomic<bool> said{false};
  const auto& misspelt = environment().misspelt;
  if (!misspelt || said.exchange(true)) return;
  std::string allowed;
  for (const auto& [name, level] : levels) allowed += (allowed.empty() ? "" : ", ") + std::string(name);
  emit({LogLevel::warning,
        fmt::format("MESSAGING_LOG_LEVEL: \"{}\" is no level; allowed are {}. It is warning now", readable(*misspelt),
                    allowed),
        {}});
}

}  // namespace

void set_log_sink(LogSink next) {
  auto shared = next ? std::make_shared<const LogSink>(std::move(next)) : nullptr;
  const std::lock_guard lock(sink().mutex);
  sink().current = std::move(shared);
}

void set_log_level(LogLevel level) noexcept {
  threshold().store(level, std::memory_order_relaxed);
}

bool log_enabled(LogLevel level) noexcept {
  return level != LogLevel::off && level >= threshold().load(std::memory_order_relaxed);
}

void log(LogLevel level, std::string message, std::vector<std::pair<std::string, std::string>> fields) {
  say_what_is_misspelt();
  if (!log_enabled(level)) return;
  for (auto& [name, value] : fields) {
    if (value.size() <= longest_value) continue;
    const auto whole = value.size();
    value.resize(cut_utf8(value, longest_value).size());
    value += fmt::format("… ({} bytes)", whole);
  }
  emit({level, std::move(message), std::move(fields)});
}

LogSink make_log_sink(LogFormat format) {
  auto out = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>("maestro", std::move(out));
  logger->set_level(spdlog::level::trace);
  if (format == LogFormat::text) {
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v");
    return [logger](const LogRecord& record) {
      auto line = one_line(record.message);
      for (const auto& [name, value] : record.fields) {
        line += ' ' + one_line(name) + '=';
        line += needs_quotes(value) ? quoted(value) : to_utf8(value);
      }
      logger->log(spdlog_level(record.level), "{}", line);
    };
  }
  logger->set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})");
  return [logger](const LogRecord& record) {
    std::string line = "\"message\":" + quoted(record.message);
    for (const auto& [name, value] : record.fields) {
      const bool taken = name == "time" || name == "level" || name == "message";
      line += ',' + quoted(taken ? name + '_' : name) + ':' + quoted(value);
    }
    logger->log(spdlog_level(record.level), "{}", line);
  };
}

}  // namespace maestro::messaging

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cstdlib>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/utf8.hpp>
#include <memory>
#include <mutex>

namespace maestro::messaging {
namespace {

LogLevel level_from_environment() noexcept {
  const auto* name = std::getenv("MESSAGING_LOG_LEVEL");
  const std::string_view text = name ? name : "";
  if (text == "debug") return LogLevel::debug;
  if (text == "info") return LogLevel::info;
  if (text == "error") return LogLevel::error;
  if (text == "off") return LogLevel::off;
  return LogLevel::warning;
}

std::atomic<LogLevel>& threshold() noexcept {
  static std::atomic<LogLevel> level{level_from_environment()};
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

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

bool needs_quotes(std::string_view value) {
  return value.empty() || value.find_first_of(" \"=") != std::string_view::npos ||
         std::ranges::any_of(value, is_control);
}

/// Text that can neither start a line of its own nor steer a terminal.
std::string one_line(std::string_view raw) {
  auto text = to_utf8(raw);
  std::ranges::replace_if(text, is_control, ' ');
  return text;
}

std::string quoted(std::string_view raw) {
  auto text = boost::json::serialize(boost::json::string(to_utf8(raw)));
  std::ranges::replace(text, '\x7f', ' ');  // the one control character that JSON leaves alone
  return text;
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
  if (!log_enabled(level)) return;
  std::shared_ptr<const LogSink> current;
  {
    const std::lock_guard lock(sink().mutex);
    current = sink().current;
  }
  if (!current) return;
  try {
    (*current)({level, std::move(message), std::move(fields)});
  } catch (...) {  // NOLINT(bugprone-empty-catch): a broken sink must not break messaging, and there is nowhere to tell
  }
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
    const auto text = [](std::string_view raw) { return boost::json::serialize(boost::json::string(to_utf8(raw))); };
    std::string line = "\"message\":" + text(record.message);
    for (const auto& [name, value] : record.fields) line += ',' + text(name) + ':' + text(value);
    logger->log(spdlog_level(record.level), "{}", line);
  };
}

}  // namespace maestro::messaging

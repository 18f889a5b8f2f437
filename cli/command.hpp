#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace maestro::cli {

/// What the command's exit status says; documented in `maestro --help`.
enum ExitCode : int {
  exit_ok = 0,
  exit_failed = 1,
  exit_usage = 2,
  exit_unreachable = 3,
  exit_nothing = 4,
  exit_lost = 5,
};

/// The options that every verb takes.
struct Settings {
  std::optional<std::string> broker;
  std::vector<std::string> options;
  bool json = false;
  /// What the verb itself asks of Kafka, as `options` do; these count more.
  std::vector<std::string> on_kafka = {};
};

/// What is to be run once the whole command line was understood.
using Action = std::function<int()>;

/// Each adds one verb, whose callback sets the action. The settings and the action must outlive the parsing.
void add_demo(CLI::App& app, const Settings& settings, Action& action);
void add_publish(CLI::App& app, const Settings& settings, Action& action);
void add_subscribe(CLI::App& app, const Settings& settings, Action& action);
void add_status(CLI::App& app, const Settings& settings, Action& action);
void add_topics(CLI::App& app, const Settings& settings, Action& action);
void add_dlq(CLI::App& app, const Settings& settings, Action& action);
void add_config(CLI::App& app, const Settings& settings, Action& action);
void add_bench(CLI::App& app, const Settings& settings, Action& action);
void add_completion(CLI::App& app, const Settings& settings, Action& action);

/// What the shells ask for while a line is typed: what its last word may become, one a line.
int print_candidates(const CLI::App& app, const std::vector<std::string>& line);

}  // namespace maestro::cli

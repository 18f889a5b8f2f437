#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>
#include <maestro/messaging/nearest.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "command.hpp"
#include "output.hpp"
#include "session.hpp"

namespace {

using namespace maestro::cli;
namespace messaging = maestro::messaging;

constexpr auto* exit_codes =
    "Exit codes:\n"
    "  0  done\n"
    "  1  failed: the broker said no, or the input is not what it should be\n"
    "  2  wrong use: an option, a topic name or a configuration that cannot be\n"
    "  3  the broker could not be reached, or refused the credentials\n"
    "  4  not found, or nothing there\n"
    "  5  demo and bench: a message was lost, or a promise was not kept\n"
    "\n"
    "The broker is --broker, else the one whose address is in the environment (KAFKA_BOOTSTRAP_SERVERS,\n"
    "REDIS_URL, RABBITMQ_URL, NATS_URL; MESSAGING_BROKER decides between several), else memory://maestro,\n"
    "which lives and dies inside this one process.\n"
    "\n"
    "What is on the command line, everybody on this machine can see. A password may be in the environment instead:\n"
    "KAFKA_SASL_PASSWORD, KAFKA_SSL_KEY_PASSWORD, REDIS_PASSWORD.";

/// The verb that was understood last, or the command itself.
const CLI::App& last_verb(const CLI::App& app) {
  const auto parsed = app.get_subcommands();
  return parsed.empty() ? app : last_verb(*parsed.back());
}

std::vector<std::string> verbs_of(const CLI::App& app) {
  std::vector<std::string> verbs;
  for (const auto* verb : app.get_subcommands([](const CLI::App*) { return true; })) verbs.push_back(verb->get_name());
  return verbs;
}

/// As they are written: those of the verb, and of all above it.
std::vector<std::string> options_of(const CLI::App& verb) {
  std::vector<std::string> names;
  for (const auto* app = &verb; app != nullptr; app = app->get_parent())
    for (const auto* option : app->get_options()) {
      for (const auto& name : option->get_lnames()) names.push_back("--" + name);
      for (const auto& name : option->get_snames()) names.push_back("-" + name);
    }
  return names;
}

std::string full_name(const CLI::App& verb) {
  return (verb.get_parent() != nullptr ? full_name(*verb.get_parent()) + " " : "") + verb.get_name();
}

/// A verb or an option that there is none of, or a verb that is missing, gets a better answer than the parser's. Empty
/// for everything else.
std::string what_is_unknown(const CLI::App& app) {
  const auto& verb = last_verb(app);
  const auto verbs = verbs_of(verb);
  const auto answer = [](const std::string& what, std::optional<std::string_view> meant, const std::string& otherwise) {
    return "there is no " + what + ". " + (meant ? "Did you mean '" + std::string(*meant) + "'?" : otherwise);
  };
  const auto all_verbs = fmt::format("{} are {}", &verb == &app ? "The verbs" : "Those of `" + full_name(verb) + "`",
                                     fmt::join(verbs, ", "));
  const auto left = app.remaining(true);
  if (left.empty()) return verbs.empty() ? "" : "a verb is missing. " + all_verbs;
  const auto name = left.front().substr(0, left.front().find('='));
  if (name.size() > 1 && name.starts_with('-'))
    return answer("option '" + printable(name) + "'", messaging::near(name, options_of(verb)),
                  "`" + full_name(verb) + " --help` lists them");
  return verbs.empty()
             ? ""
             : answer("verb '" + printable(left.front()) + "'", messaging::near(left.front(), verbs), all_verbs);
}

std::string sentence(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '.')) text.pop_back();
  return text;
}

/// Whoever read standard output wants no more, as `head` does.
bool is_output_closed() {
  pollfd output{STDOUT_FILENO, POLLOUT, 0};
  return ::poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
}

/// The exit code, once all of the output is surely out.
int finish(int code) {
  errno = 0;
  // The help and the version go another way than what the verbs print.
  std::cout.flush();
  std::fflush(stdout);
  const int cause = errno;
  if (std::cout.good() && std::ferror(stdout) == 0) return code;
  constexpr int ended_by_a_closed_pipe = 128 + SIGPIPE;  // as the signal would have been told
  if (is_output_closed()) return ended_by_a_closed_pipe;
  print_error("standard output could not be written" +
              (cause != 0 ? ": " + std::system_category().message(cause) : ""));
  return code == exit_ok ? int{exit_failed} : code;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a member of a group leaves it first
  // Else standard input is read a line at a time, and nobody can tell whether more is there.
  std::ios::sync_with_stdio(false);
  Settings settings;
  Action action;
  CLI::App app{
      "Messages and events on Kafka, Redis, RabbitMQ, NATS or in memory: publish, consume, look, repair, measure.",
      "maestro"};
  app.set_version_flag("--version", MAESTRO_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(exit_codes);
  app.add_option("-b,--broker", settings.broker, "The broker's URL, such as memory://name or kafka://host:9092");
  app.add_option("-o,--option", settings.options,
                 "A setting of the options table, as name=value; may be repeated (see `maestro config`)")
      ->take_all()
      ->allow_extra_args(false)
      ->type_name("NAME=VALUE");
  app.add_flag("--json", settings.json, "JSON on standard output: one object, or one a line");

  add_demo(app, settings, action);
  add_publish(app, settings, action);
  add_subscribe(app, settings, action);
  add_status(app, settings, action);
  add_topics(app, settings, action);
  add_dlq(app, settings, action);
  add_config(app, settings, action);
  add_bench(app, settings, action);
  add_completion(app, settings, action);

  const std::vector<std::string> words(argv + 1, argv + argc);
  if (!words.empty() && words.front() == "__complete")
    return finish(print_candidates(app, {words.begin() + 1, words.end()}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return finish(app.exit(help));
  } catch (const CLI::ParseError& error) {
    const bool unknown = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr ||
                         dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
    const auto better = unknown ? what_is_unknown(app) : std::string();
    print_error(better.empty() ? sentence(error.what()) + ". Run the verb with --help to see what it takes" : better);
    return exit_usage;
  }
  try {
    return finish(action());
  } catch (...) {
    if (is_output_closed()) return finish(exit_failed);
    return finish(report_failure(std::current_exception()));
  }
}

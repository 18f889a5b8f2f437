#include <fmt/format.h>

#include <maestro/messaging/dead_letters.hpp>
#include <maestro/messaging/topic.hpp>
#include <maestro/messaging/utf8.hpp>
#include <memory>
#include <utility>

#include "checks.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "session.hpp"

namespace maestro::cli {

using namespace messaging;

namespace {

struct DlqArguments {
  std::string topic;
  std::string position;
  std::string reason;
  std::optional<std::string> error;
  std::optional<std::string> key;
  std::size_t limit = 100;
  std::optional<std::size_t> replay_limit;
  bool dry_run = false;
  std::optional<double> rate;
  int min_replays = 0;
  int max_replays = 3;
  bool yes = false;
};

DeadLetterFilter filter_of(const DlqArguments& arguments) {
  DeadLetterFilter filter{
      .error_contains = arguments.error, .key = arguments.key, .min_replays = arguments.min_replays};
  if (!arguments.reason.empty()) filter.reason = parse_dead_letter_reason(arguments.reason);
  return filter;
}

boost::json::object as_json(const DeadLetter& letter) {
  auto object = message_json(letter.message);
  object["dead_letter"] = boost::json::object{{"topic", letter.topic},
                                              {"group", letter.group},
                                              {"partition", letter.partition},
                                              {"position", letter.position},
                                              {"reason", to_string(letter.reason)},
                                              {"error_type", letter.error_type},
                                              {"error_message", letter.error_message},
                                              {"error_stack", letter.error_stack},
                                              {"attempts", letter.attempts},
                                              {"first_failed_at", letter.first_failed_at},
                                              {"failed_at", letter.failed_at},
                                              {"replay_count", letter.replay_count}};
  return object;
}

awaitable<int> list_topics(MessageBroker broker, const Settings& settings) {
  const auto topics = co_await DeadLetters::topics(broker);
  Table table({"dead-letter topic", ">messages"});
  for (const auto& each : topics) {
    if (settings.json) print_json(boost::json::object{{"topic", each.name}, {"messages", each.messages}});
    table.add({printable(each.name), thousands(each.messages)});
  }
  if (topics.empty()) {
    print_hint(is_memory(settings)
                   ? "no dead-letter topics: memory:// lives inside one process. Give --broker to see a server's"
                   : "no dead-letter topics; they are those whose names end in .dlq");
    co_return exit_nothing;
  }
  if (!settings.json) table.print();
  co_return exit_ok;
}

awaitable<int> list(MessageBroker broker, const Settings& settings, const DlqArguments& arguments) {
  if (arguments.topic.empty()) co_return co_await list_topics(std::move(broker), settings);
  validate_topic(arguments.topic);
  DeadLetters letters(broker, arguments.topic);
  std::size_t left_out = 0;
  // One more than is shown tells whether there are more.
  auto found = co_await letters.list(filter_of(arguments), arguments.limit + 1, [&](const Message&) { ++left_out; });
  const bool has_more = found.size() > arguments.limit;
  if (has_more) found.pop_back();
  if (left_out > 0)
    print_hint(fmt::format("left out {} whose dlq- headers are missing or cannot be read; `maestro subscribe {}` shows them",
                           thousands(static_cast<std::int64_t>(left_out)), arguments.topic));
  Table table({"position", "key", "reason", ">attempts", ">replays", "failed at", "error"});
  for (const auto& letter : found) {
    if (settings.json) print_json(as_json(letter));
    const auto key = letter.message.key().value_or(std::string_view());
    table.add({letter.message.position().to_string(), printable(key), std::string(to_string(letter.reason)),
               std::to_string(letter.attempts), std::to_string(letter.replay_count), printable(letter.failed_at),
               printable(cut_utf8(letter.error_message, 100))});
  }
  if (found.empty()) {
    print_hint(fmt::format("no dead letters match in '{}'", arguments.topic));
    co_return exit_nothing;
  }
  if (!settings.json) table.print();
  if (has_more) print_hint(fmt::format("there are more than {}. Raise --limit to see them", found.size()));
  co_return exit_ok;
}

awaitable<int> show(MessageBroker broker, const Settings& settings, const DlqArguments& arguments) {
  validate_topic(arguments.topic);
  DeadLetters letters(broker, arguments.topic);
  std::optional<DeadLetter> letter;
  try {
    letter = co_await letters.show(arguments.position);
  } catch (const MessagingError& failure) {
    if (failure.reason() != errc::invalid_argument) throw;
    throw UsageError(fmt::format("'{}' is no position. Give one as `maestro dlq list` shows it", arguments.position));
  }
  if (!letter) {
    print_error(fmt::format("there is no dead letter at {} of '{}'. `maestro dlq list {}` shows what there is",
                            arguments.position, arguments.topic, arguments.topic));
    co_return exit_nothing;
  }
  if (settings.json) {
    print_json(as_json(*letter));
    co_return exit_ok;
  }
  Table table({"position", letter->message.position().to_string()});
  table.add({"came from", fmt::format("{} at {}", printable(letter->topic), printable(letter->position))});
  table.add({"group", printable(letter->group)});
  table.add({"reason", std::string(to_string(letter->reason))});
  table.add({"error", printable(letter->error_type)});
  table.add({"", printable(letter->error_message)});
  table.add({"attempts", std::to_string(letter->attempts)});
  table.add({"first failed", printable(letter->first_failed_at)});
  table.add({"last failed", printable(letter->failed_at)});
  table.add({"replays", std::to_string(letter->replay_count)});
  table.add({"key", printable(letter->message.key().value_or(std::string_view()))});
  for (const auto [name, value] : letter->message.headers())
    if (!name.starts_with("dlq-")) table.add({"header " + printable(name), printable(value)});
  table.add({"payload", printable(letter->message.body())});
  table.print();
  co_return exit_ok;
}

/// Whether it is for dead letters: by its name, or, where one was given with `on_error`, by what is in it.
awaitable<bool> has_dead_letters(DeadLetters& letters, const std::string& topic) {
  if (topic.ends_with(".dlq")) co_return true;
  const auto found = co_await letters.list({}, 1);
  co_return !found.empty();
}

/// What a replay did, or had done when it ended early.
void print_report(const ReplayReport& report, const Settings& settings, const DlqArguments& arguments, bool ended_early) {
  const auto& first = report.first_failure;
  if (settings.json) {
    print_json(boost::json::object{
        {"topic", arguments.topic},
        {"dry_run", arguments.dry_run},
        {"ended_early", ended_early},
        {"seen", report.seen},
        {"replayed", report.replayed},
        {"filtered", report.filtered},
        {"refused", report.refused},
        {"foreign", report.foreign},
        {"failed", report.failed},
        {"first_failure", first ? boost::json::value{{"position", first->position},
                                                     {"error", errc_name(first->error)},
                                                     {"detail", text_json(first->detail)}}
                                : boost::json::value(nullptr)},
        {"held", report.held}});
  } else {
    print_line(fmt::format(
        "{} {} of {} dead letters{}: {} did not match, {} had been replayed {} times, {} were none of ours, {} {}",
        arguments.dry_run ? "would replay" : "replayed", report.replayed, report.seen,
        ended_early ? " before it ended early" : "", report.filtered, report.refused, arguments.max_replays, report.foreign,
        report.failed, arguments.dry_run ? "would fail" : "failed"));
  }
  if (first)
    print_error(fmt::format(
        "{} of the dead letters cannot be published and stay where they are; the first is {}: {}. When its cause is gone, "
        "replay them with a filter of their own, such as --key: the same filter goes on behind them",
        report.failed, first->position, printable(first->detail)));
}

awaitable<int> replay(MessageBroker broker, const Settings& settings, const DlqArguments& arguments) {
  validate_topic(arguments.topic);
  DeadLetters letters(broker, arguments.topic);
  if (!co_await has_dead_letters(letters, arguments.topic)) {
    print_error(fmt::format("there is no dead letter in '{}'. `maestro dlq list` names the topics that have some",
                            arguments.topic));
    co_return exit_nothing;
  }
  Progress progress(arguments.dry_run ? "looking" : "replaying", 0);
  const auto came = [&](std::size_t done, std::size_t) { progress.update(done); };
  const auto so_far = std::make_shared<ReplayReport>();
  try {
    co_await letters.replay({.filter = filter_of(arguments),
                             .dry_run = arguments.dry_run,
                             .per_second = arguments.rate,
                             .max_replays = arguments.max_replays,
                             .limit = arguments.replay_limit,
                             .progress = came,
                             .so_far = so_far});
  } catch (...) {
    progress.finish();
    if (so_far->seen > 0) print_report(*so_far, settings, arguments, true);
    throw;
  }
  progress.finish();
  const auto& report = *so_far;
  print_report(report, settings, arguments, false);
  if (report.held > 0) {
    print_error(fmt::format(
        "{} are still in the hands of another replay. Replay again when it has ended; what a dead one held is free "
        "after claim_idle",
        report.held));
  }
  if (report.failed > 0 || report.held > 0) co_return exit_failed;
  co_return report.replayed == 0 ? exit_nothing : exit_ok;
}

awaitable<int> purge(MessageBroker broker, const Settings& settings, const DlqArguments& arguments) {
  validate_topic(arguments.topic);
  require_yes(arguments.yes, fmt::format("purge removes every message of '{}', those that `dlq list` leaves out too,", arguments.topic));
  DeadLetters letters(broker, arguments.topic);
  if (!co_await has_dead_letters(letters, arguments.topic)) {
    print_error(
        fmt::format("there is no dead letter in '{}', and its name does not end in .dlq. `maestro topics delete` "
                    "removes other topics",
                    arguments.topic));
    co_return exit_nothing;
  }
  const auto removed = co_await letters.purge();
  if (settings.json)
    print_json(boost::json::object{{"topic", arguments.topic}, {"removed", removed}});
  else
    print_line(fmt::format("removed {} from {}", thousands(removed), arguments.topic));
  co_return removed == 0 ? exit_nothing : exit_ok;
}

using Task = awaitable<int> (*)(MessageBroker, const Settings&, const DlqArguments&);

}  // namespace

void add_dlq(CLI::App& app, const Settings& settings, Action& action) {
  auto* verb = app.add_subcommand("dlq", "List, show, replay and purge dead letters");
  verb->require_subcommand(1);
  verb->fallthrough();
  auto arguments = std::make_shared<DlqArguments>();
  const auto add = [&](const char* name, const char* help, Task task, std::vector<std::string> on_kafka = {}) {
    auto* command = verb->add_subcommand(name, help);
    command->fallthrough();
    command->callback([=, &settings, &action] {
      action = [=, &settings] {
        auto own = settings;
        own.on_kafka = on_kafka;
        return with_broker(own, [&, task, arguments](MessageBroker broker) {
          return near_topic(broker, arguments->topic, task(broker, settings, *arguments));
        });
      };
    });
    return command;
  };
  const auto add_topic = [&](CLI::App* command) {
    return command->add_option("TOPIC", arguments->topic, "The dead-letter topic, such as orders.billing.dlq");
  };
  const auto add_filter = [&](CLI::App* command) {
    command->add_option("--reason", arguments->reason, "Only those dead-lettered for this")
        ->check(CLI::IsMember({"retries_exhausted", "rejected", "undecodable", "invalid"}));
    command->add_option("--error", arguments->error, "Only those whose error has this text in it");
    command->add_option("--key", arguments->key, "Only those of this key");
    command
        ->add_option("--min-replays", arguments->min_replays,
                     "Only those replayed so often at least, which an earlier replay may have passed over")
        ->check(whole_number(0, 1'000'000));
  };
  auto* listing = add("list", "The dead letters of a topic; without a topic, the dead-letter topics", list);
  add_topic(listing);
  add_filter(listing);
  listing->add_option("--limit", arguments->limit, "At most so many")
      ->check(whole_number(1, any_count))
      ->capture_default_str();
  auto* showing = add("show", "One dead letter, whole", show);
  add_topic(showing)->required();
  showing->add_option("POSITION", arguments->position, "The position, as the list shows it")->required();
  auto* replaying = add("replay",
                        "Publish dead letters to the topic they came from. Goes on where the last replay of the same "
                        "filter stopped; another filter has a place of "
                        "its own, and replays again what the first one did",
                        replay,
                        // One that was killed is soon missed: the next one waits for its place. 6 s is the least that
                        // Kafka takes unless told otherwise.
                        {"session_timeout=6000"});
  add_topic(replaying)->required();
  add_filter(replaying);
  auto* dry_run =
      replaying->add_flag("--dry-run", arguments->dry_run,
                          "Count what would be replayed from where the last replay stopped, and change nothing");
  replaying->add_option("--rate", arguments->rate, "At most so many a second")
      ->check(seconds_or_rate())
      ->excludes(dry_run);
  replaying
      ->add_option(
          "--max-replays", arguments->max_replays,
          "What was replayed so often is passed over, and the next replay goes on behind it; to go back to it, say "
          "--min-replays with this number and a higher --max-replays")
      ->check(whole_number(1, 1'000'000))
      ->capture_default_str();
  replaying->add_option("--limit", arguments->replay_limit, "At most so many")->check(whole_number(1, any_count));
  auto* purging = add("purge", "Remove every dead letter of a topic", purge);
  add_topic(purging)->required();
  purging->add_flag("--yes", arguments->yes, "It is meant");
}

}  // namespace maestro::cli

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/error.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/topic.hpp>
#include <memory>
#include <utility>

#include "line_numbers.hpp"
#include "line_reader.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "session.hpp"

namespace maestro::cli {

using namespace messaging;

namespace {

struct PublishArguments {
  std::string topic;
  std::optional<std::string> value;
  std::string file;
  bool json_lines = false;
  std::optional<std::string> key;
  std::optional<std::string> key_field;
  std::vector<std::string> headers;
};

Headers parse_headers(const std::vector<std::string>& texts) {
  Headers headers;
  for (const auto& text : texts) {
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      throw UsageError(
          fmt::format("--header takes name=value, given '{}'. Write, for example, --header tenant=acme", text));
    headers.add(std::string_view(text).substr(0, equals), std::string_view(text).substr(equals + 1));
  }
  return headers;
}

/// The line as a message. Throws `InputError` that names the line and what is wrong with it.
OutgoingMessage make_message(const PublishArguments& arguments, const Headers& headers, std::string line,
                             std::size_t number) {
  OutgoingMessage message{.topic = arguments.topic, .payload = {}, .key = arguments.key, .headers = headers};
  if (arguments.json_lines || arguments.key_field) {
    boost::system::error_code error;
    const auto value = boost::json::parse(line, error);
    if (error)
      throw InputError(fmt::format("line {} is not JSON: {}. Mend it, or leave out --jsonl and --key-field", number,
                                   error.message()));
    if (arguments.key_field) {
      const auto* field = value.is_object() ? value.as_object().if_contains(*arguments.key_field) : nullptr;
      if (field == nullptr || field->is_null() || field->is_structured())
        throw InputError(fmt::format("line {} has no text, number or boolean in '{}'. Choose another --key-field",
                                     number, *arguments.key_field));
      if (field->is_double())  // 1.5, 1.50 and 15e-1 are one number, and would be one key here alone
        throw InputError(
            fmt::format("line {} has a number in '{}' that is not whole, or too large, which is written in many "
                        "ways; a key is text, a whole number or a boolean",
                        number, *arguments.key_field));
      message.key = field->is_string() ? std::string(field->as_string()) : boost::json::serialize(*field);
    }
  }
  message.payload = Payload(std::move(line));
  return message;
}

struct Outcome {
  std::size_t published = 0;
  std::size_t skipped = 0;  ///< Empty lines between JSON lines.
  LineNumbers refused;      ///< Surely not published, for a reason of their own.
  std::string first_refusal;
  LineNumbers failed;  ///< Surely not published; others would fare no better.
  std::string first_error;
  LineNumbers unknown;  ///< Nobody can tell.
  std::string first_doubt;
  std::size_t last_tried = 0;
  std::size_t last_published = 0;

  [[nodiscard]] std::size_t count() const { return published + refused.count() + failed.count() + unknown.count(); }
  /// Whether nothing more may be published: it would be in front of what failed.
  [[nodiscard]] bool is_over() const { return !failed.empty() || !unknown.empty(); }
  void refuse(std::size_t line, const std::string& why) {
    if (refused.empty() || line < refused.first()) first_refusal = why;
    refused.add(line);
  }
};

struct Batch {
  std::vector<OutgoingMessage> messages;
  std::vector<std::size_t> lines;
  std::size_t bytes = 0;
};

/// An error that says something about the message alone.
bool is_its_own(const boost::system::error_code& error) {
  return error == errc::message_too_large || error == errc::invalid_argument;
}

awaitable<void> send(MessageBroker broker, Batch& given, Outcome& outcome) {
  auto batch = std::exchange(given, {});
  std::vector<PublishResult> results;
  outcome.last_tried = batch.lines.back();
  try {
    results = co_await broker.publish_many(std::move(batch.messages));
  } catch (const MessagingError& refusal) {  // of all of them
    if (outcome.count() == 0) throw;
    PublishResult failure;
    failure.error = refusal.code();
    failure.detail = refusal.detail();
    results.assign(batch.lines.size(), failure);
  } catch (const boost::system::system_error&) {  // interrupted
    for (const auto line : batch.lines) outcome.unknown.add(line);
    throw;
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto& result = results[i];
    const auto line = batch.lines[i];
    if (result.ok()) {
      ++outcome.published;
      outcome.last_published = line;
    } else if (is_its_own(result.error)) {
      outcome.refuse(line, fmt::format("line {}: {}: {}", line, result.detail, result.error.message()));
    } else if (result.error == errc::outcome_unknown) {
      if (outcome.unknown.empty()) outcome.first_doubt = result.detail;
      outcome.unknown.add(line);
    } else {
      if (outcome.failed.empty()) outcome.first_error = result.detail + ": " + result.error.message();
      outcome.failed.add(line);
    }
  }
}

awaitable<int> publish_one(MessageBroker broker, const Settings& settings, const PublishArguments& arguments) {
  const auto receipt =
      co_await broker.publish(make_message(arguments, parse_headers(arguments.headers), *arguments.value, 1));
  if (settings.json) {
    print_json(boost::json::object{{"topic", receipt.topic},
                                   {"published", 1},
                                   {"failed", 0},
                                   {"partition", receipt.partition},
                                   {"offset", receipt.offset},
                                   {"position", receipt.position.value_or("")},
                                   {"routed", receipt.routed}});
  } else {
    std::string line = fmt::format("published to {}", receipt.topic);
    if (receipt.position) {
      line += fmt::format(" at {}", *receipt.position);
    } else if (receipt.offset >= 0) {
      line += fmt::format(" at {}/{}", receipt.partition, receipt.offset);
    }
    if (!receipt.routed) line += "; nobody was there to get it";
    print_line(line);
  }
  co_return exit_ok;
}

/// Publishes line by line until the input ends, a line is no message or the broker fails; returns what was wrong with
/// that line.
awaitable<std::string> send_lines(MessageBroker broker, const PublishArguments& arguments, LineReader& input,
                                  Outcome& outcome) {
  constexpr std::size_t batch_size = 500;
  constexpr std::size_t batch_bytes = 16U * 1024 * 1024;
  const auto headers = parse_headers(arguments.headers);
  std::string stopped;
  Batch batch;
  Progress progress("publishing", 0);
  std::string line;
  std::size_t number = 0;
  do {
    while (stopped.empty() && input.take(line)) {
      ++number;
      if (input.was_too_long()) {
        outcome.refuse(number,
                       fmt::format("line {} is longer than the {} bytes that a message may have (max_message_bytes)",
                                   number, thousands(broker.options().integer("max_message_bytes"))));
        continue;
      }
      if (line.empty() && (arguments.json_lines || arguments.key_field)) {
        ++outcome.skipped;
        continue;
      }
      batch.bytes += line.size();
      try {
        batch.messages.push_back(make_message(arguments, headers, std::move(line), number));
        batch.lines.push_back(number);
      } catch (const InputError& error) {
        stopped = error.what();
      }
      if (batch.lines.size() < batch_size && batch.bytes < batch_bytes) continue;
      co_await send(broker, batch, outcome);
      if (outcome.is_over()) co_return stopped;
      progress.update(outcome.published);
    }
    // What is typed is sent line by line; what is piped, in batches.
    if (!batch.lines.empty() && (!stopped.empty() || !input.more_is_here())) co_await send(broker, batch, outcome);
  } while (stopped.empty() && !outcome.is_over() && co_await input.fill());
  if (!batch.lines.empty() && !outcome.is_over()) co_await send(broker, batch, outcome);
  co_return stopped;
}

/// Where to go on after an early end.
std::string how_to_go_on(const Outcome& outcome) {
  if (!outcome.is_over()) return fmt::format("Go on with `tail -n +{}`", outcome.last_tried + 1);
  const auto first = outcome.failed.empty()    ? outcome.unknown.first()
                     : outcome.unknown.empty() ? outcome.failed.first()
                                               : std::min(outcome.failed.first(), outcome.unknown.first());
  if (outcome.last_published > first)
    return fmt::format("Publish the lines named here, then go on with `tail -n +{}`", outcome.last_tried + 1);
  return fmt::format("Go on with `tail -n +{}`{}", first,
                     outcome.unknown.empty() ? "" : ", which publishes a second time what the broker has of those");
}

/// What was not published, and why.
void tell_failures(const Outcome& outcome, bool interrupted) {
  if (!outcome.refused.empty())
    print_error(fmt::format("{} of {} messages were not published, each for a reason of its own: {}",
                            outcome.refused.count(), outcome.count(), outcome.first_refusal));
  if (!outcome.failed.empty())
    print_error(fmt::format("{} of {} messages were not published, {}: {}. `maestro status` says how the broker is",
                            outcome.failed.count(), outcome.count(), outcome.failed.text(), outcome.first_error));
  if (!outcome.unknown.empty())
    print_error(
        fmt::format("the broker may or may not have {} of {} messages, {}{}. Find out before you publish them again",
                    outcome.unknown.count(), outcome.count(), outcome.unknown.text(),
                    outcome.first_doubt.empty() ? "" : ": " + outcome.first_doubt));
  if (!interrupted && !outcome.is_over()) return;
  const auto* what = interrupted ? "interrupted before the input ended" : "publishing stopped there";
  if (outcome.last_tried == 0)
    print_error(fmt::format("{}, and no line was tried", what));
  else
    print_error(
        fmt::format("{}, and nothing behind line {} was tried. {}", what, outcome.last_tried, how_to_go_on(outcome)));
}

awaitable<int> publish_lines(MessageBroker broker, const Settings& settings, const PublishArguments& arguments) {
  LineReader input(broker.executor(), arguments.file.empty() ? "-" : arguments.file,
                   static_cast<std::size_t>(broker.options().integer("max_message_bytes")));
  Outcome outcome;
  std::string stopped;
  bool interrupted = false;
  try {
    stopped = co_await send_lines(broker, arguments, input, outcome);
  } catch (const InputError& error) {
    if (outcome.count() == 0) throw;
    stopped = error.what();
  } catch (const boost::system::system_error& error) {
    if (error.code() != boost::asio::error::operation_aborted) throw;
    interrupted = true;
  }
  if (settings.json)
    print_json(boost::json::object{{"topic", arguments.topic},
                                   {"published", outcome.published},
                                   {"failed", outcome.refused.count() + outcome.failed.count()},
                                   {"unknown", outcome.unknown.count()},
                                   {"skipped", outcome.skipped},
                                   {"ended_early", interrupted || outcome.is_over() || !stopped.empty()},
                                   {"last_line_tried", outcome.last_tried},
                                   {"refused_lines", outcome.refused.json()},
                                   {"failed_lines", outcome.failed.json()},
                                   {"unknown_lines", outcome.unknown.json()}});
  else
    print_line(fmt::format("published {} to {}{}", thousands(static_cast<std::int64_t>(outcome.published)),
                           arguments.topic,
                           outcome.skipped == 0 ? "" : fmt::format(" ({} empty lines skipped)", outcome.skipped)));
  tell_failures(outcome, interrupted);
  if (!stopped.empty()) throw InputError(stopped + fmt::format(" ({} before it were published)", outcome.published));
  co_return interrupted || outcome.published != outcome.count() ? exit_failed : exit_ok;
}

awaitable<int> publish(MessageBroker broker, const Settings& settings, const PublishArguments& arguments) {
  validate_topic(arguments.topic);
  if (is_memory(settings) && !settings.json)
    print_hint("memory:// lives inside one process, so what is published is gone with it. Give --broker for a server");
  if (arguments.value) co_return co_await publish_one(std::move(broker), settings, arguments);
  co_return co_await publish_lines(std::move(broker), settings, arguments);
}

}  // namespace

void add_publish(CLI::App& app, const Settings& settings, Action& action) {
  auto* verb = app.add_subcommand(
      "publish",
      "Publish lines of standard input, of a file, or one value. What the broker does not take ends it there, "
      "with the numbers of those lines");
  auto arguments = std::make_shared<PublishArguments>();
  verb->fallthrough();
  verb->add_option("TOPIC", arguments->topic, "Where to")->required();
  auto* value = verb->add_option("--value", arguments->value, "This one payload, instead of lines");
  verb->add_option("--file", arguments->file, "Lines of this file; - is standard input")->excludes(value);
  verb->add_flag("--jsonl", arguments->json_lines,
                 "Each line has to be JSON; stops at the first that is not. Empty lines are skipped");
  auto* key = verb->add_option("--key", arguments->key, "The key of every message");
  verb->add_option("--key-field", arguments->key_field, "The key is this field of each JSON line")->excludes(key);
  verb->add_option("--header", arguments->headers, "A header, as name=value; may be repeated")
      ->take_all()
      ->allow_extra_args(false)
      ->type_name("NAME=VALUE");
  verb->callback([=, &settings, &action] {
    action = [=, &settings] {
      return with_broker(
          settings, [&, arguments](MessageBroker broker) { return publish(std::move(broker), settings, *arguments); });
    };
  });
}

}  // namespace maestro::cli

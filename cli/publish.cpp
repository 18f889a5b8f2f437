#include <fmt/format.h>

#include <boost/asio/error.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/topic.hpp>
#include <memory>

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
        throw InputError(fmt::format("line {} has a number in '{}' that is not whole, or too large, which is written in many "
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
  std::size_t failed = 0;   ///< Surely not published.
  std::size_t unknown = 0;  ///< Nobody can tell.
  std::string first_error;
  std::string first_doubt;
};

awaitable<void> send(MessageBroker broker, std::vector<OutgoingMessage>& batch, Outcome& outcome) {
  auto taken = std::move(batch);
  batch.clear();
  const auto count = taken.size();
  outcome.unknown += count;  // should it be interrupted
  const auto results = co_await broker.publish_many(std::move(taken));
  outcome.unknown -= count;
  for (const auto& result : results) {
    if (result.ok()) {
      ++outcome.published;
      continue;
    }
    const bool doubtful = result.error == errc::outcome_unknown;
    auto& first = doubtful ? outcome.first_doubt : outcome.first_error;
    if (first.empty()) first = doubtful ? result.detail : result.detail + ": " + result.error.message();
    ++(doubtful ? outcome.unknown : outcome.failed);
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

/// Publishes line by line until the input ends, or until a line is no message; returns what was wrong with that.
awaitable<std::string> send_lines(MessageBroker broker, const PublishArguments& arguments, LineReader& input,
                                  Outcome& outcome) {
  constexpr std::size_t batch_size = 500;
  constexpr std::size_t batch_bytes = 16U * 1024 * 1024;
  const auto headers = parse_headers(arguments.headers);
  std::string stopped;
  std::vector<OutgoingMessage> batch;
  Progress progress("publishing", 0);
  std::string line;
  std::size_t number = 0;
  std::size_t bytes = 0;  // in the batch
  do {
    while (stopped.empty() && input.take(line)) {
      ++number;
      if (input.was_too_long()) {
        ++outcome.failed;
        if (outcome.first_error.empty())
          outcome.first_error =
              fmt::format("line {} is longer than the {} bytes that a message may have (max_message_bytes)", number,
                          thousands(broker.options().integer("max_message_bytes")));
        continue;
      }
      if (line.empty() && (arguments.json_lines || arguments.key_field)) {
        ++outcome.skipped;
        continue;
      }
      bytes += line.size();
      try {
        batch.push_back(make_message(arguments, headers, std::move(line), number));
      } catch (const InputError& error) {
        stopped = error.what();
      }
      if (batch.size() < batch_size && bytes < batch_bytes) continue;
      co_await send(broker, batch, outcome);
      bytes = 0;
      progress.update(outcome.published);
    }
    // What is typed is sent line by line; what is piped, in batches.
    if (!batch.empty() && (!stopped.empty() || !input.more_is_here())) {
      co_await send(broker, batch, outcome);
      bytes = 0;
    }
  } while (stopped.empty() && co_await input.fill());
  if (!batch.empty()) co_await send(broker, batch, outcome);
  co_return stopped;
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
    if (outcome.published + outcome.failed + outcome.unknown == 0) throw;
    stopped = error.what();
  } catch (const boost::system::system_error& error) {
    if (error.code() != boost::asio::error::operation_aborted) throw;
    interrupted = true;
  }
  if (settings.json)
    print_json(boost::json::object{{"topic", arguments.topic},
                                   {"published", outcome.published},
                                   {"failed", outcome.failed},
                                   {"unknown", outcome.unknown},
                                   {"skipped", outcome.skipped}});
  else
    print_line(
        fmt::format("published {} to {}{}", thousands(static_cast<std::int64_t>(outcome.published)), arguments.topic,
                    outcome.skipped == 0 ? "" : fmt::format(" ({} empty lines skipped)", outcome.skipped)));
  if (!stopped.empty()) throw InputError(stopped + fmt::format(" ({} before it were published)", outcome.published));
  if (outcome.failed != 0)
    print_error(fmt::format("{} of {} messages were not published: {}. `maestro status` says how the broker is",
                            outcome.failed, outcome.failed + outcome.unknown + outcome.published, outcome.first_error));
  if (interrupted)
    print_error(outcome.unknown == 0
                    ? "interrupted before the input ended"
                    : fmt::format("interrupted before the input ended; the broker may or may not have {} "
                                  "messages more",
                                  outcome.unknown));
  else if (outcome.unknown != 0)
    print_error(
        fmt::format("the broker may or may not have {} of {} messages: {}. Find out before you publish them again",
                    outcome.unknown, outcome.failed + outcome.unknown + outcome.published, outcome.first_doubt));
  co_return interrupted || outcome.failed + outcome.unknown != 0 ? exit_failed : exit_ok;
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
  auto* verb = app.add_subcommand("publish", "Publish lines of standard input, of a file, or one value");
  auto arguments = std::make_shared<PublishArguments>();
  verb->fallthrough();
  verb->add_option("TOPIC", arguments->topic, "Where to")->required();
  auto* value = verb->add_option("--value", arguments->value, "This one payload, instead of lines");
  verb->add_option("--file", arguments->file, "Lines of this file; - is standard input")->excludes(value);
  verb->add_flag("--jsonl", arguments->json_lines, "Each line has to be JSON; stops at the first that is not. Empty lines are skipped");
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

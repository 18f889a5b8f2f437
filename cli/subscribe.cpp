#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/this_coro.hpp>
#include <cstdio>
#include <limits>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/topic.hpp>
#include <memory>

#include "checks.hpp"
#include "output.hpp"
#include "session.hpp"

namespace maestro::cli {

using namespace messaging;

namespace {

// What opening a subscription may take beside `--timeout`: a group waits some seconds for its members.
constexpr Duration longest_opening = std::chrono::seconds(5);

struct SubscribeArguments {
  std::string topic;
  std::optional<std::string> group;
  std::optional<std::size_t> max;
  std::string format = "text";
  std::optional<std::string> from;
  std::optional<double> timeout;
};

void show(const Message& message, const std::string& format) {
  if (format == "json") return print_json(message_json(message));
  if (format == "value") {
    // Bytes as they are for a program; nothing that steers a terminal.
    if (standard_output_is_terminal()) return print_line(printable(message.body()));
    std::fwrite(message.body().data(), 1, message.body().size(), stdout);
    std::fputc('\n', stdout);
    return;
  }
  std::string headers;
  for (const auto [name, value] : message.headers())
    headers += fmt::format("{}{}={}", headers.empty() ? "" : ", ", printable(name), printable(value));
  if (!headers.empty()) headers = "  {" + headers + "}";
  print_line(fmt::format("{}  {}[{}]{}{}  {}", iso_time(message.timestamp()), printable(message.topic()),
                         message.position().to_string(), message.key() ? "  key=" + printable(*message.key()) : "",
                         headers, printable(message.body())));
}

/// Why a group may hand out nothing although there is something.
awaitable<std::string> what_others_hold(MessageBroker broker, const SubscribeArguments& arguments) {
  if (!arguments.group || is_pattern(arguments.topic) || !broker.capabilities().administration) co_return "";
  try {
    for (const auto& known : (co_await broker.administration().describe_topic(arguments.topic)).groups)
      if (known.group == *arguments.group && known.members > 0)
        co_return fmt::format(
            "; '{}' has other members, who may hold what there is, or were killed and are not missed yet "
            "(session_timeout)",
            known.group);
  } catch (const MessagingError&) {  // the topic is not there
  }
  co_return "";
}

// How long the broker may take to answer a question once nothing came.
constexpr Duration patience = std::chrono::seconds(2);

/// What is known when the time is up.
struct Findings {
  std::string trouble;    ///< What the library had met until then.
  std::string no_answer;  ///< Empty: the broker answers.
  std::int64_t left = 0;  ///< Of what this reader has to read, as far as known.
};

awaitable<Findings> look_around(MessageBroker broker) {
  Findings found;
  if (const auto status = co_await within(broker, patience, broker.get_status())) {
    found.trouble = status->last_error;
    // What was printed is acknowledged when the next is asked for, unless that is switched off.
    if (broker.options().boolean("enable_auto_commit"))
      for (const auto& each : status->lag) found.left += each.lag;
  }
  const auto healthy = co_await within(broker, patience, broker.health_check());
  if (!healthy) {
    found.no_answer = fmt::format("nothing came from it within {}", seconds_of(patience));
  } else if (!*healthy) {
    const auto status = co_await within(broker, patience, broker.get_status());
    found.no_answer = status ? status->last_error : "it is not well";
  }
  co_return found;
}

/// Says that the time is up, and why nothing more came, as far as that is known.
awaitable<int> nothing_came(MessageBroker broker, const SubscribeArguments& arguments, std::size_t count,
                            Findings found) {
  const auto what = count == 0 ? fmt::format("no message came from '{}'", arguments.topic)
                               : fmt::format("nothing more came from '{}' after {} messages", arguments.topic,
                                             thousands(static_cast<std::int64_t>(count)));
  const auto left = found.left == 0 ? "" : fmt::format("; {} are known to be left", thousands(found.left));
  if (!found.no_answer.empty() && (count > 0 || found.trouble.empty())) {
    print_error(fmt::format("{}, and the broker does not answer: {}{}. Run it again for what may be left", what,
                            printable(found.no_answer), left));
    co_return exit_unreachable;
  }
  if (count > 0 && found.left == 0) co_return exit_ok;
  if (found.trouble.empty()) {
    const auto others = co_await within(broker, patience, what_others_hold(broker, arguments));
    if (!others) found.trouble = "it did not answer a question about the group";
    // Where a group has no partitions, what is left may be another member's.
    const bool is_ours = found.left > 0 && (broker.capabilities().partitions || !others || others->empty());
    if (is_ours) {
      print_error(
          fmt::format("{}, and the broker hands out nothing although it answers{}. A transaction may be open, or "
                      "what leads a partition may be away: run it again when that is over",
                      what, left));
      co_return exit_unreachable;
    }
    if (others) {
      if (count == 0) print_hint(what + *others);
      co_return count == 0 ? exit_nothing : exit_ok;
    }
  }
  print_error(
      fmt::format("{}, and the broker, or one of its cluster, cannot be reached: {}{}. What leads a partition or "
                  "coordinates the group may be there: start it, or look at the address",
                  what, printable(found.trouble), left));
  co_return exit_unreachable;
}

awaitable<std::shared_ptr<Subscription>> open(MessageBroker broker, std::string topic, SubscribeOptions options) {
  co_return std::make_shared<Subscription>(co_await broker.subscribe(std::move(topic), std::move(options)));
}

/// The next message. None where it was closed, or where none came within `limit`: then `found` says more.
awaitable<std::optional<Message>> next_within(MessageBroker broker, std::shared_ptr<Subscription> subscription,
                                              Duration limit, std::optional<Findings>& found) {
  if (auto next = co_await within(broker, limit, subscription->next())) co_return std::move(*next);
  found = co_await look_around(broker);
  if (found->left == 0 || !found->no_answer.empty()) co_return std::nullopt;
  // What came at this very moment is left too.
  auto next = co_await within(broker, patience, subscription->next());
  if (!next) co_return std::nullopt;
  found.reset();
  co_return std::move(*next);
}

awaitable<bool> leave(std::shared_ptr<Subscription> subscription, bool commits) {
  if (commits) co_await subscription->commit();
  co_await subscription->close();
  co_return true;
}

awaitable<int> subscribe(MessageBroker broker, const Settings& settings, const SubscribeArguments& arguments) {
  validate_topic_or_pattern(arguments.topic);
  if (is_memory(settings))
    print_hint("memory:// lives inside one process: no other can publish to this one. Give --broker for a server");
  refuse_options(broker.config(), {"group_id"}, "subscribe takes its group from --group");
  SubscribeOptions options{.group_id = arguments.group};
  if (arguments.from)
    options.auto_offset_reset = *arguments.from == "latest" ? OffsetReset::latest : OffsetReset::earliest;
  // What was fetched ahead of `--max` would have to go back to the group.
  if (arguments.max)
    options.prefetch = std::min(*arguments.max, static_cast<std::size_t>(broker.options().integer("prefetch")));
  const auto timeout =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(arguments.timeout.value_or(0)));
  const auto latest = arguments.timeout ? broker.clock()->now() + timeout + longest_opening : TimePoint::max();
  co_await broker.connect();  // a subscription alone would wait for a broker that is not there
  auto opening = open(broker, arguments.topic, options);
  const auto subscription =
      arguments.timeout
          ? (co_await within(broker, latest - broker.clock()->now(), std::move(opening))).value_or(nullptr)
          : co_await std::move(opening);
  if (!subscription) co_return co_await nothing_came(broker, arguments, 0, co_await look_around(broker));
  const auto format = settings.json ? std::string("json") : arguments.format;
  const auto most = arguments.max.value_or(std::numeric_limits<std::size_t>::max());
  std::size_t count = 0;
  std::optional<Findings> found;
  bool interrupted = false;
  while (count < most) {
    std::optional<Message> message;
    try {
      if (!arguments.timeout) {
        message = co_await subscription->next();
      } else if (message = subscription->try_next(); !message) {
        const auto limit = count == 0 ? std::min(timeout, latest - broker.clock()->now()) : timeout;
        message = co_await next_within(broker, subscription, limit, found);
      }
    } catch (const boost::system::system_error& error) {
      if (error.code() != boost::asio::error::operation_aborted) throw;
      interrupted = true;
    }
    if (!message) break;
    show(*message, format);
    std::fflush(stdout);
    if (std::ferror(stdout)) co_return exit_failed;
    ++count;
  }
  if (found) {
    if (found->no_answer.empty()) {
      co_await subscription->close();
    } else {
      co_await within(broker, patience, leave(subscription, false));
    }
    co_return co_await nothing_came(broker, arguments, count, *found);
  }
  if (!interrupted) {
    co_await leave(subscription, true);
    co_return exit_ok;
  }
  // An interrupt is the usual end, and leaves the group in good order.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (co_await within(broker, longest_goodbye, leave(subscription, true))) co_return exit_ok;
  print_error(fmt::format("the broker did not hear within {} of what was printed last, which may come again",
                          seconds_of(longest_goodbye)));
  co_return exit_unreachable;
}

}  // namespace

void add_subscribe(CLI::App& app, const Settings& settings, Action& action) {
  auto* verb = app.add_subcommand("subscribe", "Print the messages of a topic or a pattern until interrupted");
  auto arguments = std::make_shared<SubscribeArguments>();
  verb->fallthrough();
  verb->add_option("TOPIC", arguments->topic, "A topic, or a pattern such as 'orders.*' or 'orders.>'")->required();
  verb->add_option("--group", arguments->group,
                   "Share the work of this group, and acknowledge what was printed; without it, a private reader");
  verb->add_option("--max", arguments->max, "End after so many messages")->check(whole_number(1, any_count));
  verb->add_option("--format", arguments->format,
                   "text: one line each, with time, topic, position, key, headers, payload; value: the payload alone; "
                   "json: all of it, a header that is repeated as a list")
      ->check(CLI::IsMember({"text", "value", "json"}))
      ->capture_default_str();
  verb->add_option("--from", arguments->from,
                   "Where a new group, or a private reader, starts. Default: auto_offset_reset, and that is earliest")
      ->check(CLI::IsMember({"earliest", "latest"}));
  verb->add_option("--timeout", arguments->timeout,
                   "End when nothing came for so many seconds: with 3 where the broker does not answer then, or keeps "
                   "back what there "
                   "is. Where brokers are away, opening the subscription may take 5 s more, and the end as much again")
      ->check(seconds_or_rate());
  verb->callback([=, &settings, &action] {
    action = [=, &settings] {
      return with_broker(settings, [&, arguments](MessageBroker broker) {
        return subscribe(std::move(broker), settings, *arguments);
      });
    };
  });
}

}  // namespace maestro::cli

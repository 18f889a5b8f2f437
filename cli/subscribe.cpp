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
#include "idle_guard.hpp"
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
            "; '{}' has other members, who may hold what there is, or were killed and are not missed yet (session_timeout)",
            known.group);
  } catch (const MessagingError&) {  // the topic is not there
  }
  co_return "";
}

/// Says so, and why, as far as that is known.
awaitable<int> nothing_came(MessageBroker broker, const SubscribeArguments& arguments) {
  auto trouble = (co_await broker.get_status()).last_error;
  const auto what = fmt::format("no message came from '{}'", arguments.topic);
  if (trouble.empty()) {
    constexpr Duration patience = std::chrono::seconds(3);
    const auto others = co_await within(broker, patience, what_others_hold(broker, arguments));
    if (others) {
      print_hint(what + *others);
      co_return exit_nothing;
    }
    trouble = "it did not answer a question about the group within 3 s";
  }
  print_error(
      fmt::format("{}, and the broker, or one of its cluster, cannot be reached: {}. What leads a partition or "
                  "coordinates the group may be there: start it, or look at the address",
                  what, printable(trouble)));
  co_return exit_unreachable;
}

awaitable<std::shared_ptr<Subscription>> open(MessageBroker broker, std::string topic, SubscribeOptions options) {
  co_return std::make_shared<Subscription>(co_await broker.subscribe(std::move(topic), std::move(options)));
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
  if (!subscription) co_return co_await nothing_came(broker, arguments);
  std::optional<IdleGuard> guard;
  if (arguments.timeout) guard.emplace(broker, timeout, closing(broker, subscription), latest);
  const auto format = settings.json ? std::string("json") : arguments.format;
  const auto most = arguments.max.value_or(std::numeric_limits<std::size_t>::max());
  std::size_t count = 0;
  bool interrupted = false;
  while (count < most) {
    std::optional<Message> message;
    try {
      message = co_await subscription->next();
    } catch (const boost::system::system_error& error) {
      if (error.code() != boost::asio::error::operation_aborted) throw;
      interrupted = true;
    }
    if (!message) break;
    if (guard) guard->touch();
    show(*message, format);
    std::fflush(stdout);
    if (std::ferror(stdout)) co_return exit_failed;
    ++count;
  }
  // An interrupt is the usual end, and leaves the group in good order.
  if (interrupted) co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (!guard || !guard->expired()) {
    co_await subscription->commit();
    co_await subscription->close();
  }
  if (interrupted) co_return exit_ok;
  co_return count == 0 ? co_await nothing_came(broker, arguments) : exit_ok;
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
  verb->add_option(
          "--timeout", arguments->timeout,
          "End when nothing came for so many seconds. Where brokers are away, opening the subscription may take 5 s "
          "more, and leaving it as much again")
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

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/dead_letters.hpp>
#include <maestro/messaging/event.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>
#include <map>
#include <set>

#include "core/option_range.hpp"
#include "core/stable_hash.hpp"
#include "messaging/broker_state.hpp"
#include "runtime/notifier.hpp"

namespace maestro::messaging {

namespace asio = boost::asio;

namespace {

constexpr std::string_view suffix = ".dlq";
constexpr double least_rate = 0.001;
constexpr double most_rate = 1e9;
// How long nothing may come before one looks whether what was waited for is still there.
constexpr Duration look_again = std::chrono::seconds(1);

bool fits(const DeadLetterFilter& filter, const DeadLetter& letter) {
  if (filter.reason && letter.reason != *filter.reason) return false;
  if (letter.replay_count < filter.min_replays) return false;
  if (filter.key && letter.message.key() != std::optional<std::string_view>(*filter.key)) return false;
  return !filter.error_contains || letter.error_type.find(*filter.error_contains) != std::string::npos ||
         letter.error_message.find(*filter.error_contains) != std::string::npos;
}

void check(const DeadLetterFilter& filter) {
  if (filter.reason)
    require_one_of("reason", static_cast<int>(*filter.reason),
                   {"retries_exhausted", "rejected", "undecodable", "invalid"});
}

/// Each filter has a place of its own in the topic: what one passes over is still there for another.
std::string replay_group(const std::string& topic, const DeadLetterFilter& filter) {
  std::string group = "maestro-replay." + topic;
  if (!filter.reason && !filter.error_contains && !filter.key && filter.min_replays <= 0) return group;
  auto text = fmt::format("{}\n{}\n{}", filter.reason ? to_string(*filter.reason) : "",
                          filter.error_contains.value_or(""), filter.key.value_or(""));
  if (filter.min_replays > 0) text += fmt::format("\n{}", filter.min_replays);
  return fmt::format("{}.{:016x}", group, stable_hash(text));
}

/// What is in the topic now, by partition: [from, to).
using Extent = std::map<std::int32_t, std::pair<std::int64_t, std::int64_t>>;

Extent extent_of(const TopicInfo& info) {
  Extent extent;
  for (const auto& partition : info.partitions)
    if (partition.first < partition.next) extent[partition.partition] = {partition.first, partition.next};
  return extent;
}

/// Leaves only what is still kept: a purge, or the retention, may have taken the rest.
void forget_what_is_gone(Extent& extent, const TopicInfo& now) {
  const auto kept = extent_of(now);
  std::erase_if(extent, [&](const auto& entry) {
    const auto found = kept.find(entry.first);
    return found == kept.end() || found->second.first >= entry.second.second;
  });
}

bool past(const Extent& extent, const Message& message) {
  const auto found = extent.find(message.position().partition);
  return found == extent.end() || message.position().offset >= found->second.second;
}

/// Whether it would fail so each time, whatever the broker's state: a replay that stopped at it would never get past it.
bool is_its_own(errc reason) {
  return reason == errc::message_too_large || reason == errc::invalid_topic || reason == errc::invalid_argument ||
         reason == errc::topic_not_found;
}

/// Throws where it came from a topic that it cannot be brought back to, as far as its name tells.
void check_origin(const Transport& transport, const DeadLetter& letter) {
  validate_topic(letter.topic);
  transport.check_topic(letter.topic);
  if (letter.topic == letter.message.topic())
    throw MessagingError(errc::invalid_topic, fmt::format("its dlq-topic names \"{}\", the topic of dead letters itself; there it would be "
                                                          "none any more", letter.topic));
  if (transport.is_internal(letter.topic))
    throw MessagingError(errc::invalid_topic, fmt::format("\"{}\" is the broker's own; nothing is replayed into it",
                                                          letter.topic));
}

struct Outcome {
  std::optional<Message> message;
  bool timed_out = false;
};

/// The next message, or what else happened within `span`. A message that comes at the last moment is not lost.
awaitable<Outcome> next_within(Clock& clock, Subscription& from, Duration span) {
  const auto executor = co_await asio::this_coro::executor;
  auto [order, failure, message, no_time] =
      co_await asio::experimental::make_parallel_group(asio::co_spawn(executor, from.next(), asio::deferred),
                                                       asio::co_spawn(executor, sleep_for(clock, span), asio::deferred))
          .async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
  if (!failure) co_return Outcome{std::move(message), false};
  if (no_time) std::rethrow_exception(failure);  // it failed before the time was up, or both were cancelled
  co_return Outcome{std::nullopt, true};
}

}  // namespace

DeadLetters::DeadLetters(MessageBroker broker, std::string dead_letter_topic)
    : broker_(std::move(broker)), topic_(std::move(dead_letter_topic)) {}

awaitable<std::vector<TopicInfo>> DeadLetters::topics(MessageBroker broker) {
  co_await broker.connect();
  auto& administration = broker.administration();
  std::vector<TopicInfo> found;
  const auto names = co_await administration.list_topics();
  for (const auto& name : names)
    if (name.ends_with(suffix)) found.push_back(co_await administration.describe_topic(name));
  co_return found;
}

awaitable<std::vector<DeadLetter>> DeadLetters::list(DeadLetterFilter filter, std::size_t limit,
                                                     std::function<void(const Message&)> left_out) {
  check(filter);
  co_await broker_.connect();
  const auto info = co_await broker_.administration().describe_topic(topic_);
  auto left = extent_of(info);
  std::vector<DeadLetter> letters;
  if (left.empty()) co_return letters;
  auto reader = co_await broker_.subscribe(topic_, {.auto_offset_reset = OffsetReset::earliest});
  while (!left.empty() && letters.size() < limit) {
    const auto [message, timed_out] = co_await next_within(*broker_.clock(), reader, look_again);
    if (timed_out) {
      forget_what_is_gone(left, co_await broker_.administration().describe_topic(topic_));
      continue;
    }
    if (!message) break;
    if (past(left, *message)) continue;
    if (message->position().offset + 1 == left[message->position().partition].second)
      left.erase(message->position().partition);
    auto letter = read_dead_letter(*message);
    if (!letter) {
      if (left_out) left_out(*message);
    } else if (fits(filter, *letter)) {
      letters.push_back(std::move(*letter));
    }
  }
  co_await reader.close();
  co_return letters;
}

awaitable<std::optional<DeadLetter>> DeadLetters::show(std::int32_t partition, std::int64_t offset) {
  co_await broker_.connect();
  auto left = extent_of(co_await broker_.administration().describe_topic(topic_));
  std::erase_if(left, [&](const auto& entry) { return entry.first != partition; });
  if (left.empty() || offset < left[partition].first || offset >= left[partition].second) co_return std::nullopt;
  auto reader = co_await broker_.subscribe(topic_, {.auto_offset_reset = OffsetReset::latest, .prefetch = 1});
  co_await reader.seek(topic_, partition, offset);
  std::optional<DeadLetter> letter;
  while (!left.empty()) {
    const auto [message, timed_out] = co_await next_within(*broker_.clock(), reader, look_again);
    if (timed_out) {
      forget_what_is_gone(left, co_await broker_.administration().describe_topic(topic_));
      continue;
    }
    if (!message) break;
    if (message->position().partition != partition) continue;
    if (message->position().offset == offset) letter = read_dead_letter(*message);
    break;
  }
  co_await reader.close();
  co_return letter;
}

awaitable<std::optional<DeadLetter>> DeadLetters::show(std::string position) {
  const auto place = broker_.state()->transport->parse_position(position);
  if (!place) throw MessagingError(errc::invalid_argument, fmt::format("\"{}\" is no position", position));
  co_return co_await show(place->partition, place->offset);
}

awaitable<ReplayReport> DeadLetters::replay(ReplayOptions options) {
  check(options.filter);
  const auto made = options.so_far ? options.so_far : std::make_shared<ReplayReport>();
  auto& report = *made;
  report = {};
  if (options.per_second && !(*options.per_second >= least_rate && *options.per_second <= most_rate))
    throw MessagingError(errc::invalid_argument, fmt::format("per_second: {}; allowed is {} to {}", *options.per_second,
                                                             least_rate, most_rate));
  if (options.per_second && options.dry_run)
    throw MessagingError(errc::invalid_argument,
                         "per_second: a dry run publishes nothing that could be held back; leave one of the two out");
  if (options.wait_for_others < Duration::zero())
    throw MessagingError(errc::invalid_argument,
                         fmt::format("wait_for_others: {} ns; allowed is 0 and more", options.wait_for_others.count()));
  if (options.max_replays < 0)
    throw MessagingError(errc::invalid_argument,
                         fmt::format("max_replays: {}; allowed is 0 and more", options.max_replays));
  co_await broker_.connect();
  const auto info = co_await broker_.administration().describe_topic(topic_);
  // A replay goes on where the last one stopped. A dry run looks from there too, and leaves no trace: it settles
  // nothing, and makes no group.
  const auto group = replay_group(topic_, options.filter);
  auto left = extent_of(info);
  std::size_t total = 0;
  for (const auto& [partition, range] : left) total += static_cast<std::size_t>(range.second - range.first);
  if (left.empty()) co_return report;
  SubscribeOptions subscribe{.auto_offset_reset = OffsetReset::earliest, .enable_auto_commit = false};
  // One at a time where partitions change hands: what this one has in its hands when another replay joins may be copied by both.
  if (broker_.capabilities().acknowledgement == Acknowledgement::cumulative) subscribe.prefetch = 1;
  const auto before = std::ranges::find(info.groups, group, &GroupInfo::group);
  const bool goes_on = before != info.groups.end();
  if (goes_on && before->lag == 0) co_return report;
  if (goes_on && before->members > 0 && broker_.capabilities().acknowledgement == Acknowledgement::cumulative)
    log(LogLevel::warning,
        "another replay of these dead letters runs, or was killed a moment ago; what it holds is waited for until it "
        "ends, or is missed (session_timeout)",
        {{"topic", topic_}, {"group", group}});
  if (goes_on || !options.dry_run) subscribe.group_id = group;
  auto subscription = co_await broker_.subscribe(topic_, std::move(subscribe));
  auto state = co_await broker_.state()->status();
  if (goes_on || !options.dry_run) {
    // Where the group stands already at the end of a partition, nothing will come from there.
    for (const auto& lag : state.lag)
      if (lag.topic == topic_ && lag.lag == 0) left.erase(lag.partition);
  }
  IdGenerator ids(broker_.state()->random());
  const auto began = broker_.clock()->now();
  const Duration interval(static_cast<Duration::rep>(1e9 / options.per_second.value_or(1)));
  auto due = began;
  // Where each message is settled by itself, what another replay holds may come after the last.
  const bool may_come_late = !options.dry_run && broker_.capabilities().acknowledgement == Acknowledgement::individual;
  std::int64_t passed_over = 0;  // what is newer than this replay, and is unsettled in its hands
  std::map<std::int32_t, std::int64_t> newest;  // of that, by partition: it may come again
  // What is done with, and was lost before it could be settled: it comes again, and is only settled then.
  std::set<std::pair<std::int32_t, std::int64_t>> unsettled;
  bool saw_last = false;
  bool said_that_it_waits = false;
  auto came = began;
  // A broker that is away is waited for as long as a publish waits for one.
  const auto patience = broker_.state()->options.duration("publish_timeout");
  std::optional<TimePoint> held_up;  // since when
  const auto wait_for_broker = [&](const MessagingError& failure) {
    const auto now = broker_.clock()->now();
    if (now - held_up.value_or(now) >= patience) throw failure;
    held_up = held_up.value_or(now);
    log(LogLevel::warning, "a replay of dead letters is held up, and goes on",
        {{"topic", topic_}, {"cause", failure.detail()}});
  };
  const auto look = [&]() -> awaitable<void> {
    TopicInfo now;
    try {
      now = co_await broker_.administration().describe_topic(topic_);
    } catch (const MessagingError& failure) {
      if (!failure.retriable()) throw;
      wait_for_broker(failure);
      co_return;
    }
    if (unsettled.empty()) held_up.reset();
    forget_what_is_gone(left, now);
    // Another replay of the same filter shares the group, and may have done the rest.
    for (const auto& known : now.groups) {
      if (known.group != group) continue;
      const bool waited = may_come_late && broker_.clock()->now() - came >= options.wait_for_others;
      if (waited) report.held = static_cast<std::size_t>(std::max<std::int64_t>(known.lag - passed_over, 0));
      if (known.lag <= passed_over || waited) left.clear();
      if (may_come_late && !left.empty() && !std::exchange(said_that_it_waits, true))
        log(LogLevel::warning,
            "another replay of these dead letters holds some, or has left them when it died; they are waited for",
            {{"topic", topic_},
             {"letters", std::to_string(known.lag - passed_over)},
             {"seconds_at_most", std::to_string(options.wait_for_others / std::chrono::seconds(1))}});
    }
  };
  const auto has_enough = [&] { return options.limit && report.replayed >= *options.limit; };
  while (!left.empty() && (!has_enough() || !unsettled.empty())) {
    const auto [message, timed_out] = co_await next_within(*broker_.clock(), subscription, look_again);
    if (timed_out) {
      co_await look();
      continue;
    }
    if (!message) break;
    const auto [partition, offset, text] = message->position();
    if (past(left, *message)) {
      auto& next = newest[partition];
      passed_over += offset >= next ? 1 : 0;
      next = std::max(next, offset + 1);
      continue;
    }
    const bool is_last = offset + 1 == left[partition].second;
    saw_last = saw_last || is_last;
    const bool is_done = unsettled.contains({partition, offset});
    if (has_enough() && !is_done) break;
    report.seen += is_done ? 0 : 1;
    const auto letter = is_done ? std::nullopt : read_dead_letter(*message);
    if (is_done) {
      // Only its place is to be committed.
    } else if (!letter) {
      ++report.foreign;
    } else if (!fits(options.filter, *letter)) {
      ++report.filtered;
    } else if (letter->replay_count >= options.max_replays) {
      ++report.refused;
    } else {
      try {
        check_origin(*broker_.state()->transport, *letter);
        if (!options.dry_run) co_await broker_.publish(make_replay(*message, ids.next(broker_.clock()->wall())));
        ++report.replayed;
      } catch (const MessagingError& failure) {
        if (!is_its_own(failure.reason())) throw;
        if (report.failed++ == 0)
          report.first_failure = {message->position().to_string(), failure.reason(), failure.detail()};
      }
      if (options.per_second) {
        // After a wait it goes on at the rate, and does not catch up with it.
        const auto now = broker_.clock()->now();
        due = std::max(due + interval, now - std::chrono::milliseconds(100));
        if (due > now) co_await sleep_for(*broker_.clock(), due - now);
      }
    }
    if (!options.dry_run) {
      unsettled.emplace(partition, offset);
      try {
        subscription.acknowledge(*message);
        co_await subscription.commit();
        unsettled.erase({partition, offset});
        held_up.reset();
      } catch (const MessagingError& failure) {
        if (failure.reason() != errc::not_owned) throw;
        wait_for_broker(failure);
        continue;
      }
    }
    if (is_last && !may_come_late) left.erase(partition);
    if (options.progress) options.progress(report.seen, total);
    came = broker_.clock()->now();
    if (saw_last && may_come_late) co_await look();
  }
  co_await subscription.close();
  co_return report;
}

awaitable<std::int64_t> DeadLetters::purge() {
  co_await broker_.connect();
  co_return co_await broker_.administration().purge_topic(topic_);
}

}  // namespace maestro::messaging

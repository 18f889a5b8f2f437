#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <maestro/messaging/dead_letters.hpp>
#include <maestro/messaging/event.hpp>

#include "core/stable_hash.hpp"
#include "messaging/broker_state.hpp"
#include "runtime/notifier.hpp"

namespace maestro::messaging {

namespace {

constexpr std::string_view suffix = ".dlq";

bool fits(const DeadLetterFilter& filter, const DeadLetter& letter) {
  if (filter.reason && letter.reason != *filter.reason) return false;
  if (filter.key && letter.message.key() != std::optional<std::string_view>(*filter.key)) return false;
  return !filter.error_contains || letter.error_type.find(*filter.error_contains) != std::string::npos ||
         letter.error_message.find(*filter.error_contains) != std::string::npos;
}

/// Each filter has a place of its own in the topic: what one passes over is still there for another.
std::string replay_group(const std::string& topic, const DeadLetterFilter& filter) {
  std::string group = "maestro-replay." + topic;
  if (!filter.reason && !filter.error_contains && !filter.key) return group;
  const auto text = fmt::format("{}\n{}\n{}", filter.reason ? to_string(*filter.reason) : "", filter.error_contains.value_or(""),
                                filter.key.value_or(""));
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

bool past(const Extent& extent, const Message& message) {
  const auto found = extent.find(message.position().partition);
  return found == extent.end() || message.position().offset >= found->second.second;
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

awaitable<std::vector<DeadLetter>> DeadLetters::list(DeadLetterFilter filter, std::size_t limit) {
  co_await broker_.connect();
  const auto info = co_await broker_.administration().describe_topic(topic_);
  auto left = extent_of(info);
  std::vector<DeadLetter> letters;
  if (left.empty()) co_return letters;
  auto reader = co_await broker_.subscribe(topic_, {.auto_offset_reset = OffsetReset::earliest});
  while (!left.empty() && letters.size() < limit) {
    const auto message = co_await reader.next();
    if (!message) break;
    if (past(left, *message)) continue;
    if (message->position().offset + 1 == left[message->position().partition].second)
      left.erase(message->position().partition);
    if (auto letter = read_dead_letter(*message); letter && fits(filter, *letter)) letters.push_back(std::move(*letter));
  }
  co_await reader.close();
  co_return letters;
}

awaitable<std::optional<DeadLetter>> DeadLetters::show(std::int32_t partition, std::int64_t offset) {
  const auto letters = co_await list({}, std::numeric_limits<std::size_t>::max());
  const auto found = std::ranges::find_if(letters, [&](const DeadLetter& letter) {
    return letter.message.position().partition == partition && letter.message.position().offset == offset;
  });
  co_return found == letters.end() ? std::nullopt : std::optional(*found);
}

awaitable<ReplayReport> DeadLetters::replay(ReplayOptions options) {
  if (options.per_second && !(*options.per_second > 0))
    throw MessagingError(errc::invalid_argument, fmt::format("rate: {} a second; allowed is more than 0", *options.per_second));
  co_await broker_.connect();
  const auto info = co_await broker_.administration().describe_topic(topic_);
  ReplayReport report;
  // A dry run looks from the beginning and leaves no trace; a replay goes on where the last one stopped.
  const auto group = replay_group(topic_, options.filter);
  auto left = extent_of(info);
  std::size_t total = 0;
  for (const auto& [partition, range] : left) total += static_cast<std::size_t>(range.second - range.first);
  if (left.empty()) co_return report;
  SubscribeOptions subscribe{.auto_offset_reset = OffsetReset::earliest, .enable_auto_commit = false};
  if (!options.dry_run) {
    subscribe.group_id = group;
    for (const auto& known : info.groups)
      if (known.group == group && known.lag == 0) co_return report;
  }
  auto subscription = co_await broker_.subscribe(topic_, std::move(subscribe));
  auto state = co_await broker_.state()->status();
  if (!options.dry_run) {
    // Where the group stands already at the end of a partition, nothing will come from there.
    for (const auto& lag : state.lag)
      if (lag.topic == topic_ && lag.lag == 0) left.erase(lag.partition);
  }
  IdGenerator ids(broker_.state()->random());
  const auto began = broker_.clock()->now();
  while (!left.empty() && (!options.limit || report.replayed < *options.limit)) {
    const auto message = co_await subscription.next();
    if (!message) break;
    if (past(left, *message)) continue;
    if (message->position().offset + 1 == left[message->position().partition].second)
      left.erase(message->position().partition);
    ++report.seen;
    const auto letter = read_dead_letter(*message);
    if (!letter) {
      ++report.foreign;
    } else if (!fits(options.filter, *letter)) {
      ++report.filtered;
    } else if (letter->replay_count >= options.max_replays) {
      ++report.refused;
    } else {
      ++report.replayed;
      if (!options.dry_run) {
        co_await broker_.publish(make_replay(*message, ids.next(broker_.clock()->wall())));
        if (options.per_second) {
          const auto due = began + Duration(static_cast<Duration::rep>(1e9 * static_cast<double>(report.replayed) /
                                                                      *options.per_second));
          if (const auto now = broker_.clock()->now(); due > now) co_await sleep_for(*broker_.clock(), due - now);
        }
      }
    }
    if (!options.dry_run) {
      subscription.acknowledge(*message);
      co_await subscription.commit();
    }
    if (options.progress) options.progress(report.seen, total);
  }
  co_await subscription.close();
  co_return report;
}

awaitable<std::int64_t> DeadLetters::purge() {
  co_await broker_.connect();
  co_return co_await broker_.administration().purge_topic(topic_);
}

}  // namespace maestro::messaging

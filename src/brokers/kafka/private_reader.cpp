#include <fmt/format.h>

#include <future>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>
#include <map>
#include <set>

#include "brokers/kafka/consumer.hpp"

namespace maestro::messaging::kafka {

namespace {
constexpr Duration discover_period = std::chrono::seconds(4);
}

// A subscriber without a group assigns itself every partition that there is, and looks now and then for those that came.
awaitable<void> Consumer::discover(std::shared_ptr<Consumer> self) {
  struct Found {
    std::string topic;
    std::int32_t partition;
    std::int64_t base;
  };
  self->discovering_ = true;
  struct Seen {
    Partitions partitions;
    std::vector<Found> fresh;
    std::string failure;
  };
  const auto seen = std::make_shared<Seen>();
  std::set<std::pair<std::string, std::int32_t>> known;
  for (const auto& [id, lane] : self->lanes_) known.emplace(lane->topic, lane->partition);
  std::function<bool()> look = [client = self->client_, seen, known, wants_end = self->wants_end(), at_first = self->partitions_at_first_,
                                wanted = self->request_.topic] {
    constexpr Duration limit = std::chrono::seconds(5);
    static constexpr Duration limit_of_each = std::chrono::seconds(2);
    std::map<std::int32_t, std::vector<ask::PartitionRange>> unknown;  // by leader
    try {
      for (const auto& topic : ask::topics(*client, wanted, limit)) {
        seen->partitions.emplace(topic.name, topic.partitions);
        for (std::int32_t i = 0; i < topic.partitions; ++i)
          if (!known.contains({topic.name, i})) unknown[topic.leaders[static_cast<std::size_t>(i)]].push_back({topic.name, i});
      }
    } catch (const MessagingError& failure) {
      seen->failure = failure.what();
      return false;
    }
    // The leaders are asked at once: one that is away holds up no other's partitions.
    std::vector<std::future<void>> answers;
    answers.reserve(unknown.size());
    for (auto& [leader, partitions] : unknown)
      answers.push_back(std::async(std::launch::async, [&client, &partitions] {
        ask::find_ranges(client->get(), partitions, limit_of_each);
      }));
    for (auto& answer : answers) answer.get();
    for (const auto& [leader, partitions] : unknown) {
      for (const auto& [topic, partition, range, error] : partitions) {
        if (error)
          seen->failure = describe(error, fmt::format("asking for the range of \"{}\"/{}", topic, partition)).detail;
        else
          seen->fresh.push_back({topic, partition, wants_end && was_there(at_first, topic, partition) ? range.next : range.first});
      }
    }
    return true;
  };
  const bool is_seen = co_await self->session_->blocking(std::move(look));
  self->discovering_ = false;
  if (self->closed_) co_return;
  self->discover_due_ = self->session_->clock->now() + discover_period;
  self->assigned_ = true;  // the next look is the ticker's
  self->changed_.ring();
  const bool is_news = seen->failure != std::exchange(self->last_discovery_error_, seen->failure);
  if (!seen->failure.empty())
    log(is_news ? LogLevel::warning : LogLevel::info, "looking for partitions failed; trying again",
        {{"broker", "kafka"}, {"topic", self->request_.topic}, {"error", seen->failure}});
  if (!is_seen) co_return;
  const bool is_first_look = !self->partitions_at_first_;
  if (is_first_look) self->partitions_at_first_ = seen->partitions;
  const auto& fresh = seen->fresh;
  if (is_first_look && seen->partitions.empty() && !is_pattern(self->request_.topic))
    log(LogLevel::warning, "there is no such topic; it is waited for", {{"broker", "kafka"}, {"topic", self->request_.topic}});
  if (!fresh.empty()) {
    const auto more = make_partitions(fresh.size());
    for (const auto& [topic, partition, base] : fresh) {
      self->add_lane(topic, partition, Offsets(base));
      rd_kafka_topic_partition_list_add(more.get(), topic.c_str(), partition)->offset = base;
    }
    if (const ErrorHandle error(rd_kafka_incremental_assign(self->client_->get(), more.get())); error) {
      log(LogLevel::warning, "partitions could not be assigned; trying again",
          {{"broker", "kafka"}, {"topic", self->request_.topic}, {"error", rd_kafka_error_string(error.get())}});
      for (const auto& each : fresh) self->remove_lane(each.topic, each.partition);
    }
    if (self->marks_.paused()) self->pause_fetching();
  }
}

}  // namespace maestro::messaging::kafka

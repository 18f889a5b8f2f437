#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>
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
  auto fresh = std::make_shared<std::vector<Found>>();
  // What appears after the subscription was made is new, and read from its beginning.
  const bool from_end = !self->looked_ && self->request_.auto_offset_reset == OffsetReset::latest;
  std::set<std::pair<std::string, std::int32_t>> known;
  for (const auto& [id, lane] : self->lanes_) known.emplace(lane->topic, lane->partition);
  std::function<std::string()> look = [client = self->client_, fresh, known, from_end, wanted = self->request_.topic] {
    constexpr Duration limit = std::chrono::seconds(5);
    try {
      for (const auto& topic : ask::topics(*client, wanted, limit)) {
        for (std::int32_t i = 0; i < topic.partitions; ++i) {
          if (known.contains({topic.name, i})) continue;
          const auto range = ask::range(client->get(), topic.name, i, limit);
          fresh->push_back({topic.name, i, from_end ? range.next : range.first});
        }
      }
      return std::string();
    } catch (const MessagingError& failure) {
      return std::string(failure.what());
    }
  };
  const auto failure = co_await self->session_->blocking(std::move(look));
  self->discovering_ = false;
  if (self->closed_) co_return;
  self->discover_due_ = self->session_->clock->now() + discover_period;
  self->assigned_ = true;  // the next look is the ticker's
  self->changed_.ring();
  const bool is_news = failure != std::exchange(self->last_discovery_error_, failure);
  if (!failure.empty()) {
    log(is_news ? LogLevel::warning : LogLevel::info, "looking for partitions failed; trying again",
        {{"broker", "kafka"}, {"topic", self->request_.topic}, {"error", failure}});
    co_return;
  }
  const bool is_first_look = !std::exchange(self->looked_, true);
  if (is_first_look && fresh->empty() && self->lanes_.empty() && !is_pattern(self->request_.topic))
    log(LogLevel::warning, "there is no such topic; it is waited for", {{"broker", "kafka"}, {"topic", self->request_.topic}});
  if (!fresh->empty()) {
    const auto more = make_partitions(fresh->size());
    for (const auto& [topic, partition, base] : *fresh) {
      self->add_lane(topic, partition, Offsets(base));
      rd_kafka_topic_partition_list_add(more.get(), topic.c_str(), partition)->offset = base;
    }
    if (const ErrorHandle error(rd_kafka_incremental_assign(self->client_->get(), more.get())); error) {
      log(LogLevel::warning, "partitions could not be assigned; trying again",
          {{"broker", "kafka"}, {"topic", self->request_.topic}, {"error", rd_kafka_error_string(error.get())}});
      for (const auto& each : *fresh) self->remove_lane(each.topic, each.partition);
    }
    if (self->marks_.paused()) self->pause_fetching();
  }
}

}  // namespace maestro::messaging::kafka

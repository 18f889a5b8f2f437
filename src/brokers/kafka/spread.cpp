#include "brokers/kafka/spread.hpp"

#include <algorithm>

namespace maestro::messaging::kafka {

namespace {
thread_local Spread* asking = nullptr;
}  // namespace

Spread::Asking::Asking(Spread* spread) noexcept { asking = spread; }
Spread::Asking::~Asking() { asking = nullptr; }

void Spread::install(rd_kafka_conf_t* properties) {
  rd_kafka_topic_conf_set_partitioner_cb(rd_kafka_conf_get_default_topic_conf(properties), &Spread::partition_of);
}

void Spread::remove(std::int32_t partition) noexcept {
  const auto at = static_cast<std::size_t>(partition);
  if (at < under_way_.size() && under_way_[at] > 0) --under_way_[at];
}

// Also called from a thread of the client's, for what had to wait for the topic's partitions.
std::int32_t Spread::partition_of(const rd_kafka_topic_t* topic, const void* key, std::size_t key_size, std::int32_t partitions,
                                  void* topic_opaque, void* opaque) {
  if (key || !asking) return rd_kafka_msg_partitioner_murmur2_random(topic, key, key_size, partitions, topic_opaque, opaque);
  return asking->choose(topic, partitions);
}

std::int32_t Spread::choose(const rd_kafka_topic_t* topic, std::int32_t partitions) {
  constexpr std::int32_t most_looked_at = 16;
  const auto load_of = [this](std::int32_t partition) { return under_way_[static_cast<std::size_t>(partition)]; };
  under_way_.resize(static_cast<std::size_t>(partitions));
  choice_ = RD_KAFKA_PARTITION_UA;
  for (std::int32_t i = 0; i < std::min(partitions, most_looked_at); ++i) {
    const auto partition = (last_ + 1 + i) % partitions;
    if (choice_ != RD_KAFKA_PARTITION_UA && load_of(partition) >= load_of(choice_)) continue;
    if (!rd_kafka_topic_partition_available(topic, partition)) continue;
    choice_ = partition;
    if (load_of(partition) == 0) break;
  }
  if (choice_ == RD_KAFKA_PARTITION_UA)
    choice_ = rd_kafka_msg_partitioner_random(topic, nullptr, 0, partitions, nullptr, nullptr);
  last_ = choice_;
  return choice_;
}

}  // namespace maestro::messaging::kafka

#include "brokers/kafka/spread.hpp"

#include <algorithm>
#include <optional>
#include <utility>

namespace maestro::messaging::kafka {

namespace {
thread_local Spread* asking = nullptr;
thread_local Openings* learning = nullptr;
}  // namespace

Spread::Asking::Asking(Spread* spread, Openings& openings) noexcept {
  asking = spread;
  learning = &openings;
}
Spread::Asking::~Asking() {
  asking = nullptr;
  learning = nullptr;
}

void Spread::install(rd_kafka_conf_t* properties) {
  rd_kafka_topic_conf_set_partitioner_cb(rd_kafka_conf_get_default_topic_conf(properties), &Spread::partition_of);
}

void Spread::remove(std::int32_t partition) noexcept {
  const auto at = static_cast<std::size_t>(partition);
  if (at < under_way_.size() && under_way_[at] > 0) --under_way_[at];
}

void Spread::choose(TimePoint now) {
  if (std::exchange(stays_, false) && choice_ != RD_KAFKA_PARTITION_UA) return;
  constexpr Duration period = std::chrono::milliseconds(100);
  const bool asks = available_.empty() || now - learnt_ > period;
  if (asks) learnt_ = now;
  choice_ = asks ? RD_KAFKA_PARTITION_UA : least_busy();
  messages_since_choice_ = bytes_since_choice_ = 0;
}

// Also called from a thread of the client's, for what had to wait for the topic's partitions.
std::int32_t Spread::partition_of(const rd_kafka_topic_t* topic, const void* key, std::size_t key_size, std::int32_t partitions,
                                  void* topic_opaque, void* opaque) {
  if (learning) learning->learn(partitions);
  if (key || !asking) return rd_kafka_msg_partitioner_murmur2_random(topic, key, key_size, partitions, topic_opaque, opaque);
  return asking->learn(topic, partitions, *learning);
}

std::int32_t Spread::learn(const rd_kafka_topic_t* topic, std::int32_t partitions, const Openings& openings) {
  under_way_.resize(static_cast<std::size_t>(partitions));
  available_.clear();
  for (std::int32_t i = 0; i < partitions; ++i) available_.push_back(!openings.is_opening(i) && rd_kafka_topic_partition_available(topic, i) != 0);
  // Where none is, one is as good as another.
  if (std::ranges::find(available_, true) == available_.end())
    for (std::int32_t i = 0; i < partitions; ++i) available_[static_cast<std::size_t>(i)] = !openings.is_opening(i);
  if (std::ranges::find(available_, true) == available_.end()) available_.assign(available_.size(), true);
  return choice_ = least_busy();
}

// From one at random on: in turn, bursts of one length would always meet the same ones.
std::int32_t Spread::least_busy() {
  constexpr std::size_t most_looked_at = 16;
  std::optional<std::size_t> found;
  std::size_t looked_at = 0;
  const auto first = random_() % available_.size();
  for (std::size_t i = 0; i < available_.size() && looked_at < most_looked_at; ++i) {
    const auto partition = (first + i) % available_.size();
    if (!available_[partition]) continue;
    ++looked_at;
    if (!found || under_way_[partition] < under_way_[*found]) found = partition;
    if (under_way_[*found] == 0) break;
  }
  return static_cast<std::int32_t>(*found);
}

}  // namespace maestro::messaging::kafka

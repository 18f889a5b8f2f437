#include "brokers/kafka/landmark.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <iterator>

namespace maestro::messaging::kafka {
namespace {
constexpr std::string_view mark = "maestro-landmark:";
}

std::string Landmark::metadata(std::int64_t place) const {
  return fmt::format("{}{},{},{},{}", mark, place, offset, timestamp, size);
}

Landmark Landmark::from_metadata(std::string_view metadata, std::int64_t place) {
  if (!metadata.starts_with(mark)) return {};
  std::int64_t numbers[4] = {};
  const auto* at = metadata.data() + mark.size();
  const auto* const end = metadata.data() + metadata.size();
  for (auto& number : numbers) {
    const bool is_last = &number == std::end(numbers) - 1;
    const auto [rest, error] = std::from_chars(at, end, number);
    if (error != std::errc() || (is_last ? rest != end : rest == end || *rest != ',')) return {};
    at = is_last ? rest : rest + 1;
  }
  if (numbers[0] != place || numbers[1] >= place) return {};
  Landmark landmark;
  landmark.offset = numbers[1];
  landmark.timestamp = numbers[2];
  landmark.size = static_cast<std::size_t>(numbers[3]);
  return landmark;
}

void add_place(rd_kafka_topic_partition_list_t& places, const std::string& topic, std::int32_t partition, std::int64_t offset,
               const Landmark& landmark) {
  auto* place = rd_kafka_topic_partition_list_add(&places, topic.c_str(), partition);
  place->offset = offset;
  if (!landmark.known()) return;
  const auto metadata = landmark.metadata(offset);
  place->metadata = ::strdup(metadata.c_str());  // the list frees it
  place->metadata_size = metadata.size();
}

}  // namespace maestro::messaging::kafka

#pragma once

#include <librdkafka/rdkafka.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace maestro::messaging::kafka {

/// What a message is known by, so that a log can be told from another one under the same name. It is committed beside a
/// place, as the metadata of the offset: whoever goes on at the place looks for it first.
struct Landmark {
  std::int64_t offset = -1;
  std::int64_t timestamp = -1;
  std::size_t size = 0;  ///< Bytes of key and payload.

  Landmark() = default;
  explicit Landmark(const rd_kafka_message_t& message)
      : offset(message.offset),
        timestamp(rd_kafka_message_timestamp(&message, nullptr)),
        size(message.len + message.key_len) {}
  [[nodiscard]] bool known() const { return offset >= 0; }
  bool operator==(const Landmark&) const = default;

  [[nodiscard]] std::string metadata(std::int64_t place) const;
  /// Nothing known when the metadata is another program's, is of no message before the place, or was made for another
  /// place: tools that copy a group to another cluster translate the place alone.
  [[nodiscard]] static Landmark from_metadata(std::string_view metadata, std::int64_t place);
};

/// Adds a place that is to be committed.
void add_place(rd_kafka_topic_partition_list_t& places, const std::string& topic, std::int32_t partition, std::int64_t offset,
               const Landmark& landmark);

}  // namespace maestro::messaging::kafka

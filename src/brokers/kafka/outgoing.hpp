#pragma once

#include <maestro/messaging/message.hpp>
#include <optional>
#include <span>

#include "brokers/kafka/failure.hpp"
#include "brokers/kafka/handles.hpp"

namespace maestro::messaging::kafka {

/// Why a message cannot be sent, whatever the broker would say; none when it can.
[[nodiscard]] std::optional<Failure> refusal(const OutgoingMessage& message, std::size_t max_message_bytes);

/// Puts a message into librdkafka's queue, which copies it; by `RD_KAFKA_PARTITION_UA` to the partition that its partitioner names.
/// `opaque` comes back with its delivery report.
[[nodiscard]] rd_kafka_resp_err_t give(rd_kafka_t* client, rd_kafka_topic_t* topic, std::int32_t partition, const OutgoingMessage& message,
                                       void* opaque);

/// Whether it can go by `give_plain`: a batch has no room for headers and times, and librdkafka loses a message of it whose partition is
/// not there.
[[nodiscard]] inline bool is_plain(const OutgoingMessage& message) noexcept {
  return message.headers.empty() && !message.timestamp && !message.partition;
}
/// As a record of a batch, which refers to it.
[[nodiscard]] rd_kafka_message_t plain_record(const OutgoingMessage& message, void* opaque) noexcept;
/// Many at once, for less than it costs one by one. `err` of each record says what became of it.
void give_plain(rd_kafka_topic_t* topic, std::int32_t partition, std::span<rd_kafka_message_t> records);

/// The message that the report of a failed delivery is of. The partition is the one that it was put into; the report has no time.
[[nodiscard]] OutgoingMessage message_of(const rd_kafka_message_t& report);

}  // namespace maestro::messaging::kafka

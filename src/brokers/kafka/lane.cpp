#include "brokers/kafka/lane.hpp"

#include <cstring>

namespace maestro::messaging::kafka {
namespace {

// The block of `HeadersView`, put together here because other programs may use names that `Headers::add` refuses.
std::string block_of(const rd_kafka_headers_t* headers) {
  std::string block;
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  for (std::size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; ++i) {
    if (!value) size = 0;
    const std::uint32_t lengths[2] = {static_cast<std::uint32_t>(std::strlen(name)), static_cast<std::uint32_t>(size)};
    block.append(reinterpret_cast<const char*>(lengths), sizeof lengths).append(name, lengths[0]);
    if (size > 0) block.append(static_cast<const char*>(value), size);
  }
  return block;
}

}  // namespace

Message make_message(const std::shared_ptr<Chunk>& chunk, std::size_t index, const Lane& lane, std::uint32_t delivery_count) {
  const auto& message = *chunk->messages[index].message;
  Message::Parts parts;
  parts.topic = rd_kafka_topic_name(message.rkt);
  if (message.key) parts.key.emplace(static_cast<const char*>(message.key), message.key_len);
  parts.payload = {static_cast<const char*>(message.payload), message.len};
  rd_kafka_headers_t* headers = nullptr;
  if (rd_kafka_message_headers(&message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR) {
    if (chunk->headers.empty()) chunk->headers.resize(chunk->messages.size());
    if (chunk->headers[index].empty()) chunk->headers[index] = block_of(headers);
    parts.headers = HeadersView(chunk->headers[index]);
  }
  rd_kafka_timestamp_type_t kind = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
  if (const auto at = rd_kafka_message_timestamp(&message, &kind); kind != RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
    parts.timestamp = Timestamp(std::chrono::milliseconds(at));
  parts.position = {message.partition, message.offset, {}};
  parts.tag = {lane.id, static_cast<std::uint64_t>(message.offset)};
  parts.delivery_count = delivery_count;
  parts.owner = chunk;
  return Message(std::move(parts));
}

}  // namespace maestro::messaging::kafka

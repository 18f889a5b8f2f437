#include "brokers/kafka/outgoing.hpp"

#include <fmt/format.h>

#include "core/size_limit.hpp"

namespace maestro::messaging::kafka {
namespace {

HeadersHandle headers_of(const Headers& headers) {
  HeadersHandle made(rd_kafka_headers_new(headers.view().count()));
  for (const auto [name, value] : headers)
    rd_kafka_header_add(made.get(), name.data(), static_cast<ssize_t>(name.size()), value.data(),
                        static_cast<ssize_t>(value.size()));
  return made;
}

// librdkafka takes 0 for now, and the broker nothing before it.
std::int64_t milliseconds_of(Timestamp time) {
  return std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

}  // namespace

std::optional<Failure> refusal(const OutgoingMessage& message, std::size_t max_message_bytes) {
  if (auto why = over_limit(message, max_message_bytes)) return Failure{errc::message_too_large, *std::move(why)};
  if (message.timestamp && milliseconds_of(*message.timestamp) <= 0)
    return Failure{errc::invalid_argument, fmt::format("timestamp: {} ms since 1970-01-01T00:00:00Z, of a message for \"{}\"; Kafka takes times "
                                                       "after 1970-01-01T00:00:00Z",
                                                       milliseconds_of(*message.timestamp), message.topic)};
  return std::nullopt;
}

rd_kafka_resp_err_t give(rd_kafka_t* client, rd_kafka_topic_t* topic, std::int32_t partition, const OutgoingMessage& message,
                         void* opaque) {
  auto* payload = const_cast<char*>(message.payload.data());
  auto* key = message.key ? const_cast<char*>(message.key->data()) : nullptr;
  const auto key_size = message.key ? message.key->size() : 0;
  rd_kafka_vu_t values[8];
  std::size_t count = 0;
  const auto add = [&](rd_kafka_vtype_t type) -> rd_kafka_vu_t& {
    values[count].vtype = type;
    return values[count++];
  };
  add(RD_KAFKA_VTYPE_RKT).u.rkt = topic;
  add(RD_KAFKA_VTYPE_PARTITION).u.i32 = partition;
  add(RD_KAFKA_VTYPE_MSGFLAGS).u.i = RD_KAFKA_MSG_F_COPY;
  add(RD_KAFKA_VTYPE_VALUE).u.mem = {payload, message.payload.size()};
  add(RD_KAFKA_VTYPE_KEY).u.mem = {key, key_size};
  add(RD_KAFKA_VTYPE_OPAQUE).u.ptr = opaque;
  if (message.timestamp) add(RD_KAFKA_VTYPE_TIMESTAMP).u.i64 = milliseconds_of(*message.timestamp);
  auto headers = message.headers.empty() ? HeadersHandle() : headers_of(message.headers);
  if (headers) add(RD_KAFKA_VTYPE_HEADERS).u.headers = headers.get();
  const ErrorHandle failure(rd_kafka_produceva(client, values, count));
  if (failure) return rd_kafka_error_code(failure.get());
  static_cast<void>(headers.release());  // the message's now
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_message_t plain_record(const OutgoingMessage& message, void* opaque) noexcept {
  rd_kafka_message_t record{};
  record.payload = const_cast<char*>(message.payload.data());
  record.len = message.payload.size();
  if (message.key) {
    record.key = const_cast<char*>(message.key->data());
    record.key_len = message.key->size();
  }
  record._private = opaque;
  return record;
}

void give_plain(rd_kafka_topic_t* topic, std::int32_t partition, std::span<rd_kafka_message_t> records) {
  rd_kafka_produce_batch(topic, partition, RD_KAFKA_MSG_F_COPY, records.data(), static_cast<int>(records.size()));
}

OutgoingMessage message_of(const rd_kafka_message_t& report) {
  OutgoingMessage message;
  message.topic = rd_kafka_topic_name(report.rkt);
  if (report.payload) message.payload = Payload(std::string(static_cast<const char*>(report.payload), report.len));
  if (report.key) message.key.emplace(static_cast<const char*>(report.key), report.key_len);
  message.partition = report.partition;
  rd_kafka_headers_t* headers = nullptr;
  if (rd_kafka_message_headers(&report, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR) {
    const char* name = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    for (std::size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; ++i)
      message.headers.add(name, {static_cast<const char*>(value), size});
  }
  return message;
}

}  // namespace maestro::messaging::kafka

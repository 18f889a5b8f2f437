#pragma once

#include <deque>
#include <maestro/messaging/message.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "brokers/kafka/client.hpp"
#include "brokers/kafka/offsets.hpp"

namespace maestro::messaging::kafka {

struct Fetched {
  rd_kafka_event_t* event = nullptr;
  const rd_kafka_message_t* message = nullptr;

  [[nodiscard]] std::size_t bytes() const {
    constexpr std::size_t librdkafkas_own = 256;
    return message->len + message->key_len + librdkafkas_own;
  }
};

/// Messages that were handed out together; the owner of their bytes.
struct Chunk {
  static constexpr std::size_t capacity = 128;

  explicit Chunk(std::shared_ptr<Client> from) : client(std::move(from)) {}
  ~Chunk() {
    for (const auto& each : messages) rd_kafka_event_destroy(each.event);
  }
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;

  std::shared_ptr<Client> client;  // outlives its messages
  std::vector<Fetched> messages;
  std::vector<std::string> headers;
};

/// One partition for as long as it is assigned to us (or until its place is moved). Its id is the `lane` of delivery tags, so that
/// an acknowledgement from an earlier assignment finds nothing.
struct Lane {
  Lane(std::uint64_t number, std::string name, std::int32_t index, Offsets begin)
      : id(number), topic(std::move(name)), partition(index), offsets(begin) {}
  ~Lane() { drop_ready(); }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  void drop_ready() {
    for (const auto& each : ready) rd_kafka_event_destroy(each.event);
    ready.clear();
    offsets.drop_ready();
  }

  std::uint64_t id;
  std::string topic;
  std::int32_t partition;
  Offsets offsets;
  std::deque<Fetched> ready;
  std::deque<std::shared_ptr<Chunk>> handed_out;         // until settled, for `release`
  std::map<std::int64_t, std::uint32_t> redeliveries;
  std::int64_t stored = -1;                              // the place that librdkafka will commit
  bool draining = false;                                 // it goes to another member when all is settled
};

/// A message of a chunk as the library's own.
[[nodiscard]] Message make_message(const std::shared_ptr<Chunk>& chunk, std::size_t index, const Lane& lane,
                                   std::uint32_t delivery_count);

}  // namespace maestro::messaging::kafka

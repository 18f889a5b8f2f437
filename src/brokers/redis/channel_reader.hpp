#pragma once

#include "brokers/redis/channel.hpp"
#include "brokers/redis/reader.hpp"

namespace maestro::messaging::redis {

/// Listens to a channel, or to all that a pattern matches. What is published while the connection is broken is lost, and so is what the
/// server drops for a subscriber that does not keep up; both are said aloud.
class ChannelReader final : public Reader, public Pushes {
 public:
  using Reader::Reader;

  awaitable<void> seek(std::string topic, EntryId last_read, bool to_end) override;
  awaitable<std::int64_t> offset_at(std::string topic, Timestamp time) override;
  awaitable<std::vector<PartitionLag>> lag() override { co_return std::vector<PartitionLag>{}; }

  void on_push(const Value& push) override;
  void on_burst(bool full) override;

 protected:
  awaitable<void> prepare(Connection& connection) override;
  awaitable<void> recover(Connection& connection) override;
  awaitable<void> read_until_broken() override;
  void on_room() override;

 private:
  /// Connections that this server closed because their buffers were full; none where it does not say (before Redis 7.2).
  static awaitable<std::optional<std::int64_t>> count_dropped(Connection& connection);
  awaitable<void> subscribe(Connection& connection);

  ChannelBatch batch_;
  std::uint64_t number_ = 0;
  std::optional<std::int64_t> dropped_;  // when this connection was made
  std::optional<Failure> refused_;
  bool subscribed_ = false;
  bool behind_ = false;  // the server had to keep messages for us, not long ago
};

}  // namespace maestro::messaging::redis

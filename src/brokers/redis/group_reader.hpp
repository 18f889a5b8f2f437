#pragma once

#include "brokers/redis/stream_publisher.hpp"
#include "brokers/redis/stream_reader.hpp"

namespace maestro::messaging::redis {

/// The groups of a topic, with what they have not settled: unread, or pending.
awaitable<std::vector<GroupInfo>> groups_of(Session& session, std::string key);

/// A member of a consumer group: `XREADGROUP`, `XACK`, and the care for what is pending. What it holds is kept fresh, so that nobody
/// takes it for dead; what dead members left is claimed, beside new messages.
class GroupReader final : public StreamReader {
 public:
  GroupReader(std::shared_ptr<Session> session, SubscribeRequest request);

  awaitable<void> start() override;
  void acknowledge(std::span<const DeliveryTag> tags) override;
  void release(std::span<const DeliveryTag> tags, Duration delay) override;
  awaitable<void> commit() override;
  awaitable<void> close() override;
  awaitable<void> seek(std::string topic, EntryId last_read, bool to_end) override;
  awaitable<std::vector<PartitionLag>> lag() override;

  /// A delivery, to be acknowledged in a transaction; none when it is not this member's any more.
  [[nodiscard]] std::optional<Settlement> settlement(DeliveryTag tag) const;
  void forget(DeliveryTag tag);

 protected:
  awaitable<void> prepare_stream(Connection& connection, std::size_t stream) override;
  awaitable<void> recover(Connection& connection) override;
  std::vector<std::string> read_command(std::span<const std::size_t> streams, std::size_t at_most,
                                        std::optional<Duration> block) const override;
  [[nodiscard]] std::size_t room() const override {
    return request_.prefetch > held_.size() ? request_.prefetch - held_.size() : 0;
  }
  void on_entries(std::size_t stream, std::span<const Value> entries, const Kept& reply) override;
  awaitable<void> tend() override;
  [[nodiscard]] Duration tick() const override;
  /// What this member had in its hands before it was started again, and what others left that are gone for good, is older than anything
  /// new.
  awaitable<void> begin() override;

 private:
  struct Held {
    std::size_t stream = 0;
    EntryId id;
    std::uint32_t deliveries = 1;
    TimePoint fresh;  ///< When the server heard last that it is in good hands.
  };
  struct Due {
    std::uint64_t serial;
    TimePoint at;
  };
  class Acknowledging;

  static awaitable<void> leave(std::shared_ptr<GroupReader> self);
  void deliver(std::size_t stream, std::span<const Value> entries, const Kept& reply, std::span<const std::uint32_t> counts);
  awaitable<void> look_for_namesakes(Connection& connection) const;
  awaitable<void> read_pending(Connection& connection);
  awaitable<bool> has_group(Connection& connection, std::string key) const;
  void drop_poison(std::size_t stream, EntryId id);
  void send_acknowledgements();
  void on_refused(std::string_view error, std::span<const std::pair<std::size_t, EntryId>> ids);
  awaitable<void> claim_due();
  awaitable<void> keep_fresh();
  awaitable<void> claim_from_the_dead();
  /// A page of it, from that entry on; whether there may be more.
  awaitable<bool> autoclaim(Connection& connection, std::size_t stream, EntryId& from);
  awaitable<bool> claim_one_by_one(Connection& connection, std::size_t stream, EntryId& from);
  awaitable<void> take_over(Connection& connection, std::size_t stream, std::span<const Value> entries, Kept reply);
  awaitable<void> hand_over(Connection& connection, std::size_t stream);
  /// For a member that does not read, and so would not be told that its group is gone.
  awaitable<void> look_for_groups();
  awaitable<void> trim();
  awaitable<void> forget_the_dead();
  awaitable<std::vector<std::uint32_t>> counts_of(Connection& connection, std::size_t stream, std::span<const Value> entries);

  std::string group_;
  std::optional<std::string> own_name_;
  std::string consumer_;
  Duration claim_idle_;
  Duration trim_after_;
  Duration trim_period_;
  std::uint64_t next_serial_ = 1;
  boost::unordered_flat_map<std::uint64_t, Held> held_;  // by serial: handed out, or waiting to be
  std::vector<Due> due_;                                 // released, and to be delivered again here
  std::vector<std::pair<std::size_t, EntryId>> acknowledged_;  // to be sent
  std::size_t acknowledging_ = 0;                        // sent, without an answer
  TimePoint acknowledge_from_{};                         // not before: the server refused, for a reason that passes
  std::optional<Failure> refused_;                       // why acknowledgements are lost; the next commit says so
  bool refusing_ = false;                                // and that was said
  Signal acknowledged_all_;
  TimePoint looked_at_{};
  TimePoint claimed_at_{};
  TimePoint trimmed_at_{};
  // The groups of each stream, when it was last looked at.
  boost::unordered_flat_map<std::size_t, std::vector<std::string>> groups_;
  bool trim_refused_ = false;  // and that was said
};

/// Reads everything by itself, and settles nothing.
class PrivateReader final : public StreamReader {
 public:
  using StreamReader::StreamReader;
  awaitable<void> seek(std::string topic, EntryId last_read, bool to_end) override;
  awaitable<std::vector<PartitionLag>> lag() override;

 protected:
  awaitable<void> prepare_stream(Connection& connection, std::size_t stream) override;
  awaitable<void> recover(Connection& connection) override;
  std::vector<std::string> read_command(std::span<const std::size_t> streams, std::size_t at_most,
                                        std::optional<Duration> block) const override;
  [[nodiscard]] std::size_t room() const override {
    return request_.prefetch > ready_messages_.size() ? request_.prefetch - ready_messages_.size() : 0;
  }
  void on_entries(std::size_t stream, std::span<const Value> entries, const Kept& reply) override;
  /// A stream that was deleted and made again may have lower ids than those that were read.
  awaitable<void> on_silence(Connection& connection) override;
};

}  // namespace maestro::messaging::redis

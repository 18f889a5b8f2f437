#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <deque>
#include <functional>
#include <maestro/messaging/transport.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "brokers/memory/segment.hpp"

namespace maestro::messaging::memory {

struct Limits {
  std::int32_t partitions = 6;
  std::int64_t max_messages = 0;
  std::int64_t max_bytes = 0;
};

struct Partition {
  std::deque<std::shared_ptr<Segment>> segments;
  std::int64_t first = 0;
  std::int64_t next = 0;

  [[nodiscard]] const std::shared_ptr<Segment>& segment_of(std::int64_t offset) const;
};

/// What a member is to the hub: someone to be woken, from any thread.
class Member {
 public:
  virtual ~Member() = default;
  virtual void wake() noexcept = 0;
};

/// A group's place in one partition. [committed, next) is handed out and not settled.
struct Cursor {
  std::int64_t committed = 0;
  std::int64_t next = 0;
  Member* owner = nullptr;
  Member* wanted = nullptr;                      ///< Gets the partition when the owner has settled all it holds.
  TimePoint force_at = TimePoint::max();         ///< When `wanted` stops waiting for that.
  TimePoint stalled_until = TimePoint::min();    ///< Deliveries that a fault delays.
  std::multimap<TimePoint, std::int64_t> due;    ///< Released deliveries.
  std::map<std::int64_t, std::uint32_t> redeliveries;
};

struct Group {
  std::string name;
  bool is_private = false;
  std::vector<Cursor> cursors;
  std::vector<Member*> members;
};

struct Topic {
  std::shared_ptr<const std::string> name;
  std::uint64_t id = 0;
  std::vector<Partition> partitions;
  std::map<std::string, Group, std::less<>> groups;
  std::int64_t messages = 0;
  std::int64_t bytes = 0;
  std::size_t round_robin = 0;
};

/// The broker behind `memory://name`: everything that its clients share. One mutex guards all of it; it is taken once
/// a batch. Named hubs live as long as any client of theirs.
class Hub {
 public:
  /// The hub of this name in this process.
  static std::shared_ptr<Hub> named(const std::string& name);

  enum class Append { stored, full, no_such_partition };
  /// Stores the message, taking over its topic alone; fills in the receipt. Wakes whoever waits for it.
  Append append(OutgoingMessage& message, Receipt& receipt, const Limits& limits, Timestamp now);
  struct Settlement {
    Member* member;
    DeliveryTag tag;
  };
  enum class Commit { committed, full, no_such_partition, not_owned };
  /// Stores all messages and settles all deliveries, or does nothing.
  Commit commit(std::span<OutgoingMessage> messages, std::span<const Settlement> settlements, const Limits& limits,
                Timestamp now);
  /// Rings `publisher` when the topics may have room again.
  void await_room(std::weak_ptr<Member> publisher);

  void join(Member* member, const SubscribeRequest& request, const std::string& group, const Limits& limits);
  /// Unsettled deliveries go back; the member's partitions go to others at once.
  void leave(Member* member, const std::string& group, bool forget_group);

  struct TakeOptions {
    TimePoint now;
    Duration rebalance_timeout;
    std::function<bool()> duplicate;             ///< Fault: hand it out twice.
    std::function<Duration()> delay;             ///< Fault: hold deliveries back.
  };
  std::size_t take(Member* member, const std::string& group, std::vector<Message>& into, std::size_t at_most,
                   const TakeOptions& options);
  /// When something will be ready although nobody publishes; `min()` when it is ready now.
  TimePoint ready_at(Member* member, const std::string& group);

  void acknowledge(Member* member, std::span<const DeliveryTag> tags);
  void release(Member* member, std::span<const DeliveryTag> tags, TimePoint due);
  std::int64_t offset_at(std::string_view topic, std::int32_t partition, Timestamp time);
  void seek(Member* member, const std::string& group, std::string_view topic, std::int32_t partition, std::int64_t offset);
  std::vector<PartitionLag> lag(Member* member);

  std::vector<std::string> topics();
  TopicInfo describe(const std::string& topic);
  void create(const std::string& topic, std::int32_t partitions);
  void remove(const std::string& topic);
  std::int64_t purge(const std::string& topic);

 private:
  Topic& require_partition(std::string_view topic, std::int32_t partition);
  struct Subscription {
    std::string pattern;
    std::string group;
    OffsetReset reset;
    bool is_private;
  };
  struct Assigned {
    Topic* topic;
    Group* group;
    std::int32_t partition;
  };

  Topic& topic_for(std::string_view name, std::int32_t partitions);
  Append append_locked(Topic& topic, OutgoingMessage& message, Receipt& receipt, const Limits& limits, Timestamp now);
  void attach(Topic& topic, Member* member, const Subscription& subscription);
  void rebalance(Topic& topic, Group& group);
  void transfer(Topic& topic, Group& group, std::int32_t partition);
  void give_back(Cursor& cursor);
  void acknowledge_locked(Member* member, DeliveryTag tag);
  void settled(Topic& topic, Group& group, std::int32_t partition);
  Assigned* find(Member* member, std::uint64_t lane);
  void trim(Topic& topic);
  void ring_publishers();

  std::shared_ptr<SegmentPool> segments_ = std::make_shared<SegmentPool>();
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Topic>, std::less<>> topics_;
  Topic* last_topic_ = nullptr;  // messages of a topic come in runs
  std::map<Member*, Subscription> subscriptions_;
  std::map<Member*, boost::unordered_flat_map<std::uint64_t, Assigned>> assigned_;
  std::vector<std::weak_ptr<Member>> waiting_publishers_;
  std::uint64_t next_topic_id_ = 0;
  std::size_t rotation_ = 0;
};

}  // namespace maestro::messaging::memory

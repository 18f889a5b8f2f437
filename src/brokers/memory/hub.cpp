#include "brokers/memory/hub.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/topic.hpp>

#include "core/message_batch.hpp"
#include "core/size_limit.hpp"
#include "core/stable_hash.hpp"

namespace maestro::messaging::memory {
namespace {

constexpr unsigned partition_bits = 16;

std::uint64_t lane_of(const Topic& topic, std::int32_t partition) {
  return topic.id << partition_bits | static_cast<std::uint64_t>(partition);
}

std::int64_t bytes_of(const OutgoingMessage& message) { return static_cast<std::int64_t>(size_of(message)); }

bool has_partition(const Topic& topic, const OutgoingMessage& message) {
  return !message.partition ||
         (*message.partition >= 0 && static_cast<std::size_t>(*message.partition) < topic.partitions.size());
}

}  // namespace

const std::shared_ptr<Segment>& Partition::segment_of(std::int64_t offset) const {
  // All segments but the last are full, unless a purge cut the front; bases tell.
  const auto base = segments.front()->base;
  return segments[static_cast<std::size_t>(offset - base) / Segment::capacity];
}

std::shared_ptr<Hub> Hub::named(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<Hub>> hubs;
  const std::lock_guard lock(mutex);
  auto& kept = hubs[name];
  auto hub = kept.lock();
  if (!hub) kept = hub = std::make_shared<Hub>();
  return hub;
}

Topic& Hub::topic_for(std::string_view name, std::int32_t partitions) {
  if (last_topic_ && *last_topic_->name == name) return *last_topic_;
  if (const auto found = topics_.find(name); found != topics_.end()) return *(last_topic_ = found->second.get());
  auto made = std::make_unique<Topic>();
  made->name = std::make_shared<const std::string>(name);
  made->id = next_topic_id_++;
  made->partitions.resize(static_cast<std::size_t>(partitions));
  auto& topic = *topics_.emplace(std::string(name), std::move(made)).first->second;
  for (const auto& [member, subscription] : subscriptions_)
    if (matches(subscription.pattern, name)) attach(topic, member, subscription);
  return topic;
}

Hub::Append Hub::append(OutgoingMessage& message, Receipt& receipt, const Limits& limits, Timestamp now) {
  const std::lock_guard lock(mutex_);
  return append_locked(topic_for(message.topic, limits.partitions), message, receipt, limits, now);
}

Hub::Append Hub::append_locked(Topic& topic, OutgoingMessage& message, Receipt& receipt, const Limits& limits,
                               Timestamp now) {
  if (!has_partition(topic, message)) return Append::no_such_partition;
  const auto size = bytes_of(message);
  if (topic.messages + 1 > limits.max_messages || topic.bytes + size > limits.max_bytes) {
    trim(topic);
    if (topic.messages + 1 > limits.max_messages || topic.bytes + size > limits.max_bytes) return Append::full;
  }
  const auto count = topic.partitions.size();
  const auto index = message.partition ? static_cast<std::size_t>(*message.partition)
                     : message.key     ? stable_hash(*message.key) % count
                                       : topic.round_robin++ % count;
  auto& partition = topic.partitions[index];
  if (partition.segments.empty() || partition.segments.back()->full()) {
    auto segment = segments_->make();
    segment->base = partition.next;
    segment->topic = topic.name;
    partition.segments.push_back(std::move(segment));
  }
  auto& segment = *partition.segments.back();
  receipt.partition = static_cast<std::int32_t>(index);
  receipt.offset = partition.next++;
  receipt.timestamp = message.timestamp.value_or(now);
  segment.bytes += size;
  segment.append(message, *receipt.timestamp);
  receipt.topic = std::move(message.topic);
  ++topic.messages;
  topic.bytes += size;
  for (auto& [name, group] : topic.groups)
    if (auto* owner = group.cursors[index].owner) owner->wake();
  return Append::stored;
}

Hub::Commit Hub::commit(std::span<OutgoingMessage> messages, std::span<const Settlement> settlements,
                        const Limits& limits, Timestamp now) {
  std::map<std::string_view, std::pair<std::int64_t, std::int64_t>> needed;
  for (const auto& message : messages) {
    auto& [count, bytes] = needed[message.topic];
    ++count;
    bytes += bytes_of(message);
  }
  const std::lock_guard lock(mutex_);
  for (const auto& [member, tag] : settlements) {
    const auto* place = find(member, tag.lane);
    if (!place) return Commit::not_owned;
    const auto& cursor = place->group->cursors[static_cast<std::size_t>(place->partition)];
    if (static_cast<std::int64_t>(tag.sequence) >= cursor.next) return Commit::not_owned;
  }
  for (const auto& [name, need] : needed) {
    auto& topic = topic_for(name, limits.partitions);
    trim(topic);
    if (topic.messages + need.first > limits.max_messages || topic.bytes + need.second > limits.max_bytes)
      return Commit::full;
  }
  for (const auto& message : messages)
    if (!has_partition(*topics_.find(message.topic)->second, message)) return Commit::no_such_partition;
  Receipt receipt;
  for (auto& message : messages) append_locked(topic_for(message.topic, limits.partitions), message, receipt, limits, now);
  for (const auto& [member, tag] : settlements) acknowledge_locked(member, tag);
  return Commit::committed;
}

void Hub::await_room(std::weak_ptr<Member> publisher) {
  const std::lock_guard lock(mutex_);
  waiting_publishers_.push_back(std::move(publisher));
}

void Hub::ring_publishers() {
  for (const auto& waiting : std::exchange(waiting_publishers_, {}))
    if (const auto publisher = waiting.lock()) publisher->wake();
}

void Hub::trim(Topic& topic) {
  if (topic.groups.empty()) return;
  for (std::size_t index = 0; index < topic.partitions.size(); ++index) {
    auto& partition = topic.partitions[index];
    auto settled = partition.next;
    for (const auto& [name, group] : topic.groups) settled = std::min(settled, group.cursors[index].committed);
    while (!partition.segments.empty()) {
      const auto& front = *partition.segments.front();
      const auto end = front.base + static_cast<std::int64_t>(front.records.size());
      if (end > settled) break;
      topic.messages -= end - std::max(front.base, partition.first);
      topic.bytes -= front.bytes;
      partition.first = end;
      partition.segments.pop_front();
    }
  }
}

void Hub::join(Member* member, const SubscribeRequest& request, const std::string& group, const Limits& limits) {
  const std::lock_guard lock(mutex_);
  const Subscription subscription{request.topic, group, request.auto_offset_reset, !request.group};
  assigned_[member];
  const bool new_topic = !is_pattern(request.topic) && topics_.find(request.topic) == topics_.end();
  if (new_topic) topic_for(request.topic, limits.partitions);
  subscriptions_.emplace(member, subscription);
  for (const auto& [name, topic] : topics_)
    if (matches(request.topic, name)) attach(*topic, member, subscription);
}

void Hub::attach(Topic& topic, Member* member, const Subscription& subscription) {
  auto [found, is_new] = topic.groups.try_emplace(subscription.group);
  auto& group = found->second;
  if (is_new) {
    group.name = subscription.group;
    group.is_private = subscription.is_private;
    group.cursors.resize(topic.partitions.size());
    for (std::size_t i = 0; i < group.cursors.size(); ++i) {
      const auto& partition = topic.partitions[i];
      group.cursors[i].committed = group.cursors[i].next =
          subscription.reset == OffsetReset::earliest ? partition.first : partition.next;
    }
  }
  group.members.push_back(member);
  rebalance(topic, group);
}

void Hub::leave(Member* member, const std::string& group_name, bool forget_group) {
  const std::lock_guard lock(mutex_);
  subscriptions_.erase(member);
  assigned_.erase(member);
  for (const auto& [name, topic] : topics_) {
    const auto found = topic->groups.find(group_name);
    if (found == topic->groups.end()) continue;
    auto& group = found->second;
    if (std::erase(group.members, member) == 0) continue;
    if (forget_group) {
      topic->groups.erase(found);
      continue;
    }
    for (auto& cursor : group.cursors) {
      if (cursor.wanted == member) cursor.wanted = nullptr;
      if (cursor.owner == member) give_back(cursor);
    }
    rebalance(*topic, group);
  }
  ring_publishers();
}

void Hub::give_back(Cursor& cursor) {
  for (auto offset = cursor.committed; offset < cursor.next; ++offset) ++cursor.redeliveries[offset];
  cursor.next = cursor.committed;
  cursor.due.clear();
  cursor.owner = nullptr;
}

// Sticky: whoever has no more than a fair share keeps what it has; the rest moves when it is settled.
void Hub::rebalance(Topic& topic, Group& group) {
  if (group.members.empty()) return;
  const auto fair = group.cursors.size() / group.members.size();
  auto extra = group.cursors.size() % group.members.size();
  std::map<Member*, std::size_t> quota;
  std::map<Member*, std::size_t> held;
  for (auto* member : group.members) held[member] = 0;
  for (const auto& cursor : group.cursors)
    if (cursor.owner) ++held[cursor.owner];
  // The odd partitions stay with whoever holds most, so that fewest move.
  std::multimap<std::size_t, Member*, std::greater<>> by_holding;
  for (auto* member : group.members) by_holding.emplace(held[member], member);
  for (const auto& [count, member] : by_holding) quota[member] = fair + (extra > 0 ? (--extra, 1U) : 0U);
  std::vector<std::int32_t> homeless;
  for (std::size_t i = 0; i < group.cursors.size(); ++i) {
    auto& cursor = group.cursors[i];
    cursor.wanted = nullptr;
    cursor.force_at = TimePoint::max();
    if (cursor.owner && quota[cursor.owner] > 0) {
      --quota[cursor.owner];
    } else {
      homeless.push_back(static_cast<std::int32_t>(i));
    }
  }
  for (const auto index : homeless) {
    auto* taker = *std::ranges::find_if(group.members, [&](Member* member) { return quota[member] > 0; });
    --quota[taker];
    auto& cursor = group.cursors[static_cast<std::size_t>(index)];
    cursor.wanted = taker;
    if (!cursor.owner || cursor.committed == cursor.next) {
      transfer(topic, group, index);
    } else {
      taker->wake();  // so that it sets the time limit by its own clock
    }
  }
  // Whoever keeps a partition that it was to give up may go on with it.
  for (auto* member : group.members) member->wake();
}

void Hub::transfer(Topic& topic, Group& group, std::int32_t partition) {
  auto& cursor = group.cursors[static_cast<std::size_t>(partition)];
  const auto lane = lane_of(topic, partition);
  if (cursor.owner) {
    if (const auto old = assigned_.find(cursor.owner); old != assigned_.end()) old->second.erase(lane);
    give_back(cursor);
  }
  cursor.owner = std::exchange(cursor.wanted, nullptr);
  cursor.force_at = TimePoint::max();
  assigned_[cursor.owner].insert_or_assign(lane, Assigned{&topic, &group, partition});
  cursor.owner->wake();
}

std::size_t Hub::take(Member* member, const std::string& group_name, std::vector<Message>& into, std::size_t at_most,
                      const TakeOptions& options) {
  const std::lock_guard lock(mutex_);
  if (const auto subscription = subscriptions_.find(member);
      subscription != subscriptions_.end() && !subscription->second.is_private) {
    for (const auto& [name, topic] : topics_) {
      const auto found = topic->groups.find(group_name);
      if (found == topic->groups.end() || found->second.members.size() < 2) continue;
      for (std::size_t i = 0; i < found->second.cursors.size(); ++i) {
        auto& cursor = found->second.cursors[i];
        if (cursor.wanted != member) continue;
        if (cursor.force_at == TimePoint::max()) cursor.force_at = options.now + options.rebalance_timeout;
        if (cursor.force_at <= options.now) transfer(*topic, found->second, static_cast<std::int32_t>(i));
      }
    }
  }
  auto& mine = assigned_[member];
  if (mine.empty()) return 0;
  std::size_t taken = 0;
  // Every partition gets its turn to be first, so that a busy one starves no other.
  auto at = mine.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(rotation_++ % mine.size()));
  for (std::size_t turn = 0; turn < mine.size() && taken < at_most; ++turn, ++at) {
    if (at == mine.end()) at = mine.begin();
    const auto& [topic, group, index] = at->second;
    auto& cursor = group->cursors[static_cast<std::size_t>(index)];
    const auto& partition = topic->partitions[static_cast<std::size_t>(index)];
    if (options.now < cursor.stalled_until) continue;
    std::vector<Message::Parts> batch;
    if (const auto there = cursor.due.size() + static_cast<std::size_t>(std::max<std::int64_t>(0, partition.next - cursor.next)); there > 0)
      batch.reserve(std::min(there, at_most - taken));
    const auto hand_out = [&](std::int64_t offset) {
      const auto& segment = partition.segment_of(offset);
      const auto& record = segment->records[static_cast<std::size_t>(offset - segment->base)];
      auto& parts = batch.emplace_back();
      parts.topic = *segment->topic;
      parts.key = record.key;
      parts.payload = record.payload;
      parts.headers = record.headers;
      parts.timestamp = record.timestamp;
      parts.position = {index, offset, {}};
      parts.tag = {at->first, static_cast<std::uint64_t>(offset)};
      if (!cursor.redeliveries.empty())
        if (const auto again = cursor.redeliveries.find(offset); again != cursor.redeliveries.end())
          parts.delivery_count = again->second + 1;
      parts.owner = segment;
      ++taken;
    };
    while (taken < at_most && !cursor.due.empty() && cursor.due.begin()->first <= options.now) {
      const auto offset = cursor.due.begin()->second;
      cursor.due.erase(cursor.due.begin());
      hand_out(offset);
    }
    if (!cursor.wanted) cursor.next = std::max(cursor.next, partition.first);  // else draining: nothing new
    while (!cursor.wanted && taken < at_most && cursor.next < partition.next) {
      if (options.delay) {
        if (const auto held_back = options.delay(); held_back > Duration::zero()) {
          cursor.stalled_until = options.now + held_back;
          break;
        }
      }
      hand_out(cursor.next);
      if (options.duplicate && options.duplicate()) hand_out(cursor.next);
      ++cursor.next;
    }
    append_batch(into, std::move(batch));
  }
  return taken;
}

TimePoint Hub::ready_at(Member* member, const std::string& group_name) {
  const std::lock_guard lock(mutex_);
  auto soonest = TimePoint::max();
  for (const auto& [lane, place] : assigned_[member]) {
    const auto& cursor = place.group->cursors[static_cast<std::size_t>(place.partition)];
    const auto& partition = place.topic->partitions[static_cast<std::size_t>(place.partition)];
    auto ready = TimePoint::max();
    if (!cursor.due.empty()) ready = cursor.due.begin()->first;
    if (!cursor.wanted && std::max(cursor.next, partition.first) < partition.next) ready = TimePoint::min();
    if (ready != TimePoint::max()) soonest = std::min(soonest, std::max(ready, cursor.stalled_until));
  }
  for (const auto& [name, topic] : topics_)
    if (const auto found = topic->groups.find(group_name); found != topic->groups.end())
      for (const auto& cursor : found->second.cursors)
        if (cursor.wanted == member)
          soonest = std::min(soonest, cursor.force_at == TimePoint::max() ? TimePoint::min() : cursor.force_at);
  return soonest;
}

Hub::Assigned* Hub::find(Member* member, std::uint64_t lane) {
  const auto mine = assigned_.find(member);
  if (mine == assigned_.end()) return nullptr;
  const auto found = mine->second.find(lane);
  return found == mine->second.end() ? nullptr : &found->second;
}

void Hub::acknowledge(Member* member, std::span<const DeliveryTag> tags) {
  const std::lock_guard lock(mutex_);
  for (const auto tag : tags) acknowledge_locked(member, tag);
  if (!waiting_publishers_.empty()) ring_publishers();
}

void Hub::acknowledge_locked(Member* member, DeliveryTag tag) {
  const auto* place = find(member, tag.lane);
  if (!place) return;
  auto& cursor = place->group->cursors[static_cast<std::size_t>(place->partition)];
  const auto upto = static_cast<std::int64_t>(tag.sequence) + 1;
  if (upto <= cursor.committed || upto > cursor.next) return;
  cursor.committed = upto;
  if (!cursor.due.empty()) std::erase_if(cursor.due, [upto](const auto& entry) { return entry.second < upto; });
  if (!cursor.redeliveries.empty())
    cursor.redeliveries.erase(cursor.redeliveries.begin(), cursor.redeliveries.lower_bound(upto));
  settled(*place->topic, *place->group, place->partition);
}

void Hub::settled(Topic& topic, Group& group, std::int32_t partition) {
  const auto& cursor = group.cursors[static_cast<std::size_t>(partition)];
  if (cursor.wanted && cursor.committed == cursor.next) transfer(topic, group, partition);
}

void Hub::release(Member* member, std::span<const DeliveryTag> tags, TimePoint due) {
  const std::lock_guard lock(mutex_);
  for (const auto tag : tags) {
    const auto* place = find(member, tag.lane);
    if (!place) continue;
    auto& cursor = place->group->cursors[static_cast<std::size_t>(place->partition)];
    const auto offset = static_cast<std::int64_t>(tag.sequence);
    if (offset < cursor.committed || offset >= cursor.next) continue;
    ++cursor.redeliveries[offset];
    cursor.due.emplace(due, offset);
  }
  member->wake();
}

Topic& Hub::require_partition(std::string_view topic_name, std::int32_t partition) {
  const auto topic = topics_.find(topic_name);
  if (topic == topics_.end())
    throw MessagingError(errc::topic_not_found, fmt::format("seek: the topic \"{}\" does not exist", topic_name));
  if (partition < 0 || static_cast<std::size_t>(partition) >= topic->second->partitions.size())
    throw MessagingError(errc::invalid_argument,
                         fmt::format("seek: partition {} of \"{}\", which has 0 to {}", partition, topic_name,
                                     topic->second->partitions.size() - 1));
  return *topic->second;
}

std::int64_t Hub::offset_at(std::string_view topic_name, std::int32_t partition, Timestamp time) {
  const std::lock_guard lock(mutex_);
  const auto& log = require_partition(topic_name, partition).partitions[static_cast<std::size_t>(partition)];
  for (const auto& segment : log.segments) {
    const auto found = std::ranges::find_if(segment->records, [time](const Record& record) { return record.timestamp >= time; });
    if (found != segment->records.end()) return std::max(log.first, segment->base + (found - segment->records.begin()));
  }
  return -2;
}

void Hub::seek(Member* member, const std::string& group_name, std::string_view topic_name, std::int32_t partition,
               std::int64_t offset) {
  const std::lock_guard lock(mutex_);
  auto& topic = require_partition(topic_name, partition);
  const auto group = topic.groups.find(group_name);
  const auto index = static_cast<std::size_t>(partition);
  if (group == topic.groups.end() || group->second.cursors[index].owner != member)
    throw MessagingError(errc::not_owned, fmt::format("seek: partition {} of \"{}\" is another member's", partition, topic_name));
  const auto& log = topic.partitions[index];
  auto& cursor = group->second.cursors[index];
  const auto place = offset == -1 ? log.first : offset == -2 ? log.next : std::clamp(offset, log.first, log.next);
  cursor.committed = cursor.next = place;
  cursor.due.clear();
  cursor.redeliveries.clear();
  member->wake();
}

std::vector<PartitionLag> Hub::lag(Member* member) {
  const std::lock_guard lock(mutex_);
  std::vector<PartitionLag> lags;
  for (const auto& [lane, place] : assigned_[member]) {
    const auto index = static_cast<std::size_t>(place.partition);
    lags.push_back({*place.topic->name, place.partition,
                    place.topic->partitions[index].next - place.group->cursors[index].committed});
  }
  std::ranges::sort(lags, {}, [](const PartitionLag& l) { return std::pair(std::string_view(l.topic), l.partition); });
  return lags;
}

std::vector<std::string> Hub::topics() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, topic] : topics_) names.push_back(name);
  return names;
}

TopicInfo Hub::describe(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto found = topics_.find(name);
  if (found == topics_.end())
    throw MessagingError(errc::topic_not_found, fmt::format("the topic \"{}\" does not exist", name));
  const auto& topic = *found->second;
  TopicInfo info;
  info.name = name;
  info.messages = topic.messages;
  for (std::size_t i = 0; i < topic.partitions.size(); ++i)
    info.partitions.push_back({static_cast<std::int32_t>(i), topic.partitions[i].first, topic.partitions[i].next});
  for (const auto& [group_name, group] : topic.groups) {
    if (group.is_private) continue;
    std::int64_t lag = 0;
    for (std::size_t i = 0; i < topic.partitions.size(); ++i)
      lag += topic.partitions[i].next - std::max(group.cursors[i].committed, topic.partitions[i].first);
    info.groups.push_back({group_name, group.members.size(), lag});
  }
  return info;
}

void Hub::create(const std::string& name, std::int32_t partitions) {
  const std::lock_guard lock(mutex_);
  if (topics_.find(name) != topics_.end())
    throw MessagingError(errc::already_exists, fmt::format("the topic \"{}\" exists", name));
  topic_for(name, partitions);
}

void Hub::remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto found = topics_.find(name);
  if (found == topics_.end())
    throw MessagingError(errc::topic_not_found, fmt::format("the topic \"{}\" does not exist", name));
  for (auto& [member, mine] : assigned_)
    boost::unordered::erase_if(mine, [&](const auto& entry) { return entry.second.topic == found->second.get(); });
  last_topic_ = nullptr;
  topics_.erase(found);
  ring_publishers();
}

std::int64_t Hub::purge(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto found = topics_.find(name);
  if (found == topics_.end())
    throw MessagingError(errc::topic_not_found, fmt::format("the topic \"{}\" does not exist", name));
  auto& topic = *found->second;
  const auto purged = topic.messages;
  for (auto& partition : topic.partitions) {
    partition.segments.clear();
    partition.first = partition.next;
  }
  for (auto& [group_name, group] : topic.groups)
    for (std::size_t i = 0; i < group.cursors.size(); ++i) {
      auto& cursor = group.cursors[i];
      cursor.committed = cursor.next = topic.partitions[i].next;
      cursor.due.clear();
      cursor.redeliveries.clear();
      settled(topic, group, static_cast<std::int32_t>(i));
    }
  topic.messages = topic.bytes = 0;
  ring_publishers();
  return purged;
}

}  // namespace maestro::messaging::memory

// A topic that is deleted and made again has another log under the same name, and librdkafka does not look at its id:
// it would go on in the middle of the new log.
#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <maestro/messaging/log.hpp>

#include "brokers/kafka/consumer.hpp"
#include "brokers/kafka/properties.hpp"

namespace maestro::messaging::kafka {

namespace asio = boost::asio;

namespace {
constexpr Duration look_limit = std::chrono::seconds(5);
constexpr Duration parting_look_limit = std::chrono::seconds(2);  // the group waits for it
constexpr Duration try_again = std::chrono::seconds(1);

/// A message that was in a partition's log, and whether that is still the one that is there; nothing when the broker did not say.
struct LookedAt {
  std::uint64_t lane;
  std::string topic;
  std::int32_t partition;
  Seen seen;
  std::optional<bool> is_same = {};
};

// Blocks.
void look_again(const Client& reader, std::vector<LookedAt>& all) {
  const auto places = make_partitions(all.size());
  for (const auto& each : all)
    rd_kafka_topic_partition_list_add(places.get(), each.topic.c_str(), each.partition)->offset = each.seen.offset;
  if (rd_kafka_assign(reader.get(), places.get())) return;
  const auto deadline = std::chrono::steady_clock::now() + parting_look_limit;
  const auto is_open = [](const LookedAt& each) { return !each.is_same; };
  while (std::ranges::any_of(all, is_open) && std::chrono::steady_clock::now() < deadline) {
    constexpr int wait_ms = 100;
    auto* message = rd_kafka_consumer_poll(reader.get(), wait_ms);
    if (!message) continue;
    const bool is_end = message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
    for (auto& each : all) {
      if (each.is_same || (message->err && !is_end) || !message->rkt) continue;
      if (each.partition != message->partition || each.topic != rd_kafka_topic_name(message->rkt)) continue;
      // A later one comes where a compaction took it away; an earlier one, or an end before it, where the log has no such place.
      if (is_end || message->offset != each.seen.offset) {
        each.is_same = message->offset > each.seen.offset;
      } else {
        each.is_same = Seen(*message) == each.seen;
      }
    }
    rd_kafka_message_destroy(message);
  }
}

}  // namespace

void Consumer::face_troubles() {
  for (const auto& [topic, partition, kind] : client_->troubles().take()) {
    for (const auto& [id, lane] : lanes_) {
      if (lane->topic != topic || lane->partition != partition.value_or(lane->partition)) continue;
      if (kind == Trouble::Kind::unknown_topic) {
        doubt(*lane);
      } else if (lane->log != Lane::Log::other) {
        begin_again(*lane, Cause::out_of_range);
      }
    }
  }
}

bool Consumer::is_doubted(const rd_kafka_message_t& message) {
  const auto* lane = lane_of(message);
  return lane && lane->log != Lane::Log::known;
}

// The last message is read once more: where it is another one, so is the log.
void Consumer::doubt(Lane& lane) {
  if (lane.log == Lane::Log::other) return;
  if (!lane.last().known()) {
    if (lane.offsets.committed() > 0) begin_again(lane, Cause::nothing_known);
    return;
  }
  lane.log = Lane::Log::doubted;
  lane.doubted_until = session_->clock->now() + look_limit;
  forget_stored(lane);
  if (!lane.draining) move_to(lane, lane.last().offset);
}

bool Consumer::is_of_its_log(Lane& lane, const rd_kafka_message_t& message) {
  const auto last = lane.last();
  if (lane.log == Lane::Log::other || message.offset < last.offset) return false;
  // A later one comes where a compaction took the last one away.
  if (message.offset == last.offset && last != Seen(message)) {
    begin_again(lane, Cause::other_message);
    return false;
  }
  lane.log = Lane::Log::known;
  return true;
}

void Consumer::begin_again(Lane& lane, Cause cause) {
  if (lane.draining && cause == Cause::nothing_known) return;  // the next member looks
  lane.log = Lane::Log::other;
  forget_stored(lane);
  if (lane.draining) return;
  asio::co_spawn(session_->executor, find_beginning(shared_from_this(), lane.id, cause), asio::detached);
}

awaitable<void> Consumer::find_beginning(std::shared_ptr<Consumer> self, std::uint64_t id, Cause cause) {
  struct Answer {
    ask::Range range;
    std::int64_t committed = -1;
  };
  const auto lane = [&]() -> Lane* {
    const auto found = self->lanes_.find(id);
    return self->closed_ || found == self->lanes_.end() ? nullptr : found->second.get();
  };
  std::optional<Answer> answer;
  for (;;) {
    const auto* at = lane();
    if (!at) co_return;
    std::function<std::optional<Answer>()> look = [client = self->client_, topic = at->topic, partition = at->partition,
                                                   in_group = !self->is_private()]() -> std::optional<Answer> {
      const auto asked = make_partitions(1);
      rd_kafka_topic_partition_list_add(asked.get(), topic.c_str(), partition);
      try {
        const auto range = ask::range(client->get(), topic, partition, look_limit);
        if (in_group)
          check(rd_kafka_committed(client->get(), asked.get(), milliseconds(look_limit)),
                "asking for the group's place");
        return Answer{range, asked->elems[0].offset};
      } catch (const MessagingError&) {  // it may not be there yet
        return std::nullopt;
      }
    };
    answer = co_await self->session_->blocking(std::move(look));
    if (answer) break;
    co_await self->changed_.wait_until(self->session_->clock->now() + try_again);
  }
  auto* old = lane();
  if (!old || old->draining) co_return;
  const auto position = std::max<std::int64_t>(old->offsets.position(), 0);
  const auto& [range, committed] = *answer;
  if (cause == Cause::nothing_known && committed >= 0) {  // a group's places go with the topic
    old->log = Lane::Log::known;
    self->move_to(*old, position);
    co_return;
  }
  const bool trimmed = cause == Cause::out_of_range && range.first > position;
  log(LogLevel::warning,
      trimmed ? "messages were gone before they were read; reading goes on where the log begins now"
              : "the topic was deleted and made again, or its log was cut off; it is read from its beginning",
      {{"broker", "kafka"},
       {"topic", old->topic},
       {"partition", std::to_string(old->partition)},
       {"group", self->request_.group.value_or("")},
       {"position", std::to_string(position)},
       {"log", fmt::format("{} to {}", range.first, range.next)}});
  if (trimmed) {
    old->log = Lane::Log::known;
    self->move_to(*old, range.first);
    co_return;
  }
  auto& fresh =
      self->add_lane(old->topic, old->partition, Offsets(range.first, std::max(committed, old->offsets.committed())));
  fresh.goes_back = true;
  self->move_to(fresh, range.first);
  self->mind_marks();
}

// Whoever gives a partition away says where the next one goes on. That must be no place of a log that is not there any more: where
// nothing was fetched for long the last message is read again, by a client of its own, for librdkafka fetches nothing during a
// rebalance; and a place that was committed of the old log is taken back.
awaitable<void> Consumer::ascertain_logs(std::shared_ptr<Consumer> self, const std::vector<std::uint64_t>& leaving,
                                         std::optional<TimePoint> paused_at) {
  if (self->closed_) co_return;
  if (self->client_->troubles().any()) self->face_troubles();
  const bool was_paused = paused_at && self->session_->clock->now() - *paused_at >= long_pause;
  const auto looked_at = std::make_shared<std::vector<LookedAt>>();
  for (auto* lane : self->still_here(leaving)) {
    if (lane->log == Lane::Log::known && was_paused && lane->last().known()) self->doubt(*lane);
    if (lane->log == Lane::Log::doubted) looked_at->push_back({lane->id, lane->topic, lane->partition, lane->last()});
  }
  if (!looked_at->empty()) {
    const auto name = fmt::format("maestro-look-{}", static_cast<const void*>(self.get()));
    const auto reader = std::make_shared<Client>(RD_KAFKA_CONSUMER, consumer_properties(*self->session_, name, true, false));
    std::function<bool()> look = [reader, looked_at] {
      look_again(*reader, *looked_at);
      return true;
    };
    co_await self->session_->blocking(std::move(look));
    for (const auto& each : *looked_at)
      if (const auto found = self->lanes_.find(each.lane); each.is_same && found != self->lanes_.end())
        found->second->log = *each.is_same ? Lane::Log::known : Lane::Log::other;
  }
  const std::shared_ptr<rd_kafka_topic_partition_list_t> places = make_partitions(leaving.size());
  for (const auto* lane : self->still_here(leaving))
    if (lane->log == Lane::Log::other) rd_kafka_topic_partition_list_add(places.get(), lane->topic.c_str(), lane->partition);
  if (self->closed_ || places->cnt == 0) co_return;
  std::function<bool()> take_back = [client = self->client_, places] {
    if (rd_kafka_committed(client->get(), places.get(), milliseconds(look_limit))) return false;
    const auto back = make_partitions(static_cast<std::size_t>(places->cnt));
    for (int i = 0; i < places->cnt; ++i) {
      const auto& each = places->elems[i];
      if (each.err || each.offset < 0) continue;  // a group's places go with the topic
      try {
        const auto begin = ask::range(client->get(), each.topic, each.partition, look_limit).first;
        if (each.offset > begin) rd_kafka_topic_partition_list_add(back.get(), each.topic, each.partition)->offset = begin;
      } catch (const MessagingError&) {  // the topic is not there: neither will its places be
      }
    }
    return back->cnt == 0 || !rd_kafka_commit(client->get(), back.get(), 0);
  };
  if (!co_await self->session_->blocking(std::move(take_back)))
    log(LogLevel::warning, "the place in a log that was replaced could not be taken back before its partition went",
        {{"broker", "kafka"}, {"topic", self->request_.topic}, {"group", self->request_.group.value_or("")}});
}

void Consumer::forget_stored(Lane& lane) {
  if (is_private()) return;
  const auto nothing = make_partitions(1);
  rd_kafka_topic_partition_list_add(nothing.get(), lane.topic.c_str(), lane.partition)->offset =
      RD_KAFKA_OFFSET_INVALID;
  rd_kafka_offsets_store(client_->get(), nothing.get());
  lane.stored = -1;
}

// Of no wait: what is in librdkafka's queue is out of date from this call on.
void Consumer::move_to(const Lane& lane, std::int64_t offset) {
  const auto where = make_partitions(1);
  rd_kafka_topic_partition_list_add(where.get(), lane.topic.c_str(), lane.partition)->offset = offset;
  const ErrorHandle ignored(rd_kafka_seek_partitions(client_->get(), where.get(), 0));
}

// librdkafka commits no place that is before the last one.
void Consumer::mind_doubts() {
  const auto now = session_->clock->now();
  for (const auto& [id, lane] : lanes_) {
    if (lane->log == Lane::Log::doubted && !lane->draining && now >= lane->doubted_until) doubt(*lane);
    if (!lane->goes_back) continue;
    lane->goes_back = lane->offsets.place() < lane->offsets.committed();
    if (lane->goes_back && steady_) send_commit();
  }
}

}  // namespace maestro::messaging::kafka

// A topic that is deleted and made again has another log under the same name, and librdkafka does not look at its id:
// it would go on in the middle of the new log.
#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <maestro/messaging/log.hpp>

#include "brokers/kafka/consumer.hpp"

namespace maestro::messaging::kafka {

namespace asio = boost::asio;

namespace {
constexpr Duration try_again = std::chrono::seconds(1);
}  // namespace

// Of a topic that is gone librdkafka stops reading all partitions when one of them tells.
void Consumer::face_troubles() {
  for (const auto& [topic, partition, kind] : client_->troubles().take()) {
    if (kind == Trouble::Kind::unknown_topic) {
      doubt_topic(topic);
      continue;
    }
    for (const auto& [id, lane] : lanes_)
      if (lane->topic == topic && lane->partition == partition && lane->log != Lane::Log::other) begin_again(*lane, Cause::out_of_range);
  }
}

void Consumer::forget_what_was_there(std::string_view topic) {
  if (!partitions_at_first_) return;
  if (const auto found = partitions_at_first_->find(topic); found != partitions_at_first_->end()) partitions_at_first_->erase(found);
}

void Consumer::doubt_topic(std::string_view topic) {
  forget_what_was_there(topic);
  for (const auto& [id, lane] : lanes_)
    if (lane->topic == topic) doubt(*lane);
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
  lane.doubted_in = batches_;
  forget_stored(lane);
  if (!lane.draining) move_to(lane, lane.last().offset);
}

bool Consumer::is_of_its_log(Lane& lane, const rd_kafka_message_t& message) {
  const auto last = lane.last();
  if (lane.log == Lane::Log::other || message.offset < last.offset) return false;
  // A later one comes where a compaction took the last one away.
  if (message.offset == last.offset && last != Landmark(message)) {
    begin_again(lane, Cause::other_message);
    return false;
  }
  trust(lane);
  return true;
}

void Consumer::trust(Lane& lane) {
  lane.log = Lane::Log::known;
  lane.offsets.base_is_true();
}

// Nobody hears of a topic that is deleted and made again while nothing is fetched of it, and what was written meanwhile may be
// more than there was.
void Consumer::doubt_all(const std::vector<Lane*>& lanes) {
  if (marks_.paused()) {
    fetch_paused_at_ = TimePoint::min();  // when it goes on
    return;
  }
  for (auto* lane : lanes)
    if (lane->last().known()) doubt(*lane);
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
    self->trust(*old);
    self->move_to(*old, position);
    co_return;
  }
  const auto sought = old->last().known() ? old->last().offset : position;
  const bool trimmed = cause == Cause::out_of_range && range.first > sought;
  if (trimmed && range.first <= position && position <= range.next) {  // the last message is gone, and no other
    self->trust(*old);
    self->move_to(*old, position);
    co_return;
  }
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
    self->trust(*old);
    self->move_to(*old, range.first);
    co_return;
  }
  auto& fresh =
      self->add_lane(old->topic, old->partition, Offsets(range.first, std::max(committed, old->offsets.committed())));
  fresh.goes_back = true;
  self->move_to(fresh, range.first);
  self->mind_marks();
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

#include "brokers/kafka/administration.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <future>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>
#include <map>
#include <set>

#include "brokers/kafka/failure.hpp"
#include "brokers/kafka/pattern.hpp"
#include "core/size_limit.hpp"

namespace maestro::messaging::kafka {
namespace ask {
namespace {

MetadataHandle metadata(const Client& client, rd_kafka_topic_t* only, Duration limit) {
  const rd_kafka_metadata_t* found = nullptr;
  check(rd_kafka_metadata(client.get(), only ? 0 : 1, only, &found, milliseconds(limit)), "asking for the topics");
  return MetadataHandle(found);
}

[[noreturn]] void fail_unknown(rd_kafka_resp_err_t error, std::string_view what, std::string_view text = {}) {
  throw MessagingError(errc::outcome_unknown, describe(error, what, text).detail);
}

/// An admin request and its answer.
class Request {
 public:
  Request(const Client& client, rd_kafka_admin_op_t operation, Duration limit)
      : limit_(milliseconds(limit)),
        changes_(operation == RD_KAFKA_ADMIN_OP_CREATETOPICS || operation == RD_KAFKA_ADMIN_OP_DELETETOPICS ||
                 operation == RD_KAFKA_ADMIN_OP_DELETERECORDS),
        options_(rd_kafka_AdminOptions_new(client.get(), operation)),
        queue_(rd_kafka_queue_new(client.get())) {
    char text[256];
    rd_kafka_AdminOptions_set_request_timeout(options_.get(), limit_, text, sizeof text);
    if (changes_) rd_kafka_AdminOptions_set_operation_timeout(options_.get(), limit_, text, sizeof text);
  }

  [[nodiscard]] const rd_kafka_AdminOptions_t* options() const { return options_.get(); }
  [[nodiscard]] rd_kafka_queue_t* queue() const { return queue_.get(); }

  /// Throws `outcome_unknown` of a change that was sent, and whose answer did not come.
  EventHandle answer(std::string_view what) {
    EventHandle event(rd_kafka_queue_poll(queue_.get(), limit_ + 1000));
    const auto error = event ? rd_kafka_event_error(event.get()) : RD_KAFKA_RESP_ERR__TIMED_OUT;
    if (!error) return event;
    const std::string_view text = event ? rd_kafka_event_error_string(event.get()) : "";
    // So librdkafka tells how far it came, from 1.0 to 2.15 at least.
    const bool is_sent = !event || text.find("waiting for response") != std::string_view::npos;
    if (changes_ && is_sent) fail_unknown(error, what, text);
    fail(error, what, text);
  }

 private:
  int limit_;
  bool changes_;
  AdminOptionsHandle options_;
  QueueHandle queue_;
};

void check_topic_result(const rd_kafka_topic_result_t* result, std::string_view what) {
  if (const auto error = rd_kafka_topic_result_error(result)) {
    const auto* text = rd_kafka_topic_result_error_string(result);
    if (error == RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT) fail_unknown(error, what, text ? text : "");
    fail(error, what, text ? text : "");
  }
}

/// A number among a topic's settings; none where it is not told.
std::optional<std::int64_t> setting(const Client& client, const std::string& topic, std::string_view name,
                                    Duration limit) {
  const ConfigResourceHandle asked(rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic.c_str()));
  Request request(client, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, limit);
  rd_kafka_ConfigResource_t* one[] = {asked.get()};
  rd_kafka_DescribeConfigs(client.get(), one, 1, request.options(), request.queue());
  const auto answer = request.answer("asking for the topic's settings");
  std::size_t count = 0;
  const auto* const* resources =
      rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(answer.get()), &count);
  if (count == 0) return std::nullopt;
  check(rd_kafka_ConfigResource_error(resources[0]), fmt::format("the settings of the topic \"{}\"", topic));
  const auto* const* entries = rd_kafka_ConfigResource_configs(resources[0], &count);
  for (std::size_t i = 0; i < count; ++i) {
    if (std::string_view(rd_kafka_ConfigEntry_name(entries[i])) != name) continue;
    const auto* value = rd_kafka_ConfigEntry_value(entries[i]);
    const std::string_view text = value ? value : "";
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return number;
  }
  return std::nullopt;
}

std::optional<std::int64_t> min_insync_replicas(const Client& client, const std::string& topic, Duration limit) try {
  return setting(client, topic, "min.insync.replicas", limit);
} catch (const MessagingError&) {  // not everyone may read them
  return std::nullopt;
}

std::vector<GroupInfo> groups_of(const Client& client, const TopicInfo& topic, Duration limit) {
  Request list(client, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, limit);
  rd_kafka_ListConsumerGroups(client.get(), list.options(), list.queue());
  const auto listed = list.answer("listing the groups");
  std::size_t count = 0;
  const auto* found = rd_kafka_ListConsumerGroups_result_valid(rd_kafka_event_ListConsumerGroups_result(listed.get()), &count);
  std::vector<GroupInfo> groups;
  std::set<std::string> names;  // a broker may list one twice, and two of them the same
  for (std::size_t i = 0; i < count; ++i) names.emplace(rd_kafka_ConsumerGroupListing_group_id(found[i]));
  for (const auto& name : names) {
    Request request(client, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, limit);
    auto partitions = make_partitions(topic.partitions.size());
    for (const auto& each : topic.partitions)
      rd_kafka_topic_partition_list_add(partitions.get(), topic.name.c_str(), each.partition);
    const GroupOffsetsHandle asked(rd_kafka_ListConsumerGroupOffsets_new(name.c_str(), partitions.get()));
    rd_kafka_ListConsumerGroupOffsets_t* one[] = {asked.get()};
    rd_kafka_ListConsumerGroupOffsets(client.get(), one, 1, request.options(), request.queue());
    const auto answer = request.answer(fmt::format("asking for the place of group \"{}\"", name));
    const auto* result = rd_kafka_event_ListConsumerGroupOffsets_result(answer.get());
    const auto* const* places = rd_kafka_ListConsumerGroupOffsets_result_groups(result, &count);
    GroupInfo info;
    info.group = name;
    bool has_place = false;
    for (std::size_t i = 0; i < count; ++i) {
      const auto* offsets = rd_kafka_group_result_partitions(places[i]);
      for (int k = 0; offsets && k < offsets->cnt; ++k) {
        const auto& each = offsets->elems[k];
        const auto partition = std::ranges::find(topic.partitions, each.partition, &PartitionInfo::partition);
        if (partition == topic.partitions.end()) continue;
        has_place |= each.offset >= 0;
        info.lag += partition->next - std::clamp(each.offset, partition->first, partition->next);
      }
    }
    if (has_place) groups.push_back(std::move(info));
  }
  if (groups.empty()) return groups;
  std::vector<const char*> wanted;
  for (const auto& each : groups) wanted.push_back(each.group.c_str());
  Request request(client, RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, limit);
  rd_kafka_DescribeConsumerGroups(client.get(), wanted.data(), wanted.size(), request.options(), request.queue());
  const auto answer = request.answer("describing the groups");
  const auto* const* described =
      rd_kafka_DescribeConsumerGroups_result_groups(rd_kafka_event_DescribeConsumerGroups_result(answer.get()), &count);
  for (std::size_t i = 0; i < count; ++i)
    for (auto& each : groups)
      if (each.group == rd_kafka_ConsumerGroupDescription_group_id(described[i]))
        each.members = rd_kafka_ConsumerGroupDescription_member_count(described[i]);
  return groups;
}

}  // namespace

std::vector<Topic> topics(const Client& client, Duration limit) {
  const auto found = metadata(client, nullptr, limit);
  std::vector<Topic> all;
  for (int i = 0; i < found->topic_cnt; ++i) {
    const auto& each = found->topics[i];
    all.push_back({each.topic, each.partition_cnt, each.err});
    for (const auto& partition : std::span(each.partitions, static_cast<std::size_t>(each.partition_cnt)))
      all.back().leaders.push_back(partition.leader);
  }
  std::ranges::sort(all, {}, &Topic::name);
  return all;
}

std::vector<Topic> topics(const Client& client, std::string_view wanted, Duration limit) {
  auto found = topics(client, limit);
  std::erase_if(found, [&](const Topic& topic) { return topic.error || !stands_for(wanted, topic.name); });
  return found;
}

std::map<std::string, std::string> configuration_for(std::int64_t max_message_bytes) {
  constexpr std::int64_t brokers_default = 1'048'588;
  // With what a batch adds to it.
  const auto room = max_message_bytes + static_cast<std::int64_t>(dead_letter_room) + 4096;
  if (room <= brokers_default) return {};
  return {{"max.message.bytes", std::to_string(room)}};
}

bool create_topic(const Client& client, const std::string& topic, std::int32_t partitions,
                  const std::map<std::string, std::string>& configuration, Duration limit) {
  constexpr int cluster_default = -1;
  char text[256];
  const NewTopicHandle wanted(rd_kafka_NewTopic_new(topic.c_str(), partitions, cluster_default, text, sizeof text));
  if (!wanted) throw MessagingError(errc::invalid_argument, fmt::format("creating the topic \"{}\": {}", topic, text));
  for (const auto& [name, value] : configuration) rd_kafka_NewTopic_set_config(wanted.get(), name.c_str(), value.c_str());
  Request request(client, RD_KAFKA_ADMIN_OP_CREATETOPICS, limit);
  rd_kafka_NewTopic_t* one[] = {wanted.get()};
  rd_kafka_CreateTopics(client.get(), one, 1, request.options(), request.queue());
  const auto what = fmt::format("creating the topic \"{}\"", topic);
  const auto answer = request.answer(what);
  std::size_t count = 0;
  const auto* const* results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(answer.get()), &count);
  for (std::size_t i = 0; i < count; ++i) {
    if (rd_kafka_topic_result_error(results[i]) == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) return false;
    check_topic_result(results[i], what);
  }
  return true;
}

bool exists(const Client& client, const std::string& topic, Duration limit) {
  return std::ranges::any_of(topics(client, limit), [&](const auto& each) { return each.name == topic; });
}

namespace {

// A broker tells who leads a partition before it leads it, and refuses messages in between. One that is away is not waited for:
// others may be there.
void await_service(const Client& client, const std::string& topic, std::int32_t partitions) {
  const Pause pause(client.get());
  constexpr int limit = 500;
  constexpr int between = 20;
  // Of some versions the error is one of a partition, of others each has its own.
  const auto is_early = [](rd_kafka_resp_err_t error) {
    return error == RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION || is_of_topic(error);
  };
  for (int left = limit; left > 0; left -= between) {
    const auto asked = make_partitions(static_cast<std::size_t>(partitions));
    for (std::int32_t i = 0; i < partitions; ++i)
      rd_kafka_topic_partition_list_add(asked.get(), topic.c_str(), i)->offset = latest;
    const auto error = rd_kafka_offsets_for_times(client.get(), asked.get(), left);
    const std::span each(asked->elems, static_cast<std::size_t>(asked->cnt));
    if (error ? !is_early(error) : std::ranges::none_of(each, is_early, &rd_kafka_topic_partition_t::err)) return;
    pause.wait(between);
  }
}

}  // namespace

std::int32_t await_leaders(const Client& client, const std::string& topic, Duration limit, Duration unknown_limit) {
  const TopicHandle handle(rd_kafka_topic_new(client.get(), topic.c_str(), nullptr));
  const Pause pause(client.get());
  constexpr int between = 50;
  auto error = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
  const int all = std::max(milliseconds(limit), 1);
  for (int left = all; left > 0; left -= between) {
    const auto found = metadata(client, handle.get(), std::chrono::milliseconds(std::max(left, 1000)));
    for (int i = 0; i < found->topic_cnt; ++i) {
      const auto& each = found->topics[i];
      error = each.err;
      for (int k = 0; !error && k < each.partition_cnt; ++k)
        if (each.partitions[k].leader < 0) error = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
      if (!error && each.partition_cnt > 0) {
        await_service(client, topic, each.partition_cnt);
        return each.partition_cnt;
      }
    }
    const bool unknown = error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    if (unknown ? all - left >= milliseconds(unknown_limit) : error != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) break;
    pause.wait(between);
  }
  fail(error, fmt::format("the topic \"{}\"", topic));
}

std::optional<std::int64_t> max_message_bytes(const Client& client, const std::string& topic, Duration limit) {
  const Pause pause(client.get());
  constexpr int most_tries = 5;
  constexpr int between = 50;
  for (int tries = 1;; ++tries) {
    try {
      return setting(client, topic, "max.message.bytes", limit);
    } catch (const MessagingError& failure) {
      // A broker that has not heard of a new topic yet will soon. Not everyone may read its settings.
      if (failure.reason() != errc::topic_not_found || tries == most_tries) return std::nullopt;
    }
    pause.wait(between);
  }
}

Hindrance hindrance(const Client& client, const std::string& topic, Duration limit) try {
  const TopicHandle handle(rd_kafka_topic_new(client.get(), topic.c_str(), nullptr));
  const auto found = metadata(client, handle.get(), limit);
  if (found->topic_cnt == 0 || found->topics[0].err) return {};
  const std::span partitions(found->topics[0].partitions, static_cast<std::size_t>(found->topics[0].partition_cnt));
  const auto* fewest = static_cast<const rd_kafka_metadata_partition_t*>(nullptr);
  for (const auto& each : partitions) {
    if (each.leader < 0)
      return {fmt::format("its partition {} has no leader: bring back one of the brokers that have it", each.id), true};
    if (each.isr_cnt < each.replica_cnt && (!fewest || each.isr_cnt < fewest->isr_cnt)) fewest = &each;
  }
  if (!fewest) return {};
  const auto wanted = min_insync_replicas(client, topic, limit);
  if (wanted && fewest->isr_cnt >= *wanted) return {};
  return {fmt::format("its partition {} has {} of {} replicas in sync, and min.insync.replicas is {}: bring the "
                      "missing brokers back, or lower the topic's min.insync.replicas",
                      fewest->id, fewest->isr_cnt, fewest->replica_cnt, wanted ? std::to_string(*wanted) : "not known"),
          wanted.has_value()};
} catch (const MessagingError&) {
  return {};
}

namespace {

// A broker that has not heard of it yet would acknowledge what goes with the topic. One that others make again at once is not
// waited for.
void await_absence(const Client& client, const std::string& topic, Duration limit) try {
  const Pause pause(client.get());
  constexpr int most = 1000;
  constexpr int between = 20;
  for (int waited = 0; waited < most && exists(client, topic, limit); waited += between) pause.wait(between);
} catch (const MessagingError&) {  // it is deleted all the same
}

}  // namespace

void delete_topic(const Client& client, const std::string& topic, Duration limit) {
  const DeleteTopicHandle wanted(rd_kafka_DeleteTopic_new(topic.c_str()));
  Request request(client, RD_KAFKA_ADMIN_OP_DELETETOPICS, limit);
  rd_kafka_DeleteTopic_t* one[] = {wanted.get()};
  rd_kafka_DeleteTopics(client.get(), one, 1, request.options(), request.queue());
  const auto what = fmt::format("deleting the topic \"{}\"", topic);
  const auto answer = request.answer(what);
  std::size_t count = 0;
  const auto* const* results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(answer.get()), &count);
  for (std::size_t i = 0; i < count; ++i) check_topic_result(results[i], what);
  await_absence(client, topic, limit);
}

namespace {

/// The same as `offset_for`, of each of these partitions.
std::vector<std::pair<rd_kafka_resp_err_t, std::int64_t>> offsets_for(rd_kafka_t* client, std::span<const PartitionRange* const> partitions,
                                                                      std::int64_t time, int limit) {
  const auto asked = make_partitions(partitions.size());
  for (const auto* each : partitions)
    rd_kafka_topic_partition_list_add(asked.get(), each->topic.c_str(), each->partition)->offset = time;
  const auto error = rd_kafka_offsets_for_times(client, asked.get(), limit);
  std::vector<std::pair<rd_kafka_resp_err_t, std::int64_t>> offsets;
  for (const auto& each : std::span(asked->elems, partitions.size())) offsets.emplace_back(error ? error : each.err, each.offset);
  return offsets;
}

}  // namespace

std::pair<rd_kafka_resp_err_t, std::int64_t> offset_for(rd_kafka_t* client, const std::string& topic, std::int32_t partition,
                                                        std::int64_t time, Duration limit) {
  const PartitionRange one{topic, partition};
  const PartitionRange* const asked[] = {&one};
  return offsets_for(client, asked, time, milliseconds(limit)).front();
}

// A partition may just have got its leader, or another one: what will mend by itself is asked again.
// rd_kafka_query_watermark_offsets() keeps to no limit where the leader is away (2.0.2: some minutes). Both ends at once, as it
// asks too: an answer may have to wait until a fetch is over.
void find_ranges(rd_kafka_t* client, std::vector<PartitionRange>& partitions, Duration limit) {
  std::vector<PartitionRange*> open;
  for (auto& each : partitions) open.push_back(&each);
  const Pause pause(client);
  constexpr int between = 50;
  for (int left = std::max(milliseconds(limit), 1); left > 0; left -= between) {
    const std::vector<const PartitionRange*> asked(open.begin(), open.end());
    auto ends = std::async(std::launch::async, offsets_for, client, std::span(asked), latest, left);
    const auto first = offsets_for(client, asked, earliest, left);
    const auto next = ends.get();
    for (std::size_t i = 0; i < open.size(); ++i) {
      open[i]->error = first[i].first ? first[i].first : next[i].first;
      open[i]->range = {first[i].second, next[i].second};
    }
    std::erase_if(open, [](const PartitionRange* each) {
      return !is_transient(each->error) || each->error == RD_KAFKA_RESP_ERR__TIMED_OUT;
    });
    if (open.empty()) return;
    pause.wait(between);
  }
}

Range range(rd_kafka_t* client, const std::string& topic, std::int32_t partition, Duration limit) {
  std::vector<PartitionRange> one{{topic, partition}};
  find_ranges(client, one, limit);
  check(one[0].error, fmt::format("asking for the range of \"{}\"/{}", topic, partition));
  return one[0].range;
}

std::int64_t offset_at(rd_kafka_t* client, const std::string& topic, std::int32_t partition, Timestamp time, Duration limit) {
  const auto since_epoch = std::chrono::ceil<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const auto [error, offset] = offset_for(client, topic, partition, since_epoch, limit);
  check(error, fmt::format("looking for a time in \"{}\"/{}", topic, partition));
  constexpr std::int64_t end = -2;
  return offset < 0 ? end : offset;
}

TopicInfo describe_topic(const Client& client, const std::string& topic, Duration limit) {
  // Of all topics: asked about one that is missing, some clusters would make it.
  const auto all = topics(client, limit);
  const auto found = std::ranges::find(all, topic, &Topic::name);
  if (found == all.end()) throw MessagingError(errc::topic_not_found, fmt::format("the topic \"{}\" does not exist", topic));
  TopicInfo info;
  info.name = topic;
  for (std::int32_t i = 0; i < found->partitions; ++i) {
    const auto kept = range(client.get(), topic, i, limit);
    info.partitions.push_back({i, kept.first, kept.next});
    info.messages += kept.next - kept.first;
  }
  info.groups = groups_of(client, info, limit);
  return info;
}

std::int64_t purge_topic(const Client& client, const std::string& topic, Duration limit) {
  const auto all = topics(client, limit);
  const auto found = std::ranges::find(all, topic, &Topic::name);
  if (found == all.end()) throw MessagingError(errc::topic_not_found, fmt::format("the topic \"{}\" does not exist", topic));
  auto before = make_partitions(static_cast<std::size_t>(found->partitions));
  std::int64_t purged = 0;
  for (std::int32_t i = 0; i < found->partitions; ++i) {
    const auto kept = range(client.get(), topic, i, limit);
    if (kept.next == kept.first) continue;
    purged += kept.next - kept.first;
    rd_kafka_topic_partition_list_add(before.get(), topic.c_str(), i)->offset = kept.next;
  }
  if (purged == 0) return 0;
  const DeleteRecordsHandle wanted(rd_kafka_DeleteRecords_new(before.get()));
  Request request(client, RD_KAFKA_ADMIN_OP_DELETERECORDS, limit);
  rd_kafka_DeleteRecords_t* one[] = {wanted.get()};
  rd_kafka_DeleteRecords(client.get(), one, 1, request.options(), request.queue());
  const auto what = fmt::format("purging the topic \"{}\"", topic);
  const auto answer = request.answer(what);
  const auto* results = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(answer.get()));
  for (int i = 0; i < results->cnt; ++i) check(results->elems[i].err, what);
  return purged;
}

}  // namespace ask

awaitable<void> Topics::ensure(std::shared_ptr<Client> client, std::string topic, Duration limit) {
  if (knows(topic)) co_return;
  check_topic_name(topic);
  const bool create = creates();
  const auto partitions = static_cast<std::int32_t>(session_->options.integer("auto_create_partitions"));
  const auto configuration = ask::configuration_for(session_->options.integer("max_message_bytes"));
  struct Found {
    bool made = false;
    std::int32_t partitions = 0;
    std::optional<std::int64_t> max_message_bytes;
  };
  std::function<Found()> work = [client, topic, create, partitions, configuration, limit] {
    constexpr Duration to_tell = std::chrono::seconds(2);  // a topic's settings, without which it can be used too
    constexpr Duration to_spread =
        std::chrono::seconds(2);  // until every broker knows a topic that somebody has just made
    bool made = false;
    for (auto left = limit;; left -= to_spread) {
      // Only a topic that is missing needs the controller, which may be away.
      if (create && !ask::exists(*client, topic, left)) {
        try {
          made |= ask::create_topic(*client, topic, partitions, configuration, left);
        } catch (const MessagingError& failure) {
          if (failure.outcome_unknown())
            throw MessagingError(errc::timed_out,
                                 fmt::format("what needs the topic \"{}\" did not begin, and it is not known whether the topic was made: {}",
                                             topic, failure.detail()));
          // Who may not create topics may still use those that others made.
          if (failure.reason() != errc::authentication_failed) throw;
        }
      }
      try {
        const auto there = ask::await_leaders(*client, topic, left, std::min(left, to_spread));
        return Found{made, there, ask::max_message_bytes(*client, topic, std::min(left, to_tell))};
      } catch (const MessagingError& failure) {
        // One that was being deleted when we looked has to be made again.
        if (!create || failure.reason() != errc::topic_not_found || left <= to_spread) throw;
      }
    }
  };
  const auto found = co_await session_->blocking(std::move(work));
  if (found.made)
    log(LogLevel::info, "created a topic", {{"broker", "kafka"}, {"topic", topic}, {"partitions", std::to_string(partitions)}});
  if (found.max_message_bytes) max_message_bytes_.insert_or_assign(topic, *found.max_message_bytes);
  known_.insert_or_assign(std::move(topic), found.partitions);
}

std::optional<std::int64_t> Topics::max_message_bytes(const std::string& topic) const {
  const auto found = max_message_bytes_.find(topic);
  return found == max_message_bytes_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace maestro::messaging::kafka

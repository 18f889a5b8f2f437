#pragma once

#include <maestro/messaging/transport.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "brokers/kafka/client.hpp"
#include "brokers/kafka/failure.hpp"

namespace maestro::messaging::kafka {

/// What the cluster is asked about its topics. All of it blocks: for `Session::blocking`.
namespace ask {

struct Topic {
  std::string name;
  std::int32_t partitions = 0;
  rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
  std::vector<std::int32_t> leaders = {};  // by partition; -1 where there is none
};

std::vector<Topic> topics(const Client& client, Duration limit);
/// Those that a subscription to `wanted`, a name or a pattern, can read.
std::vector<Topic> topics(const Client& client, std::string_view wanted, Duration limit);
/// What was asked for may be there already: then it is left as it is, and the result is false.
bool create_topic(const Client& client, const std::string& topic, std::int32_t partitions,
                  const std::map<std::string, std::string>& configuration, Duration limit);
/// What a topic has to be told so that it takes what the library may send.
std::map<std::string, std::string> configuration_for(std::int64_t max_message_bytes);
/// Asks for all topics: asked about one that is missing, some clusters would make it.
bool exists(const Client& client, const std::string& topic, Duration limit);
/// Until every partition of the topic has a leader, and that one serves it. A topic that is unknown for `unknown_limit` is missing.
/// Returns how many partitions there are. Throws `topic_not_found | connection_failed | …`.
std::int32_t await_leaders(const Client& client, const std::string& topic, Duration limit, Duration unknown_limit);
/// The topic's limit for a batch of messages, as it is stored; none where it is not told.
std::optional<std::int64_t> max_message_bytes(const Client& client, const std::string& topic, Duration limit);
/// What keeps a topic from taking messages, and what to do about it; empty when nothing does, or nobody answers.
Hindrance hindrance(const Client& client, const std::string& topic, Duration limit);
void delete_topic(const Client& client, const std::string& topic, Duration limit);
std::int64_t purge_topic(const Client& client, const std::string& topic, Duration limit);
TopicInfo describe_topic(const Client& client, const std::string& topic, Duration limit);

/// What has a time, in milliseconds, in one partition, by librdkafka's ListOffsets; these two stand for its ends.
inline constexpr std::int64_t earliest = -2;
inline constexpr std::int64_t latest = -1;
std::pair<rd_kafka_resp_err_t, std::int64_t> offset_for(rd_kafka_t* client, const std::string& topic, std::int32_t partition,
                                                        std::int64_t time, Duration limit);

struct Range {
  std::int64_t first = 0;
  std::int64_t next = 0;
};
Range range(rd_kafka_t* client, const std::string& topic, std::int32_t partition, Duration limit);
/// The same of all these partitions, which have one leader, for none of which it is asked longer than for one.
struct PartitionRange {
  std::string topic;
  std::int32_t partition = 0;
  Range range = {};
  rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
};
void find_ranges(rd_kafka_t* client, std::vector<PartitionRange>& partitions, Duration limit);

/// The first offset that is not older than `time`; -2 where there is none.
std::int64_t offset_at(rd_kafka_t* client, const std::string& topic, std::int32_t partition, Timestamp time, Duration limit);

}  // namespace ask

/// The topics that are known to exist. One that is missing is made where the options allow it.
class Topics {
 public:
  Topics(std::shared_ptr<Session> session) : session_(std::move(session)) {}

  [[nodiscard]] bool knows(const std::string& topic) const { return known_.contains(topic); }
  /// How many the topic had when it was looked for; 0 when it was not.
  [[nodiscard]] std::int32_t partitions(const std::string& topic) const {
    const auto found = known_.find(topic);
    return found == known_.end() ? 0 : found->second;
  }
  void forget(const std::string& topic) {
    known_.erase(topic);
    max_message_bytes_.erase(topic);
  }
  /// Throws `invalid_topic | topic_not_found | …`.
  awaitable<void> ensure(std::shared_ptr<Client> client, std::string topic, Duration limit);
  /// The topic's limit for a batch of messages, as it was told last; none where it was not.
  [[nodiscard]] std::optional<std::int64_t> max_message_bytes(const std::string& topic) const;
  [[nodiscard]] bool creates() const { return session_->options.boolean("auto_create_topics"); }

 private:
  std::shared_ptr<Session> session_;
  std::map<std::string, std::int32_t, std::less<>> known_;  // how many partitions
  std::map<std::string, std::int64_t, std::less<>> max_message_bytes_;
};

}  // namespace maestro::messaging::kafka

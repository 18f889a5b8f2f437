#pragma once

#include <maestro/messaging/transport.hpp>
#include <string>

#include "brokers/kafka/handles.hpp"
#include "brokers/kafka/session.hpp"

namespace maestro::messaging::kafka {

/// The addresses of a connection string: `host:port[,host:port]`, bare or behind `kafka://`. Throws `invalid_option`.
[[nodiscard]] std::string servers_of(const std::string& connection_string);

/// How long librdkafka tries to deliver a message. Its answer says whether the broker may have it, and so it has to
/// come before `publish_timeout`; it looks once a second.
[[nodiscard]] Duration message_timeout(const Options& options);

/// What an acknowledged publish has survived, and whether the idempotent producer keeps the order of publishes under
/// way: `raw.` options may ask for less than the library does.
struct Acknowledged {
  std::string means;
  bool in_order = true;
};
[[nodiscard]] Acknowledged acknowledged(const Session& session);

/// Whether the producer chooses the partitions of messages without a key itself: not where a `raw.` option says how.
[[nodiscard]] bool spreads(const Options& options);

/// librdkafka's configuration for what the options say. Throws `unknown_option | invalid_option` that names the key.
[[nodiscard]] ConfHandle producer_properties(const Session& session);
/// A producer's batches are no larger than `limit`, but for one of a single message that is.
void limit_batches(rd_kafka_conf_t& properties, std::int64_t limit);
/// How large its batches may become, but for one of a single message that is larger.
[[nodiscard]] std::int64_t largest_batch(const rd_kafka_conf_t& properties);
/// Whether the answer to a publish says where the message is: not where the broker does not answer (acks=0).
[[nodiscard]] bool tells_places(const rd_kafka_conf_t& properties);
[[nodiscard]] ConfHandle transactional_properties(const Session& session, const std::string& transactional_id);
/// The name of a static member: of one program each subscription has one of its own, the same whenever it starts.
[[nodiscard]] std::string member_name(const std::string& group_instance_id, const std::string& topic);
/// `group` is the group's name, or one of its own for a private reader.
[[nodiscard]] ConfHandle consumer_properties(const Session& session, const std::string& group, const SubscribeRequest& request);

}  // namespace maestro::messaging::kafka

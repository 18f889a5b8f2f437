#pragma once

#include <maestro/messaging/message.hpp>

#include "brokers/kafka/handles.hpp"

namespace maestro::messaging::kafka {

/// Puts a message into librdkafka's queue, which copies it. `opaque` comes back with its delivery report.
[[nodiscard]] rd_kafka_resp_err_t give(rd_kafka_t* client, rd_kafka_topic_t* topic, const OutgoingMessage& message, void* opaque);

}  // namespace maestro::messaging::kafka

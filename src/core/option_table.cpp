#include <fmt/format.h>

#include <maestro/messaging/config.hpp>

namespace maestro::messaging {

std::span<const OptionSpec> option_table() {
  using enum OptionType;
  using enum OptionGroup;
  static const std::vector<BrokerType> any;
  static const std::vector<BrokerType> memory_only{BrokerType::memory};
  static const std::vector<BrokerType> kafka_only{BrokerType::kafka};
  static const std::vector<BrokerType> redis_only{BrokerType::redis};
  static const std::vector<BrokerType> with_tls{BrokerType::kafka, BrokerType::redis};
  static const std::vector<BrokerType> in_partitions{BrokerType::memory, BrokerType::kafka};
  // clang-format off: a row of the table is two lines here, and eight if it were formatted
  static const std::vector<OptionSpec> table{
      // connection
      {"client_id", connection, name, "", "", any, {}, 0, 0, "KAFKA_CLIENT_ID",
       "How this program names itself: to the broker, as the source of its events, and as the group of an EventConsumer where there is no group_id."},
      {"group_id", connection, name, "", "", any, {}, 0, 0, "KAFKA_GROUP_ID",
       "The group of an EventConsumer that names none."},
      {"auto_offset_reset", connection, text, "earliest", "", any, {"earliest", "latest"}, 0, 0, "",
       "Where a new group, or a subscriber without one, starts."},
      {"connect_timeout", connection, duration, "10000", "ms", any, {}, 1, 3'600'000, "",
       "How long connect() may take before it fails."},
      {"partitions", connection, integer, "6", "", memory_only, {}, 1, 65'535, "",
       "Partitions of a topic that is made on the fly."},
      {"max_messages", connection, integer, "10000000", "messages", memory_only, {}, 1, 1e12, "",
       "What a topic holds at most; then what every group has acknowledged goes, and publishers wait."},
      {"max_bytes", connection, integer, "1073741824", "bytes", memory_only, {}, 1, 1e15, "",
       "The same in bytes of payload, key and headers."},
      {"rebalance_timeout", connection, duration, "30000", "ms", in_partitions, {}, 1, 3'600'000, "",
       "How long a member may hold unsettled messages of a partition that is to move to another."},
      {"fault_seed", connection, integer, "0", "", memory_only, {}, 0, 9e18, "", "The seed of the injected faults."},
      {"fault_publish_failure", connection, number, "0", "probability", memory_only, {}, 0, 1, "",
       "A publish meets a broken connection; surely not done."},
      {"fault_publish_unknown", connection, number, "0", "probability", memory_only, {}, 0, 1, "",
       "The answer to a publish gets lost; half of them are stored."},
      {"fault_disconnect", connection, number, "0", "probability", memory_only, {}, 0, 1, "",
       "A subscription loses its connection: what it has not settled is delivered again."},
      {"fault_duplicate", connection, number, "0", "probability", memory_only, {}, 0, 1, "", "A message is delivered twice."},
      {"fault_delay", connection, number, "0", "probability", memory_only, {}, 0, 1, "",
       "A partition's deliveries are held back for a while."},
      {"fault_delay_max", connection, duration, "100", "ms", memory_only, {}, 1, 3'600'000, "",
       "How long they are held back at most."},
      {"security_protocol", connection, text, "PLAINTEXT", "", kafka_only,
       {"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}, 0, 0, "", "How the connection is secured."},
      {"sasl_mechanism", connection, text, "", "", kafka_only, {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}, 0, 0, "",
       "How the client proves who it is, where security_protocol is SASL_PLAINTEXT or SASL_SSL; else a login is refused as a contradiction. With Kafka 3.7.2, 3.8.1, 3.9 and newer SCRAM takes librdkafka 2.6.1 or newer (Debian 12 has 2.0.2)."},
      {"sasl_username", connection, text, "", "", kafka_only, {}, 0, 0, "", "The user's name."},
      {"sasl_password", connection, text, "", "", kafka_only, {}, 0, 0, "KAFKA_SASL_PASSWORD", "The user's password. librdkafka takes none that begins with white space.", true},
      {"ssl_ca_location", connection, text, "", "", with_tls, {}, 0, 0, "",
       "The file with the certificates of the authorities that are trusted; absent: the system's."},
      {"ssl_certificate_location", connection, text, "", "", with_tls, {}, 0, 0, "", "The file with the client's certificate."},
      {"ssl_key_location", connection, text, "", "", with_tls, {}, 0, 0, "", "The file with the client's private key."},
      {"ssl_key_password", connection, text, "", "", with_tls, {}, 0, 0, "KAFKA_SSL_KEY_PASSWORD", "The password of the private key.", true},
      {"ssl_insecure_skip_verification", connection, boolean, "false", "", with_tls, {}, 0, 0, "",
       "Takes any certificate for any host name: for trials only."},
      {"auto_create_topics", connection, boolean, "true", "", kafka_only, {}, 0, 0, "",
       "A topic that is missing is made, with the cluster's own replication; else publishing to it is an error."},
      {"auto_create_partitions", connection, integer, "6", "", kafka_only, {}, 1, 100'000, "",
       "Partitions of a topic that is made so."},
      {"database", connection, integer, "0", "", redis_only, {}, 0, 1e9, "REDIS_DB",
       "The number of the database, where the connection string names none."},
      {"username", connection, text, "", "", redis_only, {}, 0, 0, "", "The user's name (ACL), where the connection string has none."},
      {"password", connection, text, "", "", redis_only, {}, 0, 0, "REDIS_PASSWORD",
       "The user's password, where the connection string has none.", true},
      {"pool_size", connection, integer, "4", "connections", redis_only, {}, 1, 1000, "",
       "Connections on which commands are pipelined, at most; blocking reads have others."},
      {"pool_idle_timeout", connection, duration, "300000", "ms", redis_only, {}, 100, 86'400'000, "",
       "A connection of the pool that nobody used for so long is closed; the one for publishes stays."},
      {"mode", connection, text, "streams", "", redis_only, {"streams", "pubsub"}, 0, 0, "",
       "What a topic is: a stream, or a channel (Pub/Sub), where a message reaches whoever listens at that moment, and nobody else."},
      // consumer
      {"enable_auto_commit", consumer, boolean, "true", "", any, {}, 0, 0, "",
       "Asking a subscription for the next message acknowledges the last."},
      {"prefetch", consumer, integer, "1024", "messages", any, {}, 1, 10'000'000, "",
       "Messages that a subscription or consumer holds unsettled, at most; on Redis also what is fetched ahead, which on Kafka is bounded in bytes."},
      {"concurrency", consumer, integer, "1", "handlers", any, {}, 1, 100'000, "", "Handlers of a consumer that run at once."},
      {"max_retry_attempts", consumer, integer, "3", "", any, {}, 0, 1'000'000, "MESSAGING_MAX_RETRY_ATTEMPTS",
       "Tries of a handler after the first."},
      {"enable_dead_letter_queue", consumer, boolean, "true", "", any, {}, 0, 0, "MESSAGING_ENABLE_DLQ",
       "Messages that failed for good go to the dead-letter topic; else they are logged and settled."},
      {"initial_backoff", consumer, duration, "100", "ms", any, {}, 0, 3'600'000, "",
       "The most that the first retry waits (full jitter)."},
      {"backoff_multiplier", consumer, number, "2", "", any, {}, 1, 100, "", "How much longer each retry may wait than the last."},
      {"max_backoff", consumer, duration, "30000", "ms", any, {}, 0, 86'400'000, "", "The most that any retry waits."},
      {"drain_timeout", consumer, duration, "30000", "ms", any, {}, 0, 86'400'000, "",
       "How long running handlers may take to finish when the consumer stops."},
      {"group_instance_id", consumer, text, "", "", kafka_only, {}, 0, 0, "",
       "A name that makes this member static (KIP-345): it may restart within session_timeout without a rebalance. The group sees it with the topic behind it, so that a program may have several subscriptions."},
      {"session_timeout", consumer, duration, "45000", "ms", kafka_only, {}, 1000, 3'600'000, "",
       "How long the group waits for a silent member before its partitions go to others."},
      {"max_poll_interval", consumer, duration, "300000", "ms", kafka_only, {}, 1000, 86'400'000, "",
       "How long this process may not turn its loop before the group takes it for dead; a slow handler does not count. No shorter than session_timeout."},
      {"isolation_level", consumer, text, "read_committed", "", kafka_only, {"read_committed", "read_uncommitted"}, 0, 0, "",
       "Whether messages of transactions that are open or were aborted are seen."},
      {"commit_interval", consumer, duration, "1000", "ms", kafka_only, {}, 10, 3'600'000, "",
       "How often the group's places are committed; what a crash repeats at most."},
      {"commit_messages", consumer, integer, "10000", "messages", kafka_only, {}, 1, 1'000'000'000, "",
       "So many settled messages are committed without waiting for commit_interval."},
      {"fetch_buffer_bytes", consumer, integer, "67108864", "bytes", any, {}, 1'048'576, 17'179'869'184, "",
       "Messages that a consumer holds in memory at most, however much is waiting: one half in the hands of handlers and in line for them, the other fetched ahead on Kafka, where what is compressed is unpacked a fetch at a time (docs/guarantees.md)."},
      {"consumer_name", consumer, text, "", "", redis_only, {}, 0, 0, "",
       "The name of this member in its group: started again under it, it has at once what it held. No other may have it. Absent: one of its own."},
      {"claim_idle", consumer, duration, "30000", "ms", redis_only, {}, 100, 86'400'000, "",
       "How long a message may be in the hands of a member that does not stir before another takes it over."},
      {"trim_after", consumer, duration, "3600000", "ms", redis_only, {}, 0, 1e13, "",
       "How old an entry must be that every group has acknowledged before it is removed; 0: never."},
      {"max_poll_records", consumer, integer, "500", "messages", kafka_only, {}, 1, 1'000'000, "",
       "The most that one fetch hands out."},
      // producer
      {"publish_timeout", producer, duration, "30000", "ms", any, {}, 1, 86'400'000, "",
       "The deadline of a publish, its retries included."},
      {"buffer_messages", producer, integer, "250000", "messages", any, {}, 1, 100'000'000, "",
       "What publish(confirm = false) may have outstanding before it waits."},
      {"max_message_bytes", producer, integer, "1048576", "bytes", any, {}, 1, 1'073'741'824, "",
       "The largest message: payload, key and headers."},
      {"circuit_failure_threshold", producer, integer, "5", "publishes", any, {}, 1, 1'000'000, "",
       "Publishes that the broker must fail in a row to open the circuit."},
      {"circuit_reset_timeout", producer, duration, "10000", "ms", any, {}, 1, 86'400'000, "",
       "How long an open circuit fails fast before it lets one publish try."},
      {"wait_replicas", producer, integer, "0", "replicas", redis_only, {}, 0, 1000, "",
       "A publish completes when so many replicas have the message too (WAIT)."},
      {"wait_fsync", producer, boolean, "false", "", redis_only, {}, 0, 0, "",
       "A publish completes when the server, and wait_replicas replicas, have synced their append-only files (WAITAOF, Redis 7.2)."},
      {"idempotence_window", producer, duration, "0", "ms", redis_only, {}, 0, 2'592'000'000, "",
       "A message whose id (ce_id, message-id) was published to its topic within this time is not stored again; 0: every publish stores."},
      {"require_routing", producer, boolean, "false", "", redis_only, {}, 0, 0, "",
       "With mode=pubsub, a message that nobody was there to get is an error."},
      {"pubsub_envelope", producer, boolean, "false", "", redis_only, {}, 0, 0, "",
       "With mode=pubsub, publishes key and headers too, in a JSON object around the payload; else a channel carries the payload alone."},
      {"acks", producer, text, "all", "", kafka_only, {"all"}, 0, 0, "",
       "Replicas that must have a message; nothing less than all is offered."},
      {"compression_type", producer, text, "none", "", kafka_only, {"none", "gzip", "snappy", "lz4", "zstd"}, 0, 0, "",
       "How batches are compressed."},
      {"linger", producer, duration, "1", "ms", kafka_only, {}, 0, 900'000, "",
       "How long a publish waits for others, at most, while earlier ones have no answer; a lone publish is not held back."},
      {"queue_messages", producer, integer, "250000", "messages", kafka_only, {}, 1, 10'000'000, "",
       "Messages that wait for the broker at most; then publishers wait."},
      {"transactional_id", producer, text, "", "", kafka_only, {}, 0, 0, "",
       "The name of this program's transactions: an older program of the same name is fenced. Absent: one of its own each time, and what a killed program left open holds readers up for 2 * publish_timeout."},
      {"max_in_flight_requests_per_connection", producer, integer, "2", "requests", kafka_only, {}, 1, 5, "",
       "Requests that may wait for their answer at once, at each broker. It answers one after another: two keep it busy, and more are smaller; a broker that is far away is worth more."},
  };
  // clang-format on
  return table;
}

std::string options_reference() {
  std::string page =
      "# Options\n\n"
      "Made from the options table by `maestro config --markdown`. The keys go into the three maps of "
      "`MessagingConfig`; an\n"
      "argument comes before them, the environment after them, the default last. Durations are milliseconds, or text "
      "with a\n"
      "unit (`\"250ms\"`, `\"30s\"`, `\"5m\"`). `raw.<name>` passes a property of the native client through, where "
      "there is one.\n"
      "`client_id`, `group_id` and `auto_offset_reset` may also stand in `consumer_config`.\n"
      "A variable `KAFKA_…` speaks to Kafka only; another broker gets the same option from the configuration.\n"
      "A password is better there than on the command line of `maestro`, which `ps` shows.\n";
  static constexpr std::pair<OptionGroup, std::string_view> groups[] = {{OptionGroup::connection, "connection_config"},
                                                                        {OptionGroup::consumer, "consumer_config"},
                                                                        {OptionGroup::producer, "producer_config"}};
  for (const auto& [group, title] : groups) {
    page += fmt::format(
        "\n## {}\n\n| key | type | default | allowed | brokers | environment | what it does "
        "|\n|---|---|---|---|---|---|---|\n",
        title);
    for (const auto& spec : option_table()) {
      if (spec.group != group) continue;
      page += fmt::format("| `{}` | {}{} | {} | {} | {} | {} | {} |\n", spec.name, to_string(spec.type),
                          spec.unit.empty() ? "" : fmt::format(", {}", spec.unit), spec.default_value,
                          allowed_values(spec), broker_names(spec), environment_variable(spec, "`"), spec.doc);
    }
  }
  return page;
}

}  // namespace maestro::messaging

#include "brokers/kafka/properties.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>
#include <system_error>
#include <utility>

#include "brokers/kafka/lane.hpp"
#include "brokers/kafka/spread.hpp"
#include "brokers/kafka/trouble.hpp"
#include "core/readable_file.hpp"
#include "core/size_limit.hpp"
#include "core/stable_hash.hpp"

namespace maestro::messaging::kafka {
namespace {

// How soon librdkafka commits what is stored; what has nothing stored sends nothing.
constexpr Duration until_committed = std::chrono::milliseconds(50);

class Properties {
 public:
  Properties() : conf_(rd_kafka_conf_new()) {}

  void set(const std::string& name, const std::string& value, std::string_view option) {
    // It would be dropped in silence, and " secret" be another's password.
    if (!value.empty() && std::string_view(" \t\n\v\f\r").find(value.front()) != std::string_view::npos)
      throw MessagingError(errc::invalid_option,
                           fmt::format("{}: begins with white space, which librdkafka would drop; "
                                       "allowed is a value that begins with something else",
                                       option));
    char text[512];
    switch (rd_kafka_conf_set(conf_.get(), name.c_str(), value.c_str(), text, sizeof text)) {
      case RD_KAFKA_CONF_OK:
        return;
      case RD_KAFKA_CONF_UNKNOWN:
        throw MessagingError(errc::unknown_option,
                             fmt::format("{}: this librdkafka ({}) has no such property", option, rd_kafka_version_str()));
      default:
        // The text may repeat a value, and the value may be a password.
        throw MessagingError(errc::invalid_option, fmt::format("{}: librdkafka does not take the value for {}", option, name));
    }
  }
  void set(const std::string& name, const std::string& value) { set(name, value, name); }
  void set(const std::string& name, std::int64_t value) { set(name, std::to_string(value)); }
  /// For a property that only some versions have.
  void set_if_known(const char* name, const char* value) { rd_kafka_conf_set(conf_.get(), name, value, nullptr, 0); }

  void option(const Options& options, const char* option, const char* property) {
    if (const auto value = options.text_if(option)) set(property, *value, option);
  }

  rd_kafka_conf_t* get() { return conf_.get(); }
  ConfHandle take() { return std::move(conf_); }

 private:
  ConfHandle conf_;
};

// What librdkafka logs about connections comes as an error event too, and is told to people from there.
void log_line(const rd_kafka_t* client, int level, const char* facility, const char* text) {
  if (client) {
    auto& troubles = *static_cast<Troubles*>(rd_kafka_opaque(client));
    if (auto trouble = trouble_of(facility, text)) troubles.note(*std::move(trouble));
    if (const auto partitions = given_out(facility, text)) troubles.note_given_out(*partitions);
    if (const auto waits = joining(facility, text)) troubles.note_joining(*waits);
    if (std::string_view(facility) == "APIVERSION") troubles.note_offer(text);
  }
  constexpr int critical = 2;
  const auto ours = level <= critical ? LogLevel::error : LogLevel::debug;
  if (log_enabled(ours)) log(ours, text, {{"broker", "kafka"}, {"librdkafka", facility}});
}

// A question that waits for a broker, as that for a new topic does for the controller, has librdkafka connect to it
// without any backoff: ten thousand times a second where nobody listens. There is a thread for each broker, and this is
// called by it.
int open_socket(int domain, int type, int protocol, void*) {
  constexpr int at_once = 2;  // for a name with two addresses
  constexpr int between = 20;
  thread_local int opened = 0;
  if (opened++ >= at_once) ::poll(nullptr, 0, between);
  return ::socket(domain, type | SOCK_CLOEXEC, protocol);
}

int note_certificate(rd_kafka_t*, const char*, std::int32_t, int* x509_error, int, const char*, std::size_t, char*,
                     std::size_t, void* troubles) {
  if (*x509_error == 0) return 1;
  static_cast<Troubles*>(troubles)->note_certificate(*x509_error);
  return 0;
}

// Of a transaction that fails librdkafka tells how many messages did, and not always why.
void note_undelivered(rd_kafka_t*, const rd_kafka_message_t* report, void* troubles) {
  // Such are thrown away because of another one.
  if (report->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE || report->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT) return;
  static_cast<Troubles*>(troubles)->note_undelivered({report->err, rd_kafka_topic_name(report->rkt), report->_private != nullptr});
}

// librdkafka does not say which of the files it cannot read.
void check_files(const Options& options) {
  const auto check = [](const std::string& name, const std::string& path) {
    if ((name.ends_with("ca_location") || name.ends_with("ca.location")) && std::filesystem::is_directory(path)) return;  // of certificates
    if (const auto why = why_unreadable(path); !why.empty())
      throw MessagingError(errc::tls_failed, fmt::format("{}: \"{}\" cannot be read: {}", name, path, why));
  };
  for (const auto* name : {"ssl_ca_location", "ssl_certificate_location", "ssl_key_location"})
    if (const auto path = options.text_if(name)) check(name, *path);
  for (const auto* name : {"ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location", "ssl.crl.location"})
    if (const auto found = options.raw().find(name); found != options.raw().end()) check("raw." + found->first, found->second);
}

// librdkafka's default for the mechanism is Kerberos, which complains about a keytab, and it names its own properties.
void check_login(const Options& options) {
  const auto protocol = options.text("security_protocol");
  if (!protocol.starts_with("SASL")) {
    if (options.raw().contains("security.protocol")) return;
    const auto is_meant = [shown = options.shown()](std::string_view name) {
      // A password of the environment may be for another cluster.
      return std::ranges::any_of(shown, [name](const auto& each) {
        return each.spec->name == name && (name != "sasl_password" || each.origin != "environment");
      });
    };
    for (const auto* option : {"sasl_mechanism", "sasl_username", "sasl_password"})
      if (options.text_if(option) && is_meant(option))
        throw MessagingError(errc::invalid_option,
                             fmt::format("{} is given, and security_protocol={} makes no login; allowed with it are "
                                         "SASL_PLAINTEXT and SASL_SSL",
                                         option, protocol));
    return;
  }
  const auto& raw = options.raw();
  const auto given = [&](const char* option, const char* property) {
    const auto found = raw.find(property);
    return found != raw.end() ? found->second : options.text(option);
  };
  const auto mechanism = given("sasl_mechanism", raw.contains("sasl.mechanism") ? "sasl.mechanism" : "sasl.mechanisms");
  if (mechanism.empty())
    throw MessagingError(
        errc::invalid_option,
        fmt::format("sasl_mechanism is absent; security_protocol={} wants one: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
                    protocol));
  if (mechanism != "PLAIN" && !mechanism.starts_with("SCRAM")) return;
  for (const auto& [option, property] :
       {std::pair("sasl_username", "sasl.username"), {"sasl_password", "sasl.password"}})
    if (given(option, property).empty())
      throw MessagingError(
          errc::invalid_option,
          fmt::format("{} is absent; sasl_mechanism={} wants a user's name and password", option, mechanism));
}

void set_security(Properties& to, const Options& options) {
  check_login(options);
  check_files(options);
  to.set("security.protocol", options.text("security_protocol"), "security_protocol");
  to.option(options, "sasl_mechanism", "sasl.mechanisms");
  to.option(options, "sasl_username", "sasl.username");
  to.option(options, "sasl_password", "sasl.password");
  to.option(options, "ssl_ca_location", "ssl.ca.location");
  to.option(options, "ssl_certificate_location", "ssl.certificate.location");
  to.option(options, "ssl_key_location", "ssl.key.location");
  to.option(options, "ssl_key_password", "ssl.key.password");
  if (options.boolean("ssl_insecure_skip_verification")) {
    to.set("enable.ssl.certificate.verification", "false");
    to.set("ssl.endpoint.identification.algorithm", "none");
  } else {
    to.set("ssl.endpoint.identification.algorithm", "https");
    rd_kafka_conf_set_ssl_cert_verify_cb(to.get(), note_certificate);
  }
}

Properties common(const Session& session) {
  Properties made;
  rd_kafka_conf_set_log_cb(made.get(), log_line);
  rd_kafka_conf_set_socket_cb(made.get(), open_socket);
  made.set("bootstrap.servers", session.servers);
  if (const auto id = session.options.text_if("client_id")) made.set("client.id", *id, "client_id");
  set_security(made, session.options);
  made.set("socket.keepalive.enable", "true");
  made.set("socket.nagle.disable", "true");
  made.set("reconnect.backoff.max.ms", 2000);
  made.set("topic.metadata.refresh.interval.ms", 4000);
  made.set("topic.metadata.propagation.max.ms", 10000);
  made.set("log.connection.close", "false");
  return made;
}

/// What the library says to librdkafka in other ways, or cannot do without.
void check_raw(std::string_view name, std::string_view value) {
  struct Kept {
    std::string_view name;
    std::string_view allowed;
    std::string_view why;
  };
  static constexpr Kept kept[] = {
      {"bootstrap.servers", "", "the servers are the connection string"},
      {"metadata.broker.list", "", "the servers are the connection string"},
      {"group.id", "", "the group is an argument of the subscription"},
      {"transactional.id", "", "the option is transactional_id"},
      {"partition.assignment.strategy", "cooperative-sticky", "a partition is let go when all that was taken from it is settled"},
      {"enable.auto.offset.store", "false", "only what was acknowledged is committed"},
      {"enable.partition.eof", "true", "lag and deleted topics are known by it"},
      {"delivery.report.only.error", "false", "a publish is acknowledged by its report"},
  };
  const auto* found = std::ranges::find(kept, name, &Kept::name);
  if (found != std::end(kept) && (found->allowed.empty() || value != found->allowed))
    throw MessagingError(errc::invalid_option,
                         fmt::format("raw.{}: {}; allowed is {}", name, found->why, found->allowed.empty() ? "nothing" : found->allowed));
  if (name == "partitioner" && value == "random")
    throw MessagingError(errc::invalid_option,
                         "raw.partitioner: with random the messages of a key have no order; messages without a key are spread anyway");
}

void set_raw(Properties& to, const Options& options) {
  for (const auto& [name, value] : options.raw()) {
    check_raw(name, value);
    to.set(name, value, "raw." + name);
  }
}

/// What the library wants to read in the log, beside what the user does.
void set_debug(Properties& to, const Options& options, std::string_view contexts) {
  const auto asked = options.raw().find("debug");
  to.set("debug", std::string(contexts).append(asked == options.raw().end() ? "" : "," + asked->second));
}

void set_producing(Properties& to, const Options& options) {
  // librdkafka counts its batches against this limit too, and a batch over the broker's own (1,048,588 by default) is refused whole.
  const auto most = options.integer("max_message_bytes") + static_cast<std::int64_t>(dead_letter_room) + 16'384;
  to.set("message.max.bytes", std::clamp<std::int64_t>(most, 1'000'000, 1'000'000'000));
  to.set("batch.size", 1'000'000);
  to.set("enable.idempotence", "true");
  to.set("acks", options.text("acks"), "acks");
  to.set("compression.type", options.text("compression_type"), "compression_type");
  to.set("max.in.flight.requests.per.connection", options.integer("max_in_flight_requests_per_connection"));
  to.set("linger.ms", "0");  // the producer gathers by itself
  to.set("sticky.partitioning.linger.ms", "10");  // else none, and messages without keys are spread over as many requests
  to.set("message.timeout.ms", milliseconds(message_timeout(options)));
  to.set("queue.buffering.max.messages", options.integer("queue_messages"));
  // Consumers ask by way of this client too where a log ends.
  to.set("isolation.level", options.text("isolation_level"), "isolation_level");
  // The one that Java's clients use, so that a key is in the same partition for all programs.
  to.set("partitioner", "murmur2_random");
}

// `host`, `host:port` or `[address]:port`.
bool is_address(std::string_view text) {
  std::size_t host = text.find(':');
  if (text.starts_with('[')) {
    host = text.find(']');
    if (host == std::string_view::npos) return false;
    ++host;
  }
  if (host == 0 || text.empty()) return false;
  if (host >= text.size()) return true;
  if (text[host] != ':') return false;
  const auto digits = text.substr(host + 1);
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  return error == std::errc() && end == digits.data() + digits.size() && port > 0;
}

std::string value_of(const rd_kafka_conf_t& properties, const char* name) {
  char text[64] = "";
  std::size_t size = sizeof text;
  return rd_kafka_conf_get(&properties, name, text, &size) == RD_KAFKA_CONF_OK ? std::string(text) : std::string();
}

std::int64_t number_of(const rd_kafka_conf_t& properties, const char* name) {
  return std::stoll(value_of(properties, name));
}

}  // namespace

std::string servers_of(const std::string& connection_string) {
  constexpr std::string_view scheme = "kafka://";
  std::string servers = connection_string;
  if (servers.starts_with(scheme)) servers.erase(0, scheme.size());
  while (servers.ends_with('/')) servers.pop_back();
  bool odd = servers.find_first_of("/@?# \t") != std::string::npos;
  for (std::size_t begin = 0; begin <= servers.size() && !odd;) {
    const auto end = std::min(servers.find(',', begin), servers.size());
    odd = !is_address(std::string_view(servers).substr(begin, end - begin));
    begin = end + 1;
  }
  if (odd)
    throw MessagingError(errc::invalid_option,
                         fmt::format("connection string \"{}\"; allowed is host:port[,host:port] with ports from 1 to "
                                     "65535, bare or behind kafka://; "
                                     "user and password are the options sasl_username and sasl_password",
                                     redact(connection_string)));
  return servers;
}

Duration message_timeout(const Options& options) {
  const auto allowed = options.duration("publish_timeout");
  return std::max<Duration>(allowed - std::min<Duration>(std::chrono::milliseconds(1500), allowed / 4),
                            std::chrono::milliseconds(1));
}

Acknowledged acknowledged(const Session& session) {
  const auto made = producer_properties(session);
  Acknowledged told;
  const auto acks = value_of(*made, "acks");
  if (acks == "0") {
    told.means = "nothing: no broker has confirmed it (acks=0)";
  } else if (acks == "-1" || acks == "all") {
    told.means =
        "in the memory of every replica in sync (acks=all); survives the loss of brokers down to min.insync.replicas";
  } else {
    told.means = fmt::format("in the memory of the partition's leader (acks={}), which may be lost with it", acks);
  }
  if (value_of(*made, "enable.idempotence") != "true") {
    told.in_order = false;
    told.means += "; a publish that is tried again may be stored twice, and out of order (enable.idempotence=false)";
  }
  return told;
}

bool spreads(const Options& options) {
  return !options.raw().contains("partitioner") && !options.raw().contains("sticky.partitioning.linger.ms");
}

ConfHandle producer_properties(const Session& session) {
  auto made = common(session);
  set_producing(made, session.options);
  if (spreads(session.options)) {
    made.set("sticky.partitioning.linger.ms", "0");
    Spread::install(made.get());
  }
  set_raw(made, session.options);
  set_debug(made, session.options, "feature");  // what a broker offers, by which one that is too old is known
  rd_kafka_conf_set_events(made.get(), RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
  return made.take();
}

void limit_batches(rd_kafka_conf_t& properties, std::int64_t limit) {
  rd_kafka_conf_set(&properties, "batch.size", std::to_string(limit).c_str(), nullptr, 0);
}

std::int64_t largest_batch(const rd_kafka_conf_t& properties) {
  return std::min(number_of(properties, "batch.size"), number_of(properties, "message.max.bytes"));
}

bool tells_places(const rd_kafka_conf_t& properties) { return value_of(properties, "acks") != "0"; }

ConfHandle transactional_properties(const Session& session, const std::string& transactional_id) {
  auto made = common(session);
  set_producing(made, session.options);
  made.set("transactional.id", transactional_id, "transactional_id");
  made.set("transaction.timeout.ms", std::max(milliseconds(session.options.duration("publish_timeout")), 1000) * 2);
  set_raw(made, session.options);
  made.set("delivery.report.only.error", "true");
  rd_kafka_conf_set_dr_msg_cb(made.get(), note_undelivered);
  rd_kafka_conf_set_events(made.get(), RD_KAFKA_EVENT_ERROR);
  return made.take();
}

std::string member_name(const std::string& group_instance_id, const std::string& topic) {
  constexpr std::size_t longest = 249;  // of a topic's characters
  if (!is_pattern(topic) && group_instance_id.size() + 1 + topic.size() <= longest) return group_instance_id + '.' + topic;
  return fmt::format("{}.{:016x}", group_instance_id, stable_hash(topic));
}

ConfHandle consumer_properties(const Session& session, const std::string& group, const SubscribeRequest& request) {
  const auto& options = session.options;
  const bool is_private = !request.group;
  auto made = common(session);
  made.set("group.id", group, "group_id");
  made.set("enable.auto.commit", is_private ? "false" : "true");  // of what is stored, and only acknowledged places are
  made.set("auto.commit.interval.ms", milliseconds(std::min(options.duration("commit_interval"), until_committed)));
  made.set("enable.auto.offset.store", "false");
  made.set("auto.offset.reset", request.auto_offset_reset == OffsetReset::latest ? "latest" : "earliest");
  made.set("allow.auto.create.topics", "false");
  made.set("isolation.level", options.text("isolation_level"), "isolation_level");
  made.set("enable.partition.eof", "true");
  made.set("partition.assignment.strategy", "cooperative-sticky");
  if (const auto name = options.text_if("group_instance_id"); name && !is_private)
    made.set("group.instance.id", member_name(*name, request.topic), "group_instance_id");
  const auto session_timeout = milliseconds(options.duration("session_timeout"));
  made.set("session.timeout.ms", session_timeout);
  made.set("heartbeat.interval.ms", std::clamp(session_timeout / 10, 100, 1000));
  made.set("max.poll.interval.ms", std::max(milliseconds(options.duration("max_poll_interval")), session_timeout));
  // Everything that arrives is moved into our own queue at once, whose marks pause the fetching: librdkafka's own
  // limits have its fetcher sleep for a second each time one is met. They are for a loop that does not turn, and no
  // lower than our marks, so that fetching pauses when it turns again, and with its end the fetcher is woken.
  const auto buffer = options.integer("fetch_buffer_bytes");
  made.set("queued.min.messages",
           std::clamp<std::int64_t>(buffer / 2 / static_cast<std::int64_t>(librdkafkas_own) + 1, 1, 10'000'000));
  made.set("queued.max.messages.kbytes", std::clamp<std::int64_t>(buffer / 2 / 1000 + 1, 1, 2'097'151));
  // Small requests, for what is under way when fetching pauses is thrown away and fetched again, and an answer is unpacked
  // whole: compressed to a twentieth and more, it is still within the bound. A larger batch comes all the same (KIP-74).
  const auto fetch = std::clamp<std::int64_t>(buffer / 256, 65'536, 16'777'216);
  made.set("fetch.max.bytes", fetch);
  made.set("fetch.message.max.bytes", std::min<std::int64_t>(fetch, 1'048'576));
  made.set("message.max.bytes", fetch);
  made.set("fetch.error.backoff.ms", 100);
  made.set_if_known("fetch.queue.backoff.ms", "5");
  // The statistics alone say whether a rebalance is under way.
  if (!is_private) made.set("statistics.interval.ms", 500);
  set_raw(made, options);
  set_debug(made, options, "topic,cgrp");  // that a topic was unknown for a moment; what was given out
  rd_kafka_conf_set_events(made.get(), RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT | RD_KAFKA_EVENT_STATS |
                                           RD_KAFKA_EVENT_ERROR);
  return made.take();
}

}  // namespace maestro::messaging::kafka

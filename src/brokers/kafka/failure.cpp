#include "brokers/kafka/failure.hpp"

#include <fmt/format.h>

#include "brokers/kafka/trouble.hpp"

namespace maestro::messaging::kafka {

errc code_of(rd_kafka_resp_err_t error) {
  switch (error) {
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
    case RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
      return errc::authentication_failed;
    case RD_KAFKA_RESP_ERR__SSL:
      return errc::tls_failed;
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
      return errc::topic_not_found;
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
    case RD_KAFKA_RESP_ERR_INVALID_PARTITIONS:
    case RD_KAFKA_RESP_ERR__INVALID_ARG:
    case RD_KAFKA_RESP_ERR_INVALID_CONFIG:
      return errc::invalid_argument;
    case RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT:
    case RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT:
    case RD_KAFKA_RESP_ERR_INVALID_GROUP_ID:
      return errc::invalid_option;
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
      return errc::invalid_topic;
    case RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS:
      return errc::already_exists;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
      return errc::message_too_large;
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
      return errc::queue_full;
    case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
      return errc::closed;
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
      return errc::timed_out;
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__RESOLVE:
    case RD_KAFKA_RESP_ERR__WAIT_COORD:
    case RD_KAFKA_RESP_ERR__PURGE_QUEUE:
    case RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
    case RD_KAFKA_RESP_ERR__DESTROY:
    case RD_KAFKA_RESP_ERR__FATAL:
    case RD_KAFKA_RESP_ERR__STATE:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
    case RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
    case RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
    case RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR:
      return errc::connection_failed;
    default:
      return errc::broker_error;
  }
}

bool is_of_topic(rd_kafka_resp_err_t error) { return code_of(error) == errc::topic_not_found; }

bool is_transient(rd_kafka_resp_err_t error) {
  switch (error) {
    case RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS:
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
    case RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
      return true;
    default:
      return code_of(error) == errc::connection_failed;
  }
}

Failure describe(rd_kafka_resp_err_t error, std::string_view what, std::string_view text) {
  std::string_view advice;
  auto code = code_of(error);
  // To librdkafka since 2.2, a peer that hangs up while TLS is agreed upon is a broken connection.
  if (error == RD_KAFKA_RESP_ERR__TRANSPORT && text.find("SSL handshake failed") != std::string_view::npos) code = errc::tls_failed;
  // With TLS 1.3 the broker judges our certificate after the handshake: to librdkafka, a broken connection.
  if (text.find("alert") != std::string_view::npos && text.find("certificate") != std::string_view::npos) {
    code = errc::tls_failed;
    advice =
        "; the broker refuses this client's certificate, or wants one: ssl_certificate_location and ssl_key_location";
  }
  switch (error) {
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
      advice = "; is the broker up, and has the topic enough replicas in sync (min.insync.replicas)?";
      break;
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS:
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
      advice = "; bring the missing brokers back, or lower the topic's min.insync.replicas";
      break;
    case RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR:
      advice =
          "; a disk of the broker is full or broken, as its log says, and is not used until the broker is started "
          "again";
      break;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
      advice = "; the limits are the option max_message_bytes and the topic's max.message.bytes";
      break;
    case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
      advice = "; another member with its group_instance_id has taken over: programs that run at the same time, and subscriptions "
               "of one to the same topic, need different ones";
      break;
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
      advice = "; allowed is a time after 1970-01-01T00:00:00Z, within what the topic's settings take";
      break;
    case RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT:
      advice =
          "; session_timeout has to be within the broker's group.min.session.timeout.ms and group.max.session.timeout.ms "
          "(by default 6000 to 1800000)";
      break;
    case RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT:
      advice = "; twice publish_timeout has to be within the broker's transaction.max.timeout.ms (by default 15 minutes)";
      break;
    case RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR:
      advice = "; the cluster has too few brokers for its default.replication.factor";
      break;
    default:
      break;
  }
  return {code, fmt::format("{}: {} ({}){}", what, text.empty() ? rd_kafka_err2str(error) : text,
                            rd_kafka_err2name(error), advice)};
}

std::string with_certificate_trouble(std::string detail, int x509_error) {
  const auto trouble = certificate_trouble(x509_error);
  constexpr std::string_view verdict = "certificate verify failed";
  const auto at = detail.find(verdict);
  if (trouble.empty() || at == std::string::npos) return detail;
  return detail.substr(0, at + verdict.size()).append(": ").append(trouble);
}

std::string_view login_advice(std::string_view mechanism, std::string_view refusal) {
  constexpr int mended = 0x020601ff;
  if (!mechanism.starts_with("SCRAM") || rd_kafka_version() >= mended) return "";
  if (refusal.find("mechanism handshake failed") != std::string_view::npos) return "";  // it does not come to a login
  return "; this librdkafka is older than 2.6.1, with which no SCRAM login to Kafka 3.7.2, 3.8.1, 3.9 or newer succeeds: "
         "use a newer one, or PLAIN over TLS";
}

Failure describe_delivery(rd_kafka_resp_err_t error, rd_kafka_msg_status_t status, const OutgoingMessage& message,
                          bool creates_topics, const Hindrance& hindrance) {
  auto failure = describe(error, fmt::format("publishing to \"{}\"", message.topic));
  if (status == RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED) {
    failure.code = errc::outcome_unknown;
  } else if (error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION && !message.partition) {
    // It was made again with fewer of them; the next try chooses among those.
    failure.code = errc::connection_failed;
  } else if (is_of_topic(error)) {
    // It was deleted meanwhile; the next try makes it again.
    failure.code = creates_topics ? errc::connection_failed : errc::topic_not_found;
  }
  failure.is_of_topic = is_of_topic(error) || error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION ||
                        error == RD_KAFKA_RESP_ERR_INVALID_RECORD || error == RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS ||
                        error == RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND;
  if (error == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT && !hindrance.text.empty()) {
    failure.detail = no_answer(message.topic, hindrance).detail;
    failure.is_of_topic = hindrance.is_sure;
  }
  return failure;
}

Failure no_answer(std::string_view topic, const Hindrance& hindrance) {
  auto text = fmt::format("publishing to \"{}\": no acknowledgement within the time allowed", topic);
  if (!hindrance.text.empty()) text += "; " + hindrance.text;
  return {errc::outcome_unknown, std::move(text), hindrance.is_sure};
}

Failure unplaced(std::string_view topic) {
  return {errc::outcome_unknown,
          fmt::format("publishing to \"{}\": the broker has seen a later message of this client, and so takes this one for a "
                      "duplicate; it need not be stored",
                      topic)};
}

void fail(rd_kafka_resp_err_t error, std::string_view what, std::string_view text) {
  auto failure = describe(error, what, text);
  throw MessagingError(failure.code, failure.detail);
}

void check(rd_kafka_resp_err_t error, std::string_view what) {
  if (error) fail(error, what);
}

void check(ErrorHandle error, std::string_view what) {
  if (error) fail(rd_kafka_error_code(error.get()), what, rd_kafka_error_string(error.get()));
}

}  // namespace maestro::messaging::kafka

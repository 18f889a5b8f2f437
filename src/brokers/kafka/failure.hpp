#pragma once

#include <maestro/messaging/error.hpp>
#include <maestro/messaging/message.hpp>
#include <string>
#include <string_view>

#include "brokers/kafka/handles.hpp"

namespace maestro::messaging::kafka {

struct Failure {
  errc code = errc::broker_error;
  std::string detail;
  bool is_of_topic = false;  // nothing is wrong but with the topic
};

/// What the cluster says against a topic: why messages to it wait.
struct Hindrance {
  std::string text;      // empty when it says nothing
  bool is_sure = false;  // that it is this, and not the cluster
};

/// What an error of Kafka or of librdkafka is to us. `surely_not_done` decides between a failure and an unknown outcome where
/// the error itself does not say.
[[nodiscard]] errc code_of(rd_kafka_resp_err_t error);

/// Whether it says that the topic is not there.
[[nodiscard]] bool is_of_topic(rd_kafka_resp_err_t error);

/// Whether trying again may help, with nothing done so far.
[[nodiscard]] bool is_transient(rd_kafka_resp_err_t error);

/// The error with Kafka's own name and text, and what to do about it where there is something to do.
[[nodiscard]] Failure describe(rd_kafka_resp_err_t error, std::string_view what, std::string_view text = {});

/// A refused certificate with what OpenSSL has against it, in place of librdkafka's guess.
[[nodiscard]] std::string with_certificate_trouble(std::string detail, int x509_error);

/// What else there is to say about a refused login: librdkafka before 2.6.1 sends a nonce twice, which Kafka takes for a wrong
/// password since it checks it (3.7.2, 3.8.1, 3.9.0; CVE-2024-56128).
[[nodiscard]] std::string_view login_advice(std::string_view mechanism, std::string_view refusal);

/// What became of a message that was given to librdkafka.
[[nodiscard]] Failure describe_delivery(rd_kafka_resp_err_t error, rd_kafka_msg_status_t status,
                                        const OutgoingMessage& message, bool creates_topics,
                                        const Hindrance& hindrance = {});
/// Of a message about which nothing was heard.
[[nodiscard]] Failure no_answer(std::string_view topic, const Hindrance& hindrance);
/// Of a message that was said to be stored, and not where.
[[nodiscard]] Failure unplaced(std::string_view topic);

[[noreturn]] void fail(rd_kafka_resp_err_t error, std::string_view what, std::string_view text = {});
/// Throws when there is an error.
void check(rd_kafka_resp_err_t error, std::string_view what);
void check(ErrorHandle error, std::string_view what);

}  // namespace maestro::messaging::kafka

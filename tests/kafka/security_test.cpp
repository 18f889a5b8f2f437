#include <librdkafka/rdkafka.h>

#include "support/real_time.hpp"

namespace maestro::messaging::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

class KafkaSecurity : public ::testing::Test {
 protected:
  MessagingConfig config(std::string servers, ConfigMap connection) const {
    MessagingConfig made;
    made.broker_type = BrokerType::kafka;
    made.connection_string = std::move(servers);
    made.connection_config = std::move(connection);
    made.connection_config.insert_or_assign("connect_timeout", 5000);
    return made;
  }
  std::string at(const std::string& name) const { return server_.environment.at(name); }
  ConfigMap password(const std::string& mechanism, const std::string& password) const {
    return {{"security_protocol", "SASL_SSL"},
            {"sasl_mechanism", mechanism},
            {"sasl_username", at("KAFKA_USERNAME")},
            {"sasl_password", password},
            {"ssl_ca_location", at("KAFKA_CA")}};
  }

  void works(const MessagingConfig& given) {
    run_real([&](boost::asio::io_context& context) -> awaitable<void> {
      MessageBroker broker(context.get_executor(), given);
      const auto receipt = co_await broker.publish("security", Value("hello"));
      EXPECT_GE(receipt.offset, 0);
      auto reader = co_await broker.subscribe("security");
      EXPECT_EQ((co_await reader.next())->value(), "hello");
      co_await broker.disconnect();
    });
  }
  /// Connecting, publishing and subscribing fail alike, soon, and without a secret in what they say.
  void fails(const MessagingConfig& given, errc reason, const std::string& says) {
    run_real([&](boost::asio::io_context& context) -> awaitable<void> {
      const auto clock = Clock::real();
      MessageBroker broker(context.get_executor(), given);
      const auto began = clock->now();
      const auto failure = co_await failure_of(broker.connect());
      EXPECT_LT(clock->now() - began, 6s);
      EXPECT_EQ(failure.reason(), reason) << failure.what();
      EXPECT_THAT(failure.what(), HasSubstr(says));
      EXPECT_THAT(failure.what(), Not(HasSubstr("hush")));
      const auto publish = [&]() -> awaitable<void> { co_await broker.publish("security", Value(1)); };
      EXPECT_EQ((co_await failure_of(publish())).reason(), reason);
      if (reason == errc::connection_failed) co_return;  // a subscription waits for a broker that may come
      const auto subscribe = [&]() -> awaitable<void> { co_await broker.subscribe("security", {.group_id = "g"}); };
      EXPECT_EQ((co_await failure_of(subscribe())).reason(), reason);
    });
  }

  Server server_ = server("kafka --variant secure");
};

TEST_F(KafkaSecurity, PasswordsInPlainOverTls) {
  works(config(server_.url, password("PLAIN", at("KAFKA_PASSWORD"))));
}

// Kafka 4.3 takes no SCRAM login from librdkafka before 2.6.1 (CVE-2024-56128): then that has to be said.
TEST_F(KafkaSecurity, ScramOverTls) {
  const auto given = config(server_.url, password("SCRAM-SHA-512", at("KAFKA_PASSWORD")));
  constexpr int mended = 0x020601ff;
  if (rd_kafka_version() >= mended) {
    works(given);
  } else {
    fails(given, errc::authentication_failed, "older than 2.6.1");
  }
}

TEST_F(KafkaSecurity, ACertificateOfTheClient) {
  works(config(at("KAFKA_MUTUAL_TLS"), {{"security_protocol", "SSL"},
                                        {"ssl_ca_location", at("KAFKA_CA")},
                                        {"ssl_certificate_location", at("KAFKA_CLIENT_CERTIFICATE")},
                                        {"ssl_key_location", at("KAFKA_CLIENT_KEY")}}));
}

TEST_F(KafkaSecurity, AWrongPassword) {
  for (const auto* mechanism : {"PLAIN", "SCRAM-SHA-512"})
    fails(config(server_.url, password(mechanism, "hush-wrong")), errc::authentication_failed, "uthentication");
}

TEST_F(KafkaSecurity, AMechanismThatTheBrokerDoesNotOffer) {
  const auto given = config(server_.url, password("SCRAM-SHA-256", at("KAFKA_PASSWORD")));
  fails(given, errc::authentication_failed, "broker's supported mechanisms: ");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), given);
    EXPECT_THAT((co_await failure_of(broker.connect())).what(), Not(HasSubstr("older than 2.6.1")));
  });
}

TEST_F(KafkaSecurity, AnAuthorityThatSignedSomethingElse) {
  auto connection = password("PLAIN", at("KAFKA_PASSWORD"));
  connection.insert_or_assign("ssl_ca_location", at("KAFKA_OTHER_CA"));
  fails(config(server_.url, connection), errc::tls_failed,
        "certificate verify failed: the broker's certificate was signed by nobody in ssl_ca_location");
}

TEST_F(KafkaSecurity, AnExpiredCertificate) {
  fails(config(at("KAFKA_EXPIRED"), {{"security_protocol", "SSL"}, {"ssl_ca_location", at("KAFKA_CA")}}),
        errc::tls_failed, "has expired");
}

TEST_F(KafkaSecurity, TlsWhereTheServerSpeaksNone) {
  fails(config(at("KAFKA_PLAINTEXT"), {{"security_protocol", "SSL"}, {"ssl_ca_location", at("KAFKA_CA")}}),
        errc::tls_failed, "security_protocol is SSL: is that what this port speaks?");
}

TEST_F(KafkaSecurity, NoTlsWhereTheServerWantsIt) {
  fails(config(server_.url, {}), errc::connection_failed,
        "security_protocol is PLAINTEXT: is that what this port speaks");
}

TEST_F(KafkaSecurity, TlsWithoutALoginWhereTheServerWantsOne) {
  fails(config(server_.url, {{"security_protocol", "SSL"}, {"ssl_ca_location", at("KAFKA_CA")}}),
        errc::connection_failed, "security_protocol is SSL: is that what this port speaks");
}

TEST_F(KafkaSecurity, NoCertificateWhereTheServerWantsOne) {
  fails(config(at("KAFKA_MUTUAL_TLS"), {{"security_protocol", "SSL"}, {"ssl_ca_location", at("KAFKA_CA")}}),
        errc::tls_failed, "ssl_certificate_location");
}

TEST_F(KafkaSecurity, ACertificateForAnotherHost) {
  auto connection = password("PLAIN", at("KAFKA_PASSWORD"));
  const auto port = server_.url.substr(server_.url.rfind(':'));
  fails(config("[::ffff:127.0.0.1]" + port, connection), errc::tls_failed, "in the connection string or in advertised.listeners");
}

TEST_F(KafkaSecurity, ALoginOfNoKind) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto connect = [&]() -> awaitable<void> {
      MessageBroker broker(context.get_executor(), config(server_.url, {{"security_protocol", "SASL_SSL"},
                                                                        {"ssl_ca_location", at("KAFKA_CA")}}));
      co_await broker.connect();
    };
    const auto failure = co_await failure_of(connect());
    EXPECT_EQ(failure.reason(), errc::invalid_option) << failure.what();
    EXPECT_THAT(failure.what(), HasSubstr("sasl_mechanism is absent"));
  });
}

TEST_F(KafkaSecurity, NobodyListens) {
  fails(config("127.0.0.1:1", {}), errc::connection_failed, "127.0.0.1:1");
}

TEST_F(KafkaSecurity, AHostThatDoesNotExist) {
  fails(config("no-such-host.invalid:9092", {}), errc::connection_failed, "no-such-host.invalid");
}

TEST_F(KafkaSecurity, AFileThatIsNotThere) {
  auto connection = password("PLAIN", at("KAFKA_PASSWORD"));
  connection.insert_or_assign("ssl_ca_location", "/no/such/file.pem");
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto connect = [&]() -> awaitable<void> {
      MessageBroker broker(context.get_executor(), config(server_.url, connection));
      co_await broker.connect();
    };
    const auto failure = co_await failure_of(connect());
    EXPECT_EQ(failure.reason(), errc::tls_failed) << failure.what();
    EXPECT_THAT(failure.what(),
                HasSubstr("ssl_ca_location: \"/no/such/file.pem\" cannot be read: No such file or directory"));
  });
}

}  // namespace
}  // namespace maestro::messaging::testing

#include <gmock/gmock.h>

#include "support/real_time.hpp"

namespace maestro::messaging::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

class RedisSecurity : public ::testing::Test {
 protected:
  [[nodiscard]] MessagingConfig config(const std::string& url, ConfigMap connection = {}) const {
    auto made = MessagingConfig::from_url(url);
    made.connection_config = std::move(connection);
    made.connection_config.insert_or_assign("connect_timeout", 3000);
    return made;
  }
  [[nodiscard]] std::string file(const std::string& name) const { return server_.environment.at("REDIS_CERTIFICATES") + "/" + name; }
  [[nodiscard]] std::string url(const std::string& login, const std::string& host = "127.0.0.1") const {
    return "rediss://" + login + "@" + host + server_.url.substr(server_.url.rfind(':'));
  }

  static void works(const MessagingConfig& given, const std::string& topic = "security") {
    run_real([&](boost::asio::io_context& context) -> awaitable<void> {
      MessageBroker broker(context.get_executor(), given);
      const auto receipt = co_await broker.publish(topic, Value("hello"));
      EXPECT_GE(receipt.offset, 0);
      auto reader = co_await broker.subscribe(topic);
      EXPECT_EQ((co_await reader.next())->value(), "hello");
      co_await broker.disconnect();
    });
  }
  static void fails(const MessagingConfig& given, errc reason, const std::string& says) {
    run_real([&](boost::asio::io_context& context) -> awaitable<void> {
      MessageBroker broker(context.get_executor(), given);
      const auto failure = co_await failure_of(broker.connect());
      EXPECT_EQ(failure.reason(), reason) << failure.what();
      EXPECT_THAT(failure.what(), HasSubstr(says));
      EXPECT_THAT(failure.what(), Not(HasSubstr("hush")));
    });
  }

  Server server_ = server("redis --variant secure");
};

TEST_F(RedisSecurity, TlsAndAUserWork) { works(config(server_.url, {{"ssl_ca_location", file("ca.pem")}})); }

TEST_F(RedisSecurity, TheLoginMayStandInTheOptions) {
  works(config("rediss://127.0.0.1" + server_.url.substr(server_.url.rfind(':')),
               {{"ssl_ca_location", file("ca.pem")}, {"username", "alice"}, {"password", "alice-secret"}}));
}

TEST_F(RedisSecurity, AnUnknownAuthorityIsRefused) {
  fails(config(server_.url, {{"ssl_ca_location", file("other-ca.pem")}}), errc::tls_failed, "certificate verify failed");
  fails(config(server_.url), errc::tls_failed, "certificate verify failed");
  works(config(server_.url, {{"ssl_insecure_skip_verification", true}}));
}

TEST_F(RedisSecurity, AWrongPasswordOrNoneIsRefusedAtOnce) {
  const ConfigMap tls{{"ssl_ca_location", file("ca.pem")}};
  fails(config(url("alice:hush"), tls), errc::authentication_failed, "user or password are wrong");
  fails(config("rediss://127.0.0.1" + server_.url.substr(server_.url.rfind(':')), tls), errc::authentication_failed, "wants a password");
}

TEST_F(RedisSecurity, WhatAUserMayNotDoIsSaidAtOnce) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config(url("bob:bob-secret"), {{"ssl_ca_location", file("ca.pem")}}));
    const auto publish = [&]() -> awaitable<void> { co_await broker.publish("forbidden", Value(1)); };
    const auto failure = co_await failure_of(publish());
    EXPECT_EQ(failure.reason(), errc::authentication_failed) << failure.what();
    EXPECT_THAT(failure.what(), HasSubstr("may not do this"));
  });
}

TEST_F(RedisSecurity, PlainTextToATlsPortAndTlsToAPlainPortFail) {
  const auto port = server_.url.substr(server_.url.rfind(':'));
  fails(config("redis://alice:hush@127.0.0.1" + port), errc::connection_failed, "if it wants TLS there, say rediss://");
  fails(config("rediss://alice:hush@127.0.0.1:" + server_.environment.at("REDIS_PLAIN_PORT")), errc::connection_failed,
        "if it speaks no TLS there, say redis://");
}

TEST_F(RedisSecurity, AFileThatIsNoCertificateIsNamed) {
  boost::asio::io_context context;
  try {
    const MessageBroker broker(context.get_executor(), config(server_.url, {{"ssl_ca_location", "/nowhere/ca.pem"}}));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const MessagingError& failure) {
    EXPECT_EQ(failure.reason(), errc::invalid_option);
    EXPECT_THAT(failure.what(), HasSubstr("ssl_ca_location: \"/nowhere/ca.pem\""));
  }
}

}  // namespace
}  // namespace maestro::messaging::testing

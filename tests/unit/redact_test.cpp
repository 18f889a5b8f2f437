#include <boost/asio/io_context.hpp>
#include <list>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/config.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using testing::HasSubstr;
using unit::EnvironmentVariable;
using unit::refusal;

TEST(Redact, HidesThePasswordAndKeepsTheRest) {
  EXPECT_EQ(redact("redis://user:hunter2@host:6379/0"), "redis://user:***@host:6379/0");
  EXPECT_EQ(redact("redis://:hunter2@host:6379"), "redis://:***@host:6379");
  EXPECT_EQ(redact("amqps://guest:hunter2@host/vhost?heartbeat=5"), "amqps://guest:***@host/vhost?heartbeat=5");
  EXPECT_EQ(redact("user:hunter2@host:9092"), "user:***@host:9092");
}

TEST(Redact, LeavesWhatHasNoSecretAlone) {
  for (const auto* plain : {"", "memory://demo", "kafka://a:9092,b:9092", "redis://host:6379/0", "host:9092",
                            "no url at all", "memory://demo?partitions=3&max_bytes=10"})
    EXPECT_EQ(redact(plain), plain);
}

TEST(Redact, NoShapeOfUrlShowsThePassword) {
  // Each holds the secret as "hunter2" or its halves "hun" and "ter2" around a character that should have been escaped.
  const std::vector<std::string> urls{"redis://u:hunter2@h",
                                      "redis://hunter2@h:6379",
                                      "nats://hunter2@h:4222",
                                      "redis://u:hun@ter2@h:6379/0",
                                      "redis://u:hun/ter2@h:6379/0",
                                      "redis://u:hun?ter2@h:6379/0",
                                      "redis://u:hun#ter2@h:6379/0",
                                      "redis://u:hun:ter2@h:6379/0",
                                      "redis://u:hun@x/ter2@h:6379/0",
                                      "redis://u:hun://ter2@h",
                                      "nats://u:hunter2@a:4222,nats://v:hunter2@b:4222",
                                      "amqp://u:hunter2@a:5672,v:hunter2@b:5672/vhost",
                                      "u:hunter2@h:9092",
                                      "redis://h:6379?password=hunter2",
                                      "redis://h:6379?Password=hunter2",
                                      "redis://h:6379?a=1&PWD=hunter2&b=2",
                                      "amqp://h/v?auth_token=hunter2",
                                      "nats://h?client_secret=hunter2&x=y",
                                      "nats://h?api_key=hunter2",
                                      "nats://h?passphrase=hun=ter2"};
  for (const auto& url : urls) {
    const auto shown = redact(url);
    for (const auto* secret : {"hunter2", "hun", "ter2"}) EXPECT_THAT(shown, testing::Not(HasSubstr(secret))) << url;
    EXPECT_THAT(shown, HasSubstr("***")) << url;
  }
}

TEST(Redact, WhatOnlyLooksLikeAnAddressIsHiddenToo) {
  EXPECT_EQ(redact("redis://h:6379?password=hun@ter2"), "redis://h:***");
  EXPECT_EQ(redact("redis://u:hun?password=ter2@h"), "redis://u:***");
  EXPECT_EQ(redact("redis://h?password=hun&ter2&db=1"), "redis://h?password=***&db=1");
  EXPECT_EQ(redact("redis://u:hunter2%40h:6379"), "redis://u:***");
  EXPECT_EQ(redact("redis:/u:hunter2@h"), "redis:***@h");
  EXPECT_EQ(redact("kafka://a:9092,[::1]:9092"), "kafka://a:9092,[::1]:9092");
  EXPECT_EQ(redact("nats://a:4222,nats://b:4222/"), "nats://a:4222,nats://b:4222/");
  for (const auto* odd : {":", "://", "a://", "@", "?=", "[", "a:[", "a://[", ",", "a://,", "a:,:b"})
    EXPECT_NO_THROW((void)redact(odd));
}

TEST(Redact, OtherParametersStay) {
  EXPECT_EQ(redact("redis://h:6379?a=1&password=x&b=2"), "redis://h:6379?a=1&password=***&b=2");
}

TEST(BrokerTypes, HaveNamesThatAreReadBack) {
  for (const auto type :
       {BrokerType::memory, BrokerType::kafka, BrokerType::redis, BrokerType::rabbitmq, BrokerType::nats})
    EXPECT_EQ(parse_broker_type(to_string(type)), type);
  EXPECT_THAT(refusal(errc::invalid_option, [] { (void)parse_broker_type("kafak"); }),
              testing::AllOf(HasSubstr("did you mean \"kafka\""), HasSubstr("memory, kafka, redis, rabbitmq, nats")));
  for (const auto* far : {"", "foo", "zzzzzzz"})
    EXPECT_THAT(refusal(errc::invalid_option, [&] { (void)parse_broker_type(far); }),
                testing::AllOf(testing::Not(HasSubstr("did you mean")),
                               HasSubstr("; allowed are memory, kafka, redis, rabbitmq, nats")));
}

TEST(BrokerTypes, ASchemeThatIsNearOneIsGuessed) {
  const auto why = [](const char* url) {
    return refusal(errc::invalid_option, [&] { (void)MessagingConfig::from_url(url); });
  };
  EXPECT_THAT(why("kafak://h:9092"), HasSubstr("did you mean kafka://?"));
  EXPECT_THAT(why("memory:x"), HasSubstr("did you mean memory://?"));
  EXPECT_THAT(why("rediss:/h"), HasSubstr("did you mean rediss://?"));
  for (const auto* far : {"", "http://h", "localhost", "://", "h:x"})
    EXPECT_THAT(why(far), testing::Not(HasSubstr("did you mean"))) << far;
}

TEST(FromUrl, TheSchemeDecides) {
  const std::vector<std::pair<std::string, BrokerType>> cases{
      {"memory://demo", BrokerType::memory}, {"kafka://h:9092,i:9092", BrokerType::kafka},
      {"h:9092", BrokerType::kafka},         {"a,b:9092", BrokerType::kafka},
      {"[::1]:9092", BrokerType::kafka},     {"redis://h", BrokerType::redis},
      {"rediss://h", BrokerType::redis},     {"amqp://h", BrokerType::rabbitmq},
      {"amqps://h", BrokerType::rabbitmq},   {"nats://h", BrokerType::nats},
      {"tls://h", BrokerType::nats}};
  for (const auto& [url, type] : cases) {
    const auto config = MessagingConfig::from_url(url);
    EXPECT_EQ(config.broker_type, type) << url;
    EXPECT_EQ(config.connection_string, url);
  }
}

TEST(FromUrl, OthersAreRefusedWithoutTheirPassword) {
  const auto why = refusal(errc::invalid_option, [] { (void)MessagingConfig::from_url("http://u:hunter2@h"); });
  EXPECT_THAT(why, testing::AllOf(HasSubstr("http://u:***@h"), HasSubstr("amqp://")));
  for (const auto* bad : {"", "demo", "Memory://demo", "memory:", "memory:demo", ":9092", "http://h:9092", "://h:9092"})
    refusal(errc::invalid_option, [&] { (void)MessagingConfig::from_url(bad); });
}

TEST(RequireSchemeOf, AnotherBrokersSchemeIsRefusedWithoutItsPassword) {
  const auto why =
      refusal(errc::invalid_option, [] { require_scheme_of(BrokerType::memory, "kafka://u:hunter2@h:1"); });
  EXPECT_EQ(why, "connection string \"kafka://u:***@h:1\": it is one of kafka, and this broker is memory");
  refusal(errc::invalid_option, [] { require_scheme_of(BrokerType::memory, "http://h"); });
  refusal(errc::invalid_option, [] { require_scheme_of(BrokerType::redis, "memory://h"); });
  refusal(errc::invalid_option, [] { require_scheme_of(BrokerType::kafka, "rediss://h"); });
  for (const auto& [type, fine] : {std::pair{BrokerType::memory, "demo"},
                                   {BrokerType::memory, "memory://demo"},
                                   {BrokerType::kafka, "h:9092"},
                                   {BrokerType::kafka, "SASL_SSL://h:9092"},
                                   {BrokerType::redis, "h"},
                                   {BrokerType::redis, "unix:///tmp/redis"}})
    EXPECT_NO_THROW(require_scheme_of(type, fine)) << fine;
}

TEST(Redact, WhatWasRedactedStaysAsItIs) {
  for (const auto* text : {"amqp@T/1:h@v?pass=_h@v?h&u=5&p", "redis://u:p@h?key=a@b", "a@b:c@d,e:f", ":@:@"}) {
    const auto shown = redact(text);
    EXPECT_EQ(redact(shown), shown) << text;
  }
}

TEST(FromUrl, AMemoryUrlCarriesOptions) {
  const auto config = MessagingConfig::from_url("memory://demo?partitions=3&fault_delay=0.5&");
  EXPECT_EQ(config.connection_string, "memory://demo");
  EXPECT_EQ(config.connection_config.size(), 2U);
  EXPECT_EQ(Options(config).integer("partitions"), 3);
  EXPECT_EQ(Options(config).number("fault_delay"), 0.5);
  EXPECT_THAT(refusal(errc::invalid_option, [] { (void)MessagingConfig::from_url("memory://demo?partitions"); }),
              HasSubstr("not key=value"));
}

TEST(FromUrl, OptionsOfAMemoryUrlCountWhereverItIsGiven) {
  MessagingConfig config;
  config.connection_string = "memory://demo?partitions=3&max_messages=9";
  config.connection_config = {{"max_messages", 7}};
  const auto made = with_options_of_url(config);
  EXPECT_EQ(made.connection_string, "memory://demo");
  EXPECT_EQ(Options(made).integer("partitions"), 3);
  EXPECT_EQ(Options(made).integer("max_messages"), 7);
  boost::asio::io_context context;
  const MessageBroker broker(context.get_executor(), BrokerType::memory, "memory://other?partitions=2");
  EXPECT_EQ(broker.options().integer("partitions"), 2);
  EXPECT_THAT(refusal(errc::unknown_option,
                      [&] { MessageBroker(context.get_executor(), BrokerType::memory, "memory://other?partitons=2"); }),
              HasSubstr("partitions"));
}

class FromEnv : public testing::Test {
 protected:
  FromEnv() {
    for (const auto* name : {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RABBITMQ_URL", "NATS_URL", "MESSAGING_BROKER",
                             "MESSAGING_ENABLE_MONITORING"})
      set(name, nullptr);
  }
  void set(const char* name, const char* value) { variables_.emplace_front(name, value); }

 private:
  std::list<EnvironmentVariable> variables_;  // newest first, so that the oldest value is what remains
};

TEST_F(FromEnv, NothingSetSaysWhatToSet) {
  EXPECT_THAT(refusal(errc::invalid_option, [] { (void)MessagingConfig::from_env(); }),
              HasSubstr("KAFKA_BOOTSTRAP_SERVERS"));
}

TEST_F(FromEnv, TheOnlyAddressDecides) {
  const std::vector<std::tuple<const char*, const char*, BrokerType>> cases{
      {"KAFKA_BOOTSTRAP_SERVERS", "h:9092", BrokerType::kafka},
      {"REDIS_URL", "redis://h", BrokerType::redis},
      {"RABBITMQ_URL", "amqp://h", BrokerType::rabbitmq},
      {"NATS_URL", "nats://h", BrokerType::nats}};
  for (const auto& [name, address, type] : cases) {
    const EnvironmentVariable variable(name, address);
    const auto config = MessagingConfig::from_env();
    EXPECT_EQ(config.broker_type, type);
    EXPECT_EQ(config.connection_string, address);
    EXPECT_FALSE(config.enable_monitoring);
  }
}

TEST_F(FromEnv, OfSeveralMessagingBrokerDecides) {
  set("REDIS_URL", "redis://h");
  set("NATS_URL", "nats://h");
  EXPECT_THAT(refusal(errc::invalid_option, [] { (void)MessagingConfig::from_env(); }), HasSubstr("MESSAGING_BROKER"));
  set("MESSAGING_BROKER", "nats");
  EXPECT_EQ(MessagingConfig::from_env().broker_type, BrokerType::nats);
  set("MESSAGING_BROKER", "kafka");
  refusal(errc::invalid_option, [] { (void)MessagingConfig::from_env(); });
  set("MESSAGING_BROKER", "nat");
  EXPECT_THAT(refusal(errc::invalid_option, [] { (void)MessagingConfig::from_env(); }),
              HasSubstr("MESSAGING_BROKER: \"nat\"; did you mean \"nats\""));
}

TEST_F(FromEnv, WhatIsMissingIsNamed) {
  set("MESSAGING_BROKER", "redis");
  EXPECT_THAT(refusal(errc::invalid_option, [] { (void)MessagingConfig::from_env(); }),
              HasSubstr("MESSAGING_BROKER is redis, but REDIS_URL is not set"));
  set("MESSAGING_BROKER", nullptr);
  set("REDIS_URL", "redis://h");
  set("NATS_URL", "nats://h");
  EXPECT_THAT(refusal(errc::invalid_option, [] { (void)MessagingConfig::from_env(); }),
              HasSubstr("REDIS_URL and NATS_URL are set"));
}

TEST_F(FromEnv, MemoryNeedsNoAddress) {
  set("MESSAGING_BROKER", "memory");
  set("REDIS_URL", "redis://h");
  const auto config = MessagingConfig::from_env();
  EXPECT_EQ(config.broker_type, BrokerType::memory);
  EXPECT_EQ(config.connection_string, "memory://maestro");
}

TEST_F(FromEnv, MonitoringIsTrueOrFalse) {
  set("MESSAGING_BROKER", "memory");
  set("MESSAGING_ENABLE_MONITORING", "true");
  EXPECT_TRUE(MessagingConfig::from_env().enable_monitoring);
  set("MESSAGING_ENABLE_MONITORING", "0");
  EXPECT_FALSE(MessagingConfig::from_env().enable_monitoring);
  set("MESSAGING_ENABLE_MONITORING", "True");
  EXPECT_TRUE(MessagingConfig::from_env().enable_monitoring);
  set("MESSAGING_ENABLE_MONITORING", "perhaps");
  EXPECT_THAT(refusal(errc::invalid_option, [] { (void)MessagingConfig::from_env(); }), HasSubstr("\"perhaps\""));
}

}  // namespace
}  // namespace maestro::messaging

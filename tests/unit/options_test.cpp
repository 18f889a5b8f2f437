#include <limits>
#include <maestro/messaging/config.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using unit::EnvironmentVariable;
using unit::refusal;

MessagingConfig kafka() {
  MessagingConfig config;
  config.broker_type = BrokerType::kafka;
  return config;
}

std::string why_not(errc code, const MessagingConfig& config) {
  return refusal(code, [&] { (void)Options(config); });
}

/// The refusal of one value in the consumer map.
std::string why_not(std::string_view key, OptionValue value) {
  MessagingConfig config;
  config.consumer_config.emplace(key, std::move(value));
  return why_not(errc::invalid_option, config);
}

Duration backoff_of(OptionValue value) {
  MessagingConfig config;
  config.consumer_config = {{"initial_backoff", std::move(value)}, {"max_backoff", "24h"}};
  return Options(config).duration("initial_backoff");
}

TEST(Options, DefaultsAreInForceWhereNothingIsSaid) {
  const Options options{MessagingConfig{}};
  EXPECT_EQ(options.integer("prefetch"), 1024);
  EXPECT_EQ(options.number("backoff_multiplier"), 2.0);
  EXPECT_TRUE(options.boolean("enable_auto_commit"));
  EXPECT_EQ(options.duration("publish_timeout"), std::chrono::seconds(30));
  EXPECT_EQ(options.text("auto_offset_reset"), "earliest");
  EXPECT_EQ(options.text_if("client_id"), std::nullopt);
  EXPECT_FALSE(options.is_set("prefetch"));
}

TEST(Options, EveryDefaultOfTheTableIsAllowedByIt) {
  for (const auto type :
       {BrokerType::memory, BrokerType::kafka, BrokerType::redis, BrokerType::rabbitmq, BrokerType::nats}) {
    MessagingConfig config;
    config.broker_type = type;
    EXPECT_NO_THROW((void)Options(config)) << to_string(type);
  }
}

TEST(Options, AnUnknownKeyNamesTheNearestAndAllThatThereAre) {
  MessagingConfig config;
  config.consumer_config.emplace("prefech", 10);
  EXPECT_THAT(why_not(errc::unknown_option, config),
              AllOf(HasSubstr("\"prefech\" in consumer_config"), HasSubstr("did you mean \"prefetch\"?"),
                    HasSubstr("max_retry_attempts")));
}

TEST(Options, TheNearestKeyMayBeOfAnotherMap) {
  MessagingConfig config;
  config.connection_config.emplace("publish_timeot", 10);
  EXPECT_THAT(why_not(errc::unknown_option, config), HasSubstr("did you mean \"publish_timeout\" in producer_config?"));
}

TEST(Options, AMuchNearerKeyOfAnotherBrokerIsNamedWithThatBroker) {
  MessagingConfig memory;
  memory.connection_config.emplace("sasl_pasword", "x");
  EXPECT_THAT(why_not(errc::unknown_option, memory),
              HasSubstr("did you mean \"sasl_password\", an option of kafka (this broker is memory)?"));
  auto config = kafka();
  config.connection_config.emplace("sasl_pasword", "x");
  EXPECT_THAT(why_not(errc::unknown_option, config), HasSubstr("did you mean \"sasl_password\"?"));
}

TEST(Options, AVeryLongKeyIsCutInTheRefusal) {
  MessagingConfig config;
  config.connection_config.emplace(std::string(100'000, 'k'), 1);
  EXPECT_LT(why_not(errc::unknown_option, config).size(), 2000U);
}

TEST(Options, AKeyInTheWrongMapNamesTheRightOne) {
  MessagingConfig config;
  config.consumer_config.emplace("publish_timeout", 10);
  EXPECT_THAT(why_not(errc::unknown_option, config),
              HasSubstr("publish_timeout in consumer_config: it belongs into producer_config"));
}

TEST(Options, ThreeOfTheConnectionMayStandInTheConsumerMap) {
  MessagingConfig config;
  config.consumer_config = {{"group_id", "g"}, {"client_id", "c"}, {"auto_offset_reset", "latest"}};
  const Options options(config);
  EXPECT_EQ(options.text("group_id"), "g");
  EXPECT_EQ(options.text("client_id"), "c");
  EXPECT_EQ(options.text("auto_offset_reset"), "latest");
}

TEST(Options, AKeyOfAnotherBrokerSaysWhose) {
  MessagingConfig memory;
  memory.producer_config.emplace("compression_type", "zstd");
  EXPECT_THAT(why_not(errc::unknown_option, memory), HasSubstr("an option of kafka, and this broker is memory"));
  auto config = kafka();
  config.connection_config.emplace("partitions", 3);
  EXPECT_THAT(why_not(errc::unknown_option, config), HasSubstr("an option of memory, and this broker is kafka"));
}

TEST(Options, ValuesOutOfRangeSayWhatIsAllowed) {
  EXPECT_THAT(why_not("prefetch", 0),
              AllOf(HasSubstr("prefetch in consumer_config: 0"), HasSubstr("whole number, 1 to")));
  EXPECT_THAT(why_not("prefetch", std::numeric_limits<std::int64_t>::min()), HasSubstr("-9223372036854775808"));
  EXPECT_THAT(why_not("auto_offset_reset", "Earliest"), HasSubstr("earliest, latest"));
  EXPECT_THAT(why_not("backoff_multiplier", 0.5), HasSubstr("1 to 100"));
  EXPECT_THAT(why_not("drain_timeout", -1), HasSubstr("0 to 86400000 ms"));
}

TEST(Options, NamesCanBePartOfATopic) {
  for (const auto* key : {"client_id", "group_id"})
    for (const auto& bad : {std::string(), std::string("two words"), std::string("a..b"), std::string("a.*"),
                            std::string("a/b"), std::string("\xff"), std::string(250, 'a')})
      EXPECT_THAT(why_not(key, bad), AllOf(HasSubstr(key), HasSubstr("allowed is name, what can be part of a topic")))
          << bad;
}

TEST(Options, TextIsNeverEmptyAndEndsWhereItEnds) {
  for (const auto& bad : {std::string(), std::string("a\0b", 3)}) {
    auto config = kafka();
    config.connection_config.emplace("sasl_username", bad);
    EXPECT_THAT(why_not(errc::invalid_option, config), HasSubstr("sasl_username in connection_config: "));
  }
  auto config = kafka();
  config.connection_config.emplace("sasl_password", "");
  EXPECT_THAT(why_not(errc::invalid_option, config),
              HasSubstr("sasl_password in connection_config: it is empty; allowed is text"));
}

TEST(Options, TheFirstRetryWaitsNoLongerThanAnyMay) {
  EXPECT_THAT(why_not("initial_backoff", "31s"),
              HasSubstr("initial_backoff: 31000 ms; allowed is max_backoff at most, and that is 30000 ms"));
  EXPECT_THAT(why_not("max_backoff", 99),
              HasSubstr("initial_backoff: 100 ms; allowed is max_backoff at most, and that is 99 ms"));
}

TEST(Options, WhatIsNearNothingIsNotGuessedAt) {
  for (const auto* key : {"", "x", "zzzzzz"}) {
    MessagingConfig config;
    config.connection_config.emplace(key, 1);
    EXPECT_THAT(
        why_not(errc::unknown_option, config),
        AllOf(HasSubstr("there is no such option; allowed are client_id"), testing::Not(HasSubstr("did you mean"))));
  }
}

TEST(Options, ABrokerThatIsNoneIsRefused) {
  MessagingConfig config;
  config.broker_type = static_cast<BrokerType>(9);
  EXPECT_EQ(to_string(config.broker_type), "unknown");
  EXPECT_THAT(why_not(errc::invalid_option, config), HasSubstr("broker_type: 9; allowed are memory"));
}

TEST(Options, NotANumberIsNeverInRange) {
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(why_not("backoff_multiplier", nan), HasSubstr("nan"));
  why_not("backoff_multiplier", "nan");
  why_not("backoff_multiplier", "inf");
  why_not("backoff_multiplier", std::numeric_limits<double>::infinity());
  why_not("initial_backoff", "nans");
  why_not("initial_backoff", "infs");
}

TEST(Options, ValuesOfTheWrongTypeAreRefused) {
  EXPECT_THAT(why_not("prefetch", true), HasSubstr("whole number"));
  EXPECT_THAT(why_not("prefetch", 1.5), HasSubstr("whole number"));
  EXPECT_THAT(why_not("prefetch", "12x"), HasSubstr("\"12x\""));
  EXPECT_THAT(why_not("prefetch", ""), HasSubstr("\"\""));
  EXPECT_THAT(why_not("prefetch", "99999999999999999999"), HasSubstr("whole number"));
  EXPECT_THAT(why_not("enable_auto_commit", 1), HasSubstr("true or false"));
  EXPECT_THAT(why_not("enable_auto_commit", "yeah"), HasSubstr("true or false"));
  EXPECT_THAT(why_not("group_id", 7), HasSubstr("group_id in consumer_config: 7; allowed is name"));
}

TEST(Options, TextIsReadAsTheTypeThatTheOptionHas) {
  MessagingConfig config;
  config.consumer_config = {{"prefetch", "17"}, {"enable_auto_commit", "0"}, {"backoff_multiplier", "1.5"}};
  const Options options(config);
  EXPECT_EQ(options.integer("prefetch"), 17);
  EXPECT_FALSE(options.boolean("enable_auto_commit"));
  EXPECT_EQ(options.number("backoff_multiplier"), 1.5);
}

TEST(Options, DurationsHaveUnits) {
  using namespace std::chrono_literals;
  EXPECT_EQ(backoff_of(250), 250ms);
  EXPECT_EQ(backoff_of("250"), 250ms);
  EXPECT_EQ(backoff_of("250ms"), 250ms);
  EXPECT_EQ(backoff_of("3s"), 3s);
  EXPECT_EQ(backoff_of("1.5s"), 1500ms);
  EXPECT_EQ(backoff_of("2m"), 2min);
  EXPECT_EQ(backoff_of("1h"), 1h);
  EXPECT_EQ(backoff_of("0"), 0ms);
  for (const auto* bad : {"", "s", "ms", "5 s", "5d", "5S", "-1s", "1e300h", "2h", "1.5", "0x10", "s5"})
    EXPECT_THAT(why_not("initial_backoff", bad), HasSubstr("duration")) << bad;
}

TEST(Options, TheEnvironmentComesAfterTheConfigAndBeforeTheDefault) {
  const EnvironmentVariable retries("MESSAGING_MAX_RETRY_ATTEMPTS", "9");
  MessagingConfig config;
  EXPECT_EQ(Options(config).integer("max_retry_attempts"), 9);
  EXPECT_TRUE(Options(config).is_set("max_retry_attempts"));
  config.consumer_config.emplace("max_retry_attempts", 2);
  EXPECT_EQ(Options(config).integer("max_retry_attempts"), 2);
}

TEST(Options, AnEmptyVariableIsNoVariable) {
  const EnvironmentVariable retries("MESSAGING_MAX_RETRY_ATTEMPTS", "");
  EXPECT_EQ(Options(MessagingConfig{}).integer("max_retry_attempts"), 3);
}

TEST(Options, ABadVariableIsNamed) {
  const EnvironmentVariable dlq("MESSAGING_ENABLE_DLQ", "perhaps");
  EXPECT_THAT(why_not(errc::invalid_option, {}),
              HasSubstr("enable_dead_letter_queue in MESSAGING_ENABLE_DLQ: \"perhaps\""));
}

TEST(Options, ABooleanIsWhatPeopleWriteForOne) {
  for (const auto* text : {"true", "True", "YES", "on", "1"}) {
    const EnvironmentVariable dlq("MESSAGING_ENABLE_DLQ", text);
    EXPECT_TRUE(Options(MessagingConfig{}).boolean("enable_dead_letter_queue")) << text;
  }
  for (const auto* text : {"false", "False", "no", "Off", "0"}) {
    const EnvironmentVariable dlq("MESSAGING_ENABLE_DLQ", text);
    EXPECT_FALSE(Options(MessagingConfig{}).boolean("enable_dead_letter_queue")) << text;
  }
}

TEST(Options, KafkasVariablesAreForKafka) {
  const EnvironmentVariable group("KAFKA_GROUP_ID", "from-environment");
  EXPECT_EQ(Options(MessagingConfig{}).text("group_id"), "");
  EXPECT_EQ(Options(kafka()).text("group_id"), "from-environment");
}

TEST(Options, NativePropertiesPassThrough) {
  auto config = kafka();
  config.connection_config = {{"raw.socket.nagle.disable", true}, {"raw.fetch.min.bytes", 10}, {"raw.debug", "broker"}};
  EXPECT_THAT(Options(config).raw(),
              testing::ElementsAre(testing::Pair("debug", "broker"), testing::Pair("fetch.min.bytes", "10"),
                                   testing::Pair("socket.nagle.disable", "true")));
  MessagingConfig memory;
  memory.connection_config.emplace("raw.debug", "all");
  EXPECT_THAT(why_not(errc::unknown_option, memory), HasSubstr("no native client"));
}

TEST(Options, SecretsAreNeverShown) {
  auto config = kafka();
  config.connection_config.emplace("sasl_password", "hunter2");
  const Options options(config);
  EXPECT_EQ(options.text("sasl_password"), "hunter2");
  bool seen = false;
  for (const auto& row : options.shown()) {
    EXPECT_THAT(row.value, testing::Not(HasSubstr("hunter2")));
    if (row.spec->name != "sasl_password") continue;
    seen = true;
    EXPECT_EQ(row.value, "***");
    EXPECT_EQ(row.origin, "config");
  }
  EXPECT_TRUE(seen);
  config.connection_config.insert_or_assign("sasl_password", 424242);
  EXPECT_THAT(why_not(errc::invalid_option, config), AllOf(HasSubstr("***"), testing::Not(HasSubstr("424242"))));
}

TEST(Options, ShownNamesTheOriginOfEach) {
  const EnvironmentVariable retries("MESSAGING_MAX_RETRY_ATTEMPTS", "9");
  MessagingConfig config;
  config.consumer_config.emplace("prefetch", 5);
  std::map<std::string_view, std::string> origins;
  const Options options(config);
  for (const auto& row : options.shown()) origins[row.spec->name] = row.origin;
  EXPECT_EQ(origins["prefetch"], "config");
  EXPECT_EQ(origins["max_retry_attempts"], "environment");
  EXPECT_EQ(origins["max_backoff"], "default");
}

TEST(Options, WhatHasNoValueForThisBrokerSaysSo) {
  const Options options{MessagingConfig{}};
  EXPECT_THAT(refusal(errc::invalid_option, [&] { (void)options.integer("max_poll_records"); }),
              HasSubstr("max_poll_records"));
}

TEST(Options, TheReferenceNamesEveryOption) {
  const auto page = options_reference();
  for (const auto& spec : option_table()) EXPECT_THAT(page, HasSubstr("| `" + std::string(spec.name) + "` |"));
}

}  // namespace
}  // namespace maestro::messaging

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <maestro/messaging/error.hpp>
#include <regex>

#include "brokers/kafka/failure.hpp"
#include "brokers/kafka/fetch_marks.hpp"
#include "brokers/kafka/given_out.hpp"
#include "brokers/kafka/landmark.hpp"
#include "brokers/kafka/offsets.hpp"
#include "brokers/kafka/openings.hpp"
#include "brokers/kafka/pattern.hpp"
#include "brokers/kafka/properties.hpp"
#include "brokers/kafka/trouble.hpp"

namespace maestro::messaging::kafka {
namespace {

using ::testing::HasSubstr;

TEST(KafkaPattern, MatchesTokensAsOursDo) {
  const auto matches = [](std::string_view pattern, const std::string& topic) {
    return std::regex_match(topic, std::regex(regex_of(pattern), std::regex::extended));
  };
  EXPECT_TRUE(matches("orders.*", "orders.eu"));
  EXPECT_FALSE(matches("orders.*", "orders.eu.new"));
  EXPECT_FALSE(matches("orders.*", "ordersXeu"));
  EXPECT_FALSE(matches("orders.*", "orders."));
  EXPECT_TRUE(matches("*.eu.*", "orders.eu.new"));
  EXPECT_TRUE(matches("orders.>", "orders.eu.new"));
  EXPECT_TRUE(matches("orders.#", "orders.eu"));
  EXPECT_FALSE(matches("orders.>", "orders"));
  EXPECT_EQ(regex_of("a.b").front(), '^');
}

TEST(KafkaPattern, FindsInternalTopicsOnlyWhereTheFirstTokenNamesThem) {
  struct Case {
    const char* pattern;
    const char* topic;
    bool is_found;
  };
  for (const auto& [pattern, topic, is_found] : {Case{">", "__consumer_offsets", false},
                                                 {"#", "__transaction_state", false},
                                                 {"*", "__consumer_offsets", false},
                                                 {"*", "__", false},
                                                 {">", "__", false},
                                                 {">", "___", false},
                                                 {">", "__own.eu", false},
                                                 {"*.eu", "__own.eu", false},
                                                 {"*.>", "__own.eu", false},
                                                 {"__own.*", "__own.eu", true},
                                                 {"__own.>", "__own.eu.new", true},
                                                 {"__consumer_offsets", "__consumer_offsets", true},
                                                 {">", "_schemas", true},
                                                 {">", "_", true},
                                                 {">", "_.__", true},
                                                 {">", "_a.b", true},
                                                 {">", "a__", true},
                                                 {">", "a", true},
                                                 {">", "a.b", true},
                                                 {"*", "_schemas", true},
                                                 {"*", "_", true},
                                                 {"*", "a", true},
                                                 {"*", "a_", true},
                                                 {"*", "a.b", false},
                                                 {"*", "_.b", false},
                                                 {"*.b", "_.b", true},
                                                 {"*.b", "_a.b", true},
                                                 {"*.*", "a.__b", true},
                                                 {"a.*", "a.__b", true},
                                                 {"a.>", "a.__b", true}}) {
    EXPECT_EQ(std::regex_match(topic, std::regex(regex_of(pattern), std::regex::extended)), is_found)
        << pattern << " " << topic << " by " << regex_of(pattern);
    EXPECT_EQ(stands_for(pattern, topic), is_found) << pattern << " " << topic;
  }
}

TEST(KafkaNames, AreCheckedAsKafkaDoes) {
  EXPECT_NO_THROW(check_topic_name("Orders_eu-1.new"));
  EXPECT_NO_THROW(check_topic_name(std::string(249, 'x')));
  for (const auto& bad : {std::string(), std::string("."), std::string(".."), std::string("a b"), std::string("a/b"),
                          std::string("ä"), std::string(250, 'x')}) {
    try {
      check_topic_name(bad);
      ADD_FAILURE() << bad;
    } catch (const MessagingError& failure) {
      EXPECT_EQ(failure.reason(), errc::invalid_topic);
      EXPECT_THAT(failure.what(), HasSubstr("Kafka allows up to 249 ASCII letters"));
    }
  }
}

TEST(KafkaServers, AreHostAndPortWithOrWithoutScheme) {
  EXPECT_EQ(servers_of("kafka://a:1,b:2"), "a:1,b:2");
  EXPECT_EQ(servers_of("a:1"), "a:1");
  EXPECT_EQ(servers_of("kafka://a:1/"), "a:1");
  EXPECT_EQ(servers_of("kafka://[::1]:9092,host"), "[::1]:9092,host");
  for (const auto* bad : {"", "kafka://", "kafka://a:1/topic", "kafka://user:hush@a:1", "kafka://:", ":1", "a:", "a:0",
                          "a:99999", "a:1,", "a:1,,b:1", "a:x", "a:1:2", "[::1", "kafka://[::1]9092"}) {
    try {
      static_cast<void>(servers_of(bad));
      ADD_FAILURE() << bad;
    } catch (const MessagingError& failure) {
      EXPECT_EQ(failure.reason(), errc::invalid_option);
      EXPECT_THAT(failure.what(), ::testing::Not(HasSubstr("hush")));
    }
  }
}

TEST(KafkaProperties, SayWhatAnAcknowledgedPublishHasSurvived) {
  const auto told = [](ConfigMap producer) {
    MessagingConfig config;
    config.broker_type = BrokerType::kafka;
    config.connection_string = "a:1";
    config.producer_config = std::move(producer);
    return acknowledged(Session{.executor = {}, .clock = nullptr, .options = Options(config), .servers = "a:1"});
  };
  EXPECT_THAT(told({}).means, HasSubstr("acks=all"));
  EXPECT_TRUE(told({}).in_order);
  const auto least = told({{"raw.enable.idempotence", "false"}, {"raw.acks", "0"}});
  EXPECT_THAT(least.means, HasSubstr("no broker has confirmed it (acks=0)"));
  EXPECT_THAT(least.means, HasSubstr("enable.idempotence=false"));
  EXPECT_FALSE(least.in_order);
  EXPECT_THAT(told({{"raw.enable.idempotence", "false"}, {"raw.acks", "1"}}).means, HasSubstr("leader (acks=1)"));
}

TEST(KafkaProperties, RefuseWhatTheLibraryCannotDoWithout) {
  const auto given = [](const std::string& name, const std::string& value) {
    MessagingConfig config;
    config.broker_type = BrokerType::kafka;
    config.connection_string = "a:1";
    config.consumer_config.insert_or_assign("raw." + name, value);
    return Session{.executor = {}, .clock = nullptr, .options = Options(config), .servers = "a:1"};
  };
  const std::pair<const char*, const char*> refused[] = {
      {"group.id", "mine"},       {"bootstrap.servers", "b:1"},      {"partition.assignment.strategy", "range"},
      {"partitioner", "random"},  {"enable.auto.offset.store", "true"}, {"enable.partition.eof", "false"},
      {"delivery.report.only.error", "true"}};
  for (const auto& [name, value] : refused) {
    try {
      static_cast<void>(consumer_properties(given(name, value), "g", {.topic = "t", .group = "g"}));
      ADD_FAILURE() << name << " was taken";
    } catch (const MessagingError& failure) {
      EXPECT_EQ(failure.reason(), errc::invalid_option);
      EXPECT_THAT(failure.what(), HasSubstr(std::string("raw.") + name));
    }
  }
  EXPECT_NO_THROW(static_cast<void>(consumer_properties(given("partition.assignment.strategy", "cooperative-sticky"), "g", {.topic = "t", .group = "g"})));
}

TEST(KafkaProperties, RefuseALoginThatCannotBeMadeByItsOption) {
  const auto refusal = [](ConfigMap connection) -> std::string {
    MessagingConfig config;
    config.broker_type = BrokerType::kafka;
    config.connection_string = "a:1";
    config.connection_config = std::move(connection);
    config.connection_config.insert({{"security_protocol", "SASL_PLAINTEXT"}, {"sasl_mechanism", "PLAIN"}});
    try {
      static_cast<void>(
          producer_properties(Session{.executor = {}, .clock = nullptr, .options = Options(config), .servers = "a:1"}));
    } catch (const MessagingError& failure) {
      EXPECT_EQ(failure.reason(), errc::invalid_option);
      return failure.what();
    }
    return "";
  };
  EXPECT_EQ(refusal({{"sasl_username", "alice"}, {"sasl_password", "hush "}}), "");
  EXPECT_EQ(refusal({{"sasl_username", "alice"}, {"raw.sasl.password", "hush"}}), "");
  EXPECT_EQ(refusal({{"raw.sasl.mechanisms", "OAUTHBEARER"}}), "");
  EXPECT_THAT(refusal({{"sasl_username", "alice"}}), HasSubstr("sasl_password is absent"));
  EXPECT_THAT(refusal({{"sasl_password", "hush"}}), HasSubstr("sasl_username is absent"));
  // librdkafka would take them for the same without the white space.
  for (const auto* name : {"sasl_password", "raw.sasl.password"}) {
    for (const auto* password : {" hush", "\nhush", "\thush"}) {
      const auto said = refusal({{"sasl_username", "alice"}, {name, password}});
      EXPECT_THAT(said, HasSubstr(std::string(name) + ": begins with white space"));
      EXPECT_THAT(said, ::testing::Not(HasSubstr("hush")));
    }
  }
  EXPECT_THAT(refusal({{"sasl_username", " alice"}, {"sasl_password", "hush"}}),
              HasSubstr("sasl_username: begins with white space"));
}

TEST(KafkaProperties, RefuseALoginWhereNoneIsMade) {
  const auto refusal = [](ConfigMap connection) -> std::string {
    MessagingConfig config;
    config.broker_type = BrokerType::kafka;
    config.connection_string = "a:1";
    config.connection_config = std::move(connection);
    try {
      static_cast<void>(
          producer_properties(Session{.executor = {}, .clock = nullptr, .options = Options(config), .servers = "a:1"}));
    } catch (const MessagingError& failure) {
      EXPECT_EQ(failure.reason(), errc::invalid_option);
      return failure.what();
    }
    return "";
  };
  EXPECT_THAT(refusal({{"sasl_username", "alice"}}),
              HasSubstr("sasl_username is given, and security_protocol=PLAINTEXT makes no login; allowed with it are "
                        "SASL_PLAINTEXT and SASL_SSL"));
  EXPECT_THAT(refusal({{"security_protocol", "SSL"}, {"sasl_mechanism", "PLAIN"}}),
              HasSubstr("sasl_mechanism is given, and security_protocol=SSL makes no login"));
  const auto said = refusal({{"sasl_password", "hush"}});
  EXPECT_THAT(said, HasSubstr("sasl_password is given"));
  EXPECT_THAT(said, ::testing::Not(HasSubstr("hush")));
  EXPECT_EQ(refusal({{"sasl_username", "alice"}, {"raw.security.protocol", "sasl_plaintext"}}), "");
}

TEST(KafkaFailure, SaysWhatItIsToUs) {
  EXPECT_EQ(code_of(RD_KAFKA_RESP_ERR__AUTHENTICATION), errc::authentication_failed);
  EXPECT_EQ(code_of(RD_KAFKA_RESP_ERR__SSL), errc::tls_failed);
  EXPECT_EQ(code_of(RD_KAFKA_RESP_ERR__TRANSPORT), errc::connection_failed);
  EXPECT_EQ(code_of(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE), errc::message_too_large);
  EXPECT_EQ(code_of(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART), errc::topic_not_found);
  EXPECT_EQ(code_of(RD_KAFKA_RESP_ERR__MSG_TIMED_OUT), errc::timed_out);
  EXPECT_EQ(code_of(RD_KAFKA_RESP_ERR_UNKNOWN), errc::broker_error);
  EXPECT_EQ(code_of(RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR), errc::broker_error) << "not the message's own fault";
  EXPECT_TRUE(is_transient(RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS));
  EXPECT_TRUE(is_transient(RD_KAFKA_RESP_ERR__TRANSPORT));
  EXPECT_TRUE(is_transient(RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR)) << "another broker may lead the partition soon";
  EXPECT_FALSE(is_transient(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE));
  EXPECT_THAT(describe(RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, "publishing").detail, HasSubstr("min.insync.replicas"));
  EXPECT_THAT(describe(RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, "asking").detail, HasSubstr("full or broken"));
}

TEST(KafkaFailure, OfADeliveryTellsSurelyNotDoneFromUnknown) {
  OutgoingMessage message;
  message.topic = "t";
  const auto code = [&](rd_kafka_resp_err_t error, rd_kafka_msg_status_t status, bool creates) {
    return describe_delivery(error, status, message, creates).code;
  };
  constexpr auto no = RD_KAFKA_MSG_STATUS_NOT_PERSISTED;
  EXPECT_EQ(code(RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, no, true), errc::timed_out);
  EXPECT_EQ(code(RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED, true),
            errc::outcome_unknown);
  EXPECT_EQ(code(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, no, true), errc::connection_failed)
      << "it is made and tried again";
  EXPECT_EQ(code(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, no, false), errc::topic_not_found);
  EXPECT_EQ(code(RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, no, true), errc::connection_failed) << "the topic was deleted";
  EXPECT_EQ(code(RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, no, false), errc::connection_failed) << "it has fewer partitions now";
  message.partition = 7;
  EXPECT_EQ(code(RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, no, true), errc::invalid_argument) << "somebody asked for it";
}

TEST(KafkaFetchMarks, PauseAboveTheHighMarkAndResumeFarBelowIt) {
  FetchMarks marks(1000);
  using Change = FetchMarks::Change;
  marks.add(999);
  EXPECT_EQ(marks.change(), Change::none);
  marks.add(1);
  EXPECT_EQ(marks.change(), Change::pause);
  EXPECT_EQ(marks.change(), Change::none) << "said once";
  marks.remove(749);
  EXPECT_EQ(marks.change(), Change::none);
  marks.remove(1);
  EXPECT_EQ(marks.change(), Change::resume);
  EXPECT_FALSE(marks.paused());
}

TEST(KafkaFetchMarks, WhatWasHandedOutCountsToo) {
  using Change = FetchMarks::Change;
  FetchMarks marks(8000);
  marks.add(3000);
  EXPECT_EQ(marks.change(4000), Change::none);
  EXPECT_EQ(marks.change(5000), Change::pause);
  marks.remove(3000);
  EXPECT_EQ(marks.change(5000), Change::resume);
  marks.add(999);
  EXPECT_EQ(marks.change(1'000'000), Change::none) << "an eighth is always left";
  marks.add(1);
  EXPECT_EQ(marks.change(1'000'000), Change::pause);
}

/// One look, when it is due.
bool look_finds(GivenOut& given_out, std::int32_t partitions, TimePoint now) {
  EXPECT_TRUE(given_out.is_due(now));
  return given_out.found(given_out.look(), partitions, now);
}

TEST(KafkaGivenOut, WhoeverGaveOutTooFewJoinsAnewAndNotForEver) {
  using namespace std::chrono_literals;
  GivenOut given_out;
  TimePoint now{};
  for (int times = 0; times < 4; ++times) {
    given_out.begin(0, now);
    EXPECT_FALSE(given_out.is_due(now));
    EXPECT_FALSE(look_finds(given_out, 6, now += 1s)) << "librdkafka may be about to see it";
    EXPECT_EQ(look_finds(given_out, 6, now += 1s), times < 3);
    EXPECT_FALSE(given_out.is_due(now + 1h)) << "until the next rebalance";
  }
  given_out.begin(6, now);
  EXPECT_FALSE(look_finds(given_out, 6, now += 1s));
  given_out.begin(0, now);
  EXPECT_FALSE(look_finds(given_out, 6, now += 1s));
  EXPECT_TRUE(look_finds(given_out, 6, now += 1s)) << "it had helped";
}

TEST(KafkaGivenOut, ATopicThatIsGoneIsLookedForEverMoreSeldom) {
  using namespace std::chrono_literals;
  GivenOut given_out;
  TimePoint now{};
  given_out.begin(0, now);
  EXPECT_FALSE(look_finds(given_out, 0, now += 1s));
  EXPECT_FALSE(given_out.is_due(now + 1s));
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(look_finds(given_out, 0, now += 30s));
  EXPECT_FALSE(given_out.is_due(now + 29s));
}

TEST(KafkaGivenOut, ALookFromBeforeARebalanceSaysNothing) {
  using namespace std::chrono_literals;
  GivenOut given_out;
  TimePoint now{};
  given_out.begin(0, now);
  EXPECT_FALSE(look_finds(given_out, 6, now += 1s));
  const auto round = given_out.look();
  EXPECT_FALSE(given_out.is_due(now + 5s)) << "one at a time";
  given_out.begin(6, now);
  EXPECT_FALSE(given_out.found(round, 9, now));
  given_out.begin(std::nullopt, now);
  EXPECT_FALSE(given_out.is_due(now + 1h)) << "another member leads";
}

constexpr auto anywhere = RD_KAFKA_PARTITION_UA;

TEST(KafkaOpenings, OneMessageOpensAPartitionAndNoOtherIsUnderWayWithIt) {
  Openings openings;
  EXPECT_TRUE(openings.may_go(anywhere));
  EXPECT_TRUE(openings.go(anywhere));
  EXPECT_FALSE(openings.may_go(anywhere));
  EXPECT_FALSE(openings.may_go(1)) << "it may be there";
  openings.learn(3);
  openings.answer(anywhere, 1, true);
  EXPECT_TRUE(openings.may_go(1));
  EXPECT_FALSE(openings.go(1)) << "it is open";
  EXPECT_TRUE(openings.go(0));
  EXPECT_TRUE(openings.is_opening(0));
  EXPECT_FALSE(openings.may_go(0));
  EXPECT_TRUE(openings.may_go(1));
  EXPECT_TRUE(openings.may_go(2));
  EXPECT_FALSE(openings.may_go(anywhere));
  EXPECT_TRUE(openings.may_choose()) << "another one";
  openings.answer(0, 0, false);
  EXPECT_TRUE(openings.may_go(0)) << "the next one tries";
  openings.go(0);
  openings.answer(0, 0, true);
  openings.go(2);
  EXPECT_FALSE(openings.all_open());
  openings.answer(2, 2, true);
  EXPECT_TRUE(openings.all_open());
  EXPECT_TRUE(openings.may_go(anywhere));
  openings.learn(4);
  EXPECT_FALSE(openings.all_open()) << "it got more partitions";
  openings.close();
  EXPECT_TRUE(openings.go(1)) << "it was made again";
}

TEST(KafkaOpenings, PartitionsThatThereAreNotAreLeftToTheClient) {
  Openings openings;
  for (const std::int32_t odd : {-5, 2'000'000'000}) {
    EXPECT_TRUE(openings.may_go(odd));
    EXPECT_FALSE(openings.go(odd));
  }
  EXPECT_TRUE(openings.go(7)) << "there may be";
  EXPECT_TRUE(openings.may_go(0));
  EXPECT_FALSE(openings.may_go(anywhere));
  openings.learn(3);
  EXPECT_EQ(openings.partitions(), 3);
  EXPECT_TRUE(openings.may_go(anywhere));
  EXPECT_TRUE(openings.may_go(7));
  EXPECT_FALSE(openings.go(7));
  openings.answer(7, 7, false);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(openings.go(i));
    openings.answer(i, i, true);
  }
  EXPECT_TRUE(openings.all_open());
}

TEST(KafkaOpenings, ATopicThatWasMadeAgainMayHaveFewerPartitions) {
  Openings openings;
  openings.learn(6);
  for (int i = 0; i < 6; ++i) {
    openings.go(i);
    if (i != 5) openings.answer(i, i, true);
  }
  openings.close();
  EXPECT_EQ(openings.partitions(), 0);
  openings.learn(3);
  EXPECT_TRUE(openings.may_go(anywhere)) << "partition 5 is gone, and so is what was under way there";
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(openings.go(i));
    EXPECT_FALSE(openings.go(i)) << "under way already";
    openings.answer(i, i, true);
  }
  openings.answer(5, 5, true);
  EXPECT_TRUE(openings.all_open());
}

TEST(KafkaOpenings, AMessageThatWentElsewhereOpensWhereItWent) {
  Openings openings;
  openings.learn(3);
  EXPECT_TRUE(openings.go(0));
  openings.answer(0, 2, true);
  EXPECT_TRUE(openings.go(0));
  EXPECT_FALSE(openings.go(2));
}

TEST(KafkaOpenings, WhereNobodyKnowsThePartitionOneMessageStandsForAll) {
  Openings openings;
  openings.trust();
  EXPECT_TRUE(openings.go(anywhere));
  EXPECT_FALSE(openings.may_go(anywhere));
  openings.answer(anywhere, 5, true);
  EXPECT_TRUE(openings.all_open());
  EXPECT_FALSE(openings.go(anywhere));
}

TEST(KafkaOffsets, APlaceIsWhatIsSettled) {
  Offsets offsets(10, 10);
  for (int i = 10; i < 15; ++i) EXPECT_TRUE(offsets.accept(i));
  EXPECT_FALSE(offsets.accept(12)) << "it came before";
  offsets.hand_out(10);
  offsets.hand_out(11);
  EXPECT_EQ(offsets.place(), 10);
  EXPECT_FALSE(offsets.is_dirty());
  EXPECT_EQ(offsets.acknowledge(11), 2);
  EXPECT_EQ(offsets.acknowledge(11), 0);
  EXPECT_EQ(offsets.acknowledge(12), 0) << "it was not handed out";
  EXPECT_EQ(offsets.place(), 12);
  EXPECT_TRUE(offsets.is_dirty());
  EXPECT_TRUE(offsets.all_settled());
  EXPECT_EQ(offsets.lag(20, false), 8);
  offsets.commit_done(12);
  EXPECT_FALSE(offsets.is_dirty());
  offsets.drop_ready();
  EXPECT_TRUE(offsets.accept(12)) << "what was dropped comes again";
}

TEST(KafkaOffsets, TheEndCountsOnceAllBelowIsSettled) {
  Offsets offsets(0, 0);
  EXPECT_TRUE(offsets.accept(0));
  offsets.reached_end(2);  // 1 is a transaction's marker
  EXPECT_EQ(offsets.place(), 0);
  offsets.hand_out(0);
  EXPECT_EQ(offsets.place(), 0);
  offsets.acknowledge(0);
  EXPECT_EQ(offsets.place(), 2);
  EXPECT_EQ(offsets.lag(2, false), 0);
}

TEST(KafkaOffsets, TheEndIsNoPlaceForWhatWasDropped) {
  Offsets offsets(0, 0);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(offsets.accept(i));
  offsets.reached_end(10);
  offsets.hand_out(3);
  offsets.acknowledge(3);
  offsets.drop_ready();
  EXPECT_EQ(offsets.place(), 4);
  EXPECT_EQ(offsets.lag(10, false), 6);
}

TEST(KafkaLandmarks, GoThroughTheMetadataOfAPlace) {
  Landmark landmark;
  landmark.offset = 1'234'567'890'123;
  landmark.timestamp = 1'764'400'000'123;
  landmark.size = 87;
  constexpr std::int64_t place = 1'234'567'890'125;
  EXPECT_EQ(Landmark::from_metadata(landmark.metadata(place), place), landmark);
  EXPECT_FALSE(Landmark::from_metadata(landmark.metadata(place), place + 1).known()) << "it was made for another place";
  landmark.timestamp = -1;  // a message without one
  EXPECT_EQ(Landmark::from_metadata(landmark.metadata(place), place), landmark);
  EXPECT_TRUE(Landmark::from_metadata("maestro-landmark:5,4,3,2", 5).known());
  for (const auto* others : {"", "maestro-landmark:", "maestro-landmark:5,4,3", "maestro-landmark:5,4,3,2,1", "maestro-landmark:5,4,3,x",
                             "maestro-landmark:5;4;3;2", "maestro-landmark:5,,3,2", "maestro-landmark:5,5,3,2", "somebody's own"})
    EXPECT_FALSE(Landmark::from_metadata(others, 5).known()) << others;
}

TEST(KafkaOffsets, WhatIsBeforeAPlaceThatIsTrueCameBefore) {
  Offsets offsets(10, 10);
  offsets.base_is_true();
  EXPECT_FALSE(offsets.accept(9));
  EXPECT_EQ(offsets.place(), 10);
  offsets.reached_end(12);  // markers
  EXPECT_EQ(offsets.place(), 12);
  EXPECT_TRUE(offsets.accept(12));
}

TEST(KafkaTroubles, TheLogTellsHowManyPartitionsALeaderGaveOut) {
  EXPECT_EQ(given_out("CGRP", "[thrd:main]: Group \"g\": Partitions owned by members: 3, partitions assigned by assignor: 12"), 12);
  EXPECT_EQ(given_out("CGRP", "Group \"g\": Partitions owned by members: 3, partitions assigned by assignor: 0"), 0);
  EXPECT_FALSE(given_out("CGRP", "Group \"g\": 3 partitions assigned to consumers"));
  EXPECT_FALSE(given_out("ASSIGN", "partitions assigned by assignor: 12"));
  Troubles troubles;
  EXPECT_FALSE(troubles.take_given_out());
  troubles.note_given_out(0);
  EXPECT_EQ(troubles.take_given_out(), 0);
  EXPECT_FALSE(troubles.take_given_out());
}

TEST(KafkaTroubles, TheLogTellsWhetherAMemberWaitsToJoin) {
  EXPECT_EQ(joining("CGRPJOINSTATE", "[thrd:main]: Group \"g\" changed join state init -> wait-join (state up)"), true);
  EXPECT_EQ(joining("CGRPJOINSTATE", "Group \"a -> init (b\" changed join state steady -> init (state up)"), true);
  EXPECT_EQ(joining("CGRPJOINSTATE", "Group \"g\" changed join state wait-sync -> wait-assign-call (state up)"), false);
  EXPECT_EQ(joining("CGRPJOINSTATE", "Group \"g\" changed join state wait-assign-call -> steady (state up)"), false);
  EXPECT_EQ(joining("CGRPJOINSTATE", "Group \"g\" is as it was"), std::nullopt);
  EXPECT_EQ(joining("CGRPSTATE", "Group \"g\" changed state query-coord -> init (join-state init)"), std::nullopt);
}

TEST(KafkaTroubles, AreReadFromTheLog) {
  const auto lost = trouble_of(
      "OFFSET",
      "[thrd:main]: orders.eu [12]: offset reset (at offset 1180, broker 1) to cached BEGINNING offset 0: fetch failed "
      "due to requested offset not available on the broker: Broker: Offset out of range");
  ASSERT_TRUE(lost);
  EXPECT_EQ(lost->topic, "orders.eu");
  EXPECT_EQ(lost->partition, 12);
  EXPECT_EQ(lost->kind, Trouble::Kind::out_of_range);
  const auto unknown =
      trouble_of("BROKERUA", "orders [0]: broker unavailable: fetch: Broker: Unknown topic or partition");
  ASSERT_TRUE(unknown);
  EXPECT_EQ(unknown->topic, "orders");
  EXPECT_EQ(unknown->partition, 0);
  EXPECT_EQ(unknown->kind, Trouble::Kind::unknown_topic);
  EXPECT_FALSE(trouble_of(
      "OFFSET",
      "orders [0]: offset reset (at offset INVALID, broker -1) to BEGINNING: no previously committed offset available: "
      "Local: No offset stored"));
  EXPECT_FALSE(trouble_of("BROKERUA", "orders [0]: broker unavailable: produce: Broker: Unknown topic or partition"));
  EXPECT_FALSE(trouble_of("BROKERUA", "orders [0]: broker unavailable: fetch: Broker: Not leader for partition"));
  EXPECT_FALSE(trouble_of("OFFSET", "Broker: Offset out of range"));

  const auto replaced =
      trouble_of("METADATA", "[thrd:main]: Topic orders changed id from 2zIMWHXFTX+6PoPf9VvmXg to W3OIn4Y1TOKWTwxC2nUSNw");
  ASSERT_TRUE(replaced);
  EXPECT_EQ(replaced->topic, "orders");
  EXPECT_FALSE(replaced->partition);
  EXPECT_EQ(replaced->kind, Trouble::Kind::unknown_topic);
  EXPECT_FALSE(trouble_of("METADATA", "Topic orders changed id from AAAAAAAAAAAAAAAAAAAAAA to W3OIn4Y1TOKWTwxC2nUSNw"));
  EXPECT_FALSE(trouble_of("METADATA", "[thrd:main]: Topic orders [3] Leader 1 Epoch 0"));
}

TEST(KafkaOffers, TellABrokerThatIsTooOld) {
  Offers offers;
  const std::string one = "[thrd:sasl_ssl://one:9092/bootstrap]: sasl_ssl://one:9092/bootstrap";
  const std::string two = "two:9092/2";
  const auto say = [&](const std::string& name, const std::string& line) { return offers.read(name + ":" + line); };
  const std::string begin = " Broker API support:";
  const std::string end = "  Feature MsgVer1: Produce (2..2) supported by broker";
  const auto api = [](int key) { return fmt::format("   ApiKey Name ({}) Versions 0..8", key); };
  // Their lines come between each other's.
  EXPECT_FALSE(say(one, begin));
  EXPECT_FALSE(say(two, begin));
  for (int key = 0; key < 60; ++key) {
    EXPECT_FALSE(say(one, api(key)));
    EXPECT_FALSE(say(two, api(key)));
  }
  EXPECT_FALSE(say(two, api(60)));
  EXPECT_FALSE(say(two, end));
  EXPECT_EQ(say(one, end), "one:9092");
  EXPECT_FALSE(say(one, end)) << "said once";
  // What another server, or librdkafka's mock cluster, leaves out says nothing.
  EXPECT_FALSE(say(one, begin));
  for (const int key : {0, 1, 2, 3, 8, 18, 22}) EXPECT_FALSE(say(one, api(key)));
  EXPECT_FALSE(say(one, end));
}

}  // namespace
}  // namespace maestro::messaging::kafka

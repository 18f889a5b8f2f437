// Errors that a real broker does not give on demand, from librdkafka's mock cluster.
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include <set>

#include "runtime/notifier.hpp"
#include "support/real_time.hpp"

namespace maestro::messaging::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr std::int16_t produce_request = 0;
constexpr std::int16_t fetch_request = 1;
constexpr std::int16_t commit_request = 8;
constexpr std::int16_t heartbeat_request = 12;
constexpr std::int16_t sync_request = 14;

class KafkaMockErrors : public ::testing::Test {
 protected:
  KafkaMockErrors() {
    char text[256];
    auto* conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "0", text, sizeof text);  // it complains that it has no servers
    client_ = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    cluster_ = rd_kafka_mock_cluster_new(client_, 1);
    rd_kafka_mock_topic_create(cluster_, "orders", 1, 1);
    rd_kafka_mock_topic_create(cluster_, "payments", 1, 1);
  }
  ~KafkaMockErrors() override {
    rd_kafka_mock_cluster_destroy(cluster_);
    rd_kafka_destroy(client_);
  }

  MessagingConfig config() const {
    MessagingConfig made;
    made.broker_type = BrokerType::kafka;
    made.connection_string = rd_kafka_mock_cluster_bootstraps(cluster_);
    made.connection_config.insert_or_assign("auto_create_topics", false);
    made.producer_config.insert_or_assign("publish_timeout", 20'000);
    made.consumer_config.insert_or_assign("session_timeout", 6000);  // the mock does not always let a member leave
    return made;
  }
  template <class... Errors>
  void next(std::int16_t request, Errors... errors) {
    rd_kafka_mock_push_request_errors(cluster_, request, sizeof...(errors), errors...);
  }

  /// Publishes numbers while those errors come, and reads them: all there, once each, in order.
  void all_arrive_in_order() {
    run_real([&](boost::asio::io_context& context) -> awaitable<void> {
      MessageBroker broker(context.get_executor(), config());
      constexpr int count = 200;
      for (int i = 0; i < count; ++i) co_await broker.publish("orders", Value(i), {.key = "k"});
      auto reader = co_await broker.subscribe("orders");
      for (int i = 0; i < count; ++i) EXPECT_EQ((co_await reader.next())->value().as_int64(), i);
      co_await broker.disconnect();
    });
  }

  /// What the cluster has as the group's place in the topic's one partition.
  std::int64_t place_of(const char* group, const char* topic) const {
    char text[256];
    auto* conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(cluster_), text, sizeof text);
    rd_kafka_conf_set(conf, "group.id", group, text, sizeof text);
    auto* asker = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
    auto* places = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(places, topic, 0);
    EXPECT_EQ(rd_kafka_committed(asker, places, 10'000), RD_KAFKA_RESP_ERR_NO_ERROR);
    const auto place = places->elems[0].offset;
    rd_kafka_topic_partition_list_destroy(places);
    rd_kafka_destroy(asker);
    return place;
  }

  rd_kafka_t* client_ = nullptr;
  rd_kafka_mock_cluster_t* cluster_ = nullptr;
};

TEST_F(KafkaMockErrors, OfAClusterInMotionAreRiddenOut) {
  next(produce_request, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
       RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
       RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND);
  next(fetch_request, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
       RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE);
  all_arrive_in_order();
}

TEST_F(KafkaMockErrors, WhatMayNotBePublishedIsRefusedByName) {
  next(produce_request, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto publish = [&]() -> awaitable<void> { co_await broker.publish("orders", Value(1)); };
    const auto failure = co_await failure_of(publish());
    EXPECT_EQ(failure.reason(), errc::authentication_failed) << failure.what();
    EXPECT_THAT(failure.what(), HasSubstr("orders"));
    co_await broker.publish("payments", Value(1));  // nothing else is harmed
    co_await broker.disconnect();
  });
}

TEST_F(KafkaMockErrors, ALostProducerStateBreaksNothing) {
  next(produce_request, RD_KAFKA_RESP_ERR_NO_ERROR, RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID);
  all_arrive_in_order();
}

// The client gives up for good and is replaced: what it kept and surely did not send goes again, in order, and all is accounted for.
TEST_F(KafkaMockErrors, WhatAFailedClientKeptForTheBufferIsSentByTheNext) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto small_requests = config();
    small_requests.producer_config.insert_or_assign("raw.batch.num.messages", "100");
    MessageBroker broker(context.get_executor(), small_requests);
    co_await broker.publish("orders", Value(-1), {.key = "k"});
    next(produce_request, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    constexpr int count = 5000;
    for (int i = 0; i < count; ++i) co_await broker.publish("orders", Value(i), {.key = "k", .confirm = false});
    const auto report = co_await broker.flush();
    EXPECT_EQ(report.confirmed + report.failures.size(), static_cast<std::size_t>(count));
    std::set<std::int64_t> failed;
    for (const auto& failure : report.failures) {
      EXPECT_TRUE(failure.error == errc::outcome_unknown || failure.error == errc::timed_out) << failure.detail;
      EXPECT_EQ(failure.message.topic, "orders");
      EXPECT_EQ(failure.message.key, "k");
      EXPECT_FALSE(failure.message.partition);
      failed.insert(std::stoll(failure.message.payload.to_string()));
    }
    EXPECT_LT(failed.size(), static_cast<std::size_t>(count));
    auto reader = co_await broker.subscribe("orders");
    EXPECT_EQ((co_await reader.next())->value(), -1);
    std::int64_t last = -1;
    std::size_t known = 0;
    while (known < report.confirmed) {
      const auto number = (co_await reader.next())->value().as_int64();
      if (failed.contains(number)) continue;  // on its way when the client failed: the old connection may be read later
      EXPECT_GT(number, last) << "in order, and once";
      last = number;
      ++known;
    }
    co_await broker.disconnect();
  });
}

// Publishes wait for others only while an answer is awaited, and then for `linger` at most.
TEST_F(KafkaMockErrors, NoPublishWaitsForOthersLongerThanItHasTo) {
  const auto publish_three = [&](int linger_ms, bool confirm) {
    std::chrono::steady_clock::duration taken{};
    run_real([&](boost::asio::io_context& context) -> awaitable<void> {
      auto lingering = config();
      lingering.producer_config.insert_or_assign("linger", linger_ms);
      lingering.producer_config.insert_or_assign("max_in_flight_requests_per_connection", 5);  // not what they wait for
      MessageBroker broker(context.get_executor(), lingering);
      co_await broker.publish("orders", Value("there"));
      rd_kafka_mock_broker_set_rtt(cluster_, 1, 400);
      const auto began = std::chrono::steady_clock::now();
      int done = 0;
      const auto one = [&]() -> awaitable<void> {
        co_await broker.publish("orders", Value("now"), {.confirm = confirm});
        ++done;
      };
      for (int i = 0; i < 3; ++i) {
        boost::asio::co_spawn(context, one, boost::asio::detached);
        co_await sleep_for(*broker.clock(), 20ms);
      }
      while (done < 3) co_await sleep_for(*broker.clock(), 1ms);
      co_await broker.flush();
      taken = std::chrono::steady_clock::now() - began;
      rd_kafka_mock_broker_set_rtt(cluster_, 1, 0);
      co_await broker.disconnect();
    });
    return taken;
  };
  for (const bool confirm : {true, false}) {
    // The first is answered after 400 ms, the others 400 ms after they have gone.
    EXPECT_LT(publish_three(50, confirm), 750ms) << "gone after 50 ms";
    EXPECT_LT(publish_three(60'000, confirm), 5s) << "gone when the first has its answer";
  }
}

TEST_F(KafkaMockErrors, MessagesWithoutAKeyAvoidAPartitionThatHasNoLeader) {
  rd_kafka_mock_topic_create(cluster_, "spread", 3, 1);
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    std::set<std::int32_t> used;
    co_await broker.publish("spread", Value("known"));
    rd_kafka_mock_partition_set_leader(cluster_, "spread", 1, -1);
    co_await sleep_for(*broker.clock(), 6s);  // the client looks at its topics every 4 s
    for (int i = 0; i < 30; ++i) {
      used.insert((co_await broker.publish("spread", Value(i))).partition);
      co_await sleep_for(*broker.clock(), 10ms);  // long enough to look again
    }
    EXPECT_EQ(used, (std::set<std::int32_t>{0, 2}));
    co_await broker.disconnect();
  });
}

// librdkafka calls it delivered, and the place is missing.
TEST_F(KafkaMockErrors, WhatIsTakenForADuplicateIsNotSaidToBeStored) {
  constexpr std::int16_t produce = 0;
  rd_kafka_mock_topic_create(cluster_, "again", 1, 1);
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    co_await broker.publish("again", Value(1));
    const auto duplicate = [&] {
      rd_kafka_mock_push_request_errors(cluster_, produce, 1, RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER);
    };
    duplicate();
    const auto failure = co_await failure_of([](MessageBroker of) -> awaitable<void> { co_await of.publish("again", Value(2)); }(broker));
    EXPECT_EQ(failure.reason(), errc::outcome_unknown) << failure.what();
    EXPECT_THAT(failure.detail(), HasSubstr("need not be stored"));
    duplicate();
    co_await broker.publish("again", Value(3), {.confirm = false});
    const auto report = co_await broker.flush();
    EXPECT_EQ(report.confirmed, 0U);
    EXPECT_EQ(report.failures.size(), 1U);
    for (const auto& each : report.failures) EXPECT_EQ(each.error, make_error_code(errc::outcome_unknown)) << each.detail;
    co_await broker.disconnect();
  });
}

// What was not published in time is surely not committed: another try loses and doubles nothing.
TEST_F(KafkaMockErrors, ATransactionThatIsNotPublishedInTimeIsAborted) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto made = config();
    made.producer_config.insert_or_assign("publish_timeout", 4000);
    MessageBroker broker(context.get_executor(), std::move(made));
    const auto publish = [&] {
      return broker.transaction([](Transaction& transaction) -> awaitable<void> {
        transaction.publish("orders", Value(1), "k");
        transaction.publish("payments", Value(1), "k");
        co_return;
      });
    };
    co_await publish();
    const std::vector<rd_kafka_resp_err_t> errors(1000, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT);
    rd_kafka_mock_push_request_errors_array(cluster_, produce_request, errors.size(), errors.data());
    const auto failure = co_await failure_of(publish());
    EXPECT_EQ(failure.reason(), errc::transaction_aborted) << failure.what();
    rd_kafka_mock_clear_request_errors(cluster_, produce_request);
    co_await publish();
    co_await broker.disconnect();
  });
}

// A partition that has taken nothing yet gets one message alone; that it does not take it is no matter of the others.
TEST_F(KafkaMockErrors, APartitionThatTakesNothingHoldsUpNoOther) {
  constexpr std::int32_t partitions = 3;
  constexpr std::int32_t stuck = 1;
  rd_kafka_mock_topic_create(cluster_, "keyed", partitions, 1);
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto impatient = config();
    impatient.producer_config.insert_or_assign("publish_timeout", 8000);
    MessageBroker broker(context.get_executor(), impatient);
    co_await broker.publish("keyed", Value("known"), {.partition = 0});
    rd_kafka_mock_partition_set_leader(cluster_, "keyed", stuck, -1);
    std::size_t taken = 0;
    std::size_t refused = 0;
    const auto publish = [&](std::string key) -> awaitable<void> {
      try {
        const auto receipt = co_await broker.publish("keyed", Payload("x"), {.key = key});
        EXPECT_NE(receipt.partition, stuck);
        ++taken;
      } catch (const MessagingError&) {
        ++refused;
      }
    };
    std::size_t elsewhere = 0;
    constexpr std::size_t total = 60;
    for (std::size_t i = 0; i < total; ++i) {
      const auto key = std::to_string(i);
      elsewhere += rd_kafka_msg_partitioner_murmur2_random(nullptr, key.data(), key.size(), partitions, nullptr, nullptr) != stuck;
      boost::asio::co_spawn(context, publish(key), boost::asio::detached);
    }
    const auto clock = broker.clock();
    for (const auto deadline = clock->now() + 5s; taken < elsewhere && clock->now() < deadline;) co_await sleep_for(*clock, 10ms);
    EXPECT_EQ(taken, elsewhere);
    EXPECT_EQ(refused, 0U);
    for (const auto deadline = clock->now() + 12s; taken + refused < total && clock->now() < deadline;) co_await sleep_for(*clock, 10ms);
    EXPECT_EQ(refused, total - elsewhere);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaMockErrors, ATopicThatTakesNothingOpensNoCircuit) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto impatient = config();
    impatient.producer_config.insert_or_assign("publish_timeout", 4000);
    impatient.producer_config.insert_or_assign("circuit_failure_threshold", 2);
    MessageBroker broker(context.get_executor(), impatient);
    const auto publish = [&](const char* topic) -> awaitable<void> {
      co_await broker.publish(topic, Value(1), {.key = "k"});
    };
    for (const auto* topic : {"orders", "payments"}) co_await publish(topic);
    rd_kafka_mock_partition_set_leader(cluster_, "orders", 0, -1);
    for (int i = 0; i < 3; ++i)
      EXPECT_THAT((co_await failure_of(publish("orders"))).detail(), HasSubstr("its partition 0 has no leader"));
    EXPECT_EQ((co_await broker.get_status()).circuit, CircuitState::closed);
    co_await publish("payments");
    co_await broker.disconnect();
  });
}

TEST_F(KafkaMockErrors, ABrokerThatIsAwayOpensTheCircuitWhateverWasWrongWithATopic) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto impatient = config();
    impatient.producer_config.insert_or_assign("publish_timeout", 4000);
    impatient.producer_config.insert_or_assign("circuit_failure_threshold", 2);
    MessageBroker broker(context.get_executor(), impatient);
    const auto publish = [&]() -> awaitable<void> { co_await broker.publish("orders", Value(1), {.key = "k"}); };
    co_await publish();
    rd_kafka_mock_partition_set_leader(cluster_, "orders", 0, -1);
    co_await failure_of(publish());
    rd_kafka_mock_broker_set_down(cluster_, 1);
    auto failure = co_await failure_of(publish());
    for (int i = 0; i < 20 && failure.code() != errc::circuit_open; ++i) failure = co_await failure_of(publish());
    EXPECT_EQ(failure.code(), errc::circuit_open);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaMockErrors, ACommitThatFailsIsSaidAgain) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    for (int i = 0; i < 10; ++i) co_await broker.publish("orders", Value(i));
    auto first = co_await broker.subscribe("orders", {.group_id = "g", .enable_auto_commit = false});
    while (place_of("g", "orders") < 0) co_await sleep_for(*Clock::real(), 50ms);  // where it begins
    for (int i = 0; i < 10; ++i) first.acknowledge(*co_await first.next());
    next(commit_request, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
         RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT);
    try {
      co_await first.commit();
      EXPECT_EQ(place_of("g", "orders"), 10);
    } catch (const MessagingError& failure) {  // a machine that is busy for long enough costs the member its partition
      EXPECT_EQ(failure.code(), errc::not_owned);
      EXPECT_EQ(place_of("g", "orders"), 0);
    }
    co_await first.close();
    co_await broker.disconnect();
  });
}

// The first place, which is committed by itself, is refused, and may be tried again behind the later one.
TEST_F(KafkaMockErrors, APlaceThatIsCommittedLateStaysNoGroupsPlace) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    for (int i = 0; i < 10; ++i) co_await broker.publish("orders", Value(i));
    auto first = co_await broker.subscribe("orders", {.group_id = "g", .enable_auto_commit = false});
    next(commit_request, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS);
    for (int i = 0; i < 10; ++i) first.acknowledge(*co_await first.next());
    co_await first.commit();
    co_await sleep_for(*Clock::real(), 3s);  // it is tried again within one
    EXPECT_EQ(place_of("g", "orders"), 10);
    co_await first.close();
    co_await broker.disconnect();
  });
}

TEST_F(KafkaMockErrors, ACommitOfAMemberThatWasDroppedSaysSo) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    co_await broker.publish("orders", Value(1));
    auto first = co_await broker.subscribe("orders", {.group_id = "g", .enable_auto_commit = false});
    while (place_of("g", "orders") < 0) co_await sleep_for(*Clock::real(), 50ms);  // where it begins
    first.acknowledge(*co_await first.next());
    next(commit_request, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID);
    EXPECT_EQ((co_await failure_of(first.commit())).code(), errc::not_owned);
    EXPECT_EQ(place_of("g", "orders"), 0);
    EXPECT_EQ((co_await first.next())->value().as_int64(), 1) << "it comes again";
    co_await first.commit();
    EXPECT_EQ(place_of("g", "orders"), 1);
    co_await broker.disconnect();
  });
}

// It comes again, to whoever has the partition now.
TEST_F(KafkaMockErrors, WhatWasFetchedBeforeAMemberWasDroppedIsNotHandedOut) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    co_await broker.publish("orders", Value(0));
    std::vector<OutgoingMessage> batch;  // which is fetched as a whole
    for (int i = 1; i < 10; ++i) batch.push_back({"orders", Payload(std::to_string(i)), {}, {}, {}, {}});
    co_await broker.publish_many(std::move(batch));
    auto first = co_await broker.subscribe("orders", {.group_id = "g", .enable_auto_commit = false});
    for (int i = 0; i < 2; ++i) EXPECT_EQ((co_await first.next())->value().as_int64(), i);
    next(commit_request, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID);
    EXPECT_EQ((co_await failure_of(first.commit())).code(), errc::not_owned);
    for (int i = 0; i < 10; ++i) EXPECT_EQ((co_await first.next())->value().as_int64(), i);
    co_await broker.disconnect();
  });
}

// Also where the member has heard of it before it settled anything.
TEST_F(KafkaMockErrors, ACommitOfWhatWasHandedOutBeforeAMemberWasDroppedSaysSo) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    co_await broker.publish("orders", Value(0));
    auto first = co_await broker.subscribe("orders", {.group_id = "g", .enable_auto_commit = false});
    EXPECT_EQ((co_await first.next())->value().as_int64(), 0);
    next(heartbeat_request, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID);
    EXPECT_EQ((co_await first.next())->value().as_int64(), 0) << "it comes again";
    EXPECT_EQ((co_await failure_of(first.commit())).code(), errc::not_owned);
    co_await first.commit();
    EXPECT_EQ(place_of("g", "orders"), 1);
    co_await broker.disconnect();
  });
}

TEST_F(KafkaMockErrors, WhatWaitsForAHandlerWhenAMemberIsDroppedIsNotHandled) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config());
    const auto clock = Clock::real();
    constexpr std::int64_t count = 10;
    for (int i = 0; i < count; ++i) co_await broker.publish("orders", Value(i));
    EventConsumer consumer(broker, {.group_id = "g", .concurrency = 1});
    std::vector<std::int64_t> handled;
    bool is_stuck = true;
    consumer.subscribe("orders", [&](const Event& event) -> awaitable<void> {
      handled.push_back(event.data().as_int64());
      while (is_stuck) co_await sleep_for(*clock, 10ms);
    });
    bool ended = false;
    boost::asio::co_spawn(context, consumer.start(), [&](std::exception_ptr) { ended = true; });
    const auto deadline = clock->now() + 30s;
    const auto until = [&](std::function<bool()> condition) -> awaitable<void> {
      while (!condition() && clock->now() < deadline) co_await sleep_for(*clock, 10ms);
    };
    co_await until([&] { return consumer.counts().received == count && !handled.empty(); });
    next(heartbeat_request, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID);
    co_await until([&] { return consumer.counts().received == 2 * count; });
    EXPECT_EQ(consumer.counts().received, 2 * count) << "all of them come again";
    is_stuck = false;
    co_await until([&] { return handled.size() > count; });
    consumer.stop();
    co_await until([&] { return ended; });
    EXPECT_EQ(handled, (std::vector<std::int64_t>{0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
    co_await broker.disconnect();
  });
}

// librdkafka 2.0.2 would end the process.
TEST_F(KafkaMockErrors, AMemberThatNeverGotItsAssignmentCanBeClosed) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    auto settings = config();
    settings.connection_config.insert_or_assign("connect_timeout", 2000);
    MessageBroker broker(context.get_executor(), settings);
    co_await broker.publish("orders", Value(1));
    for (int i = 0; i < 100; ++i) next(sync_request, RD_KAFKA_RESP_ERR_NOT_COORDINATOR);
    auto first = co_await broker.subscribe("orders", {.group_id = "g"});
    co_await first.close();
    rd_kafka_mock_clear_request_errors(cluster_, sync_request);
    auto second = co_await broker.subscribe("orders", {.group_id = "g"});
    EXPECT_EQ((co_await second.next())->value().as_int64(), 1) << "the first one is gone";
    co_await broker.disconnect();
  });
}

TEST_F(KafkaMockErrors, APrivateReaderWaitsForALeaderNoLongerThanItMay) {
  run_real([&](boost::asio::io_context& context) -> awaitable<void> {
    const auto clock = Clock::real();
    auto settings = config();
    settings.connection_config.insert_or_assign("connect_timeout", 2000);
    MessageBroker broker(context.get_executor(), settings);
    co_await broker.publish("orders", Value(1));
    rd_kafka_mock_partition_set_leader(cluster_, "orders", 0, -1);
    const auto began = clock->now();
    auto reader = co_await broker.subscribe("orders");
    EXPECT_LT(clock->now() - began, 4s);
    rd_kafka_mock_partition_set_leader(cluster_, "orders", 0, 1);
    EXPECT_EQ((co_await reader.next())->value().as_int64(), 1);
    co_await broker.disconnect();
  });
}

}  // namespace
}  // namespace maestro::messaging::testing

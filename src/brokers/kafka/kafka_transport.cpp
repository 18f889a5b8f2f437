#include "brokers/kafka/kafka_transport.hpp"

#include <fmt/format.h>

#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>

#include "brokers/kafka/kafka_subscription.hpp"
#include "brokers/kafka/outgoing.hpp"
#include "brokers/kafka/pattern.hpp"
#include "brokers/kafka/producer.hpp"
#include "brokers/kafka/properties.hpp"
#include "brokers/kafka/transactor.hpp"
#include "core/transaction_failure.hpp"

namespace maestro::messaging {
namespace {

namespace ask = kafka::ask;

constexpr Duration ask_limit = std::chrono::seconds(10);

class KafkaTransport final : public Transport, public Custody, public Administration, public Transactions {
 public:
  explicit KafkaTransport(std::shared_ptr<kafka::Session> session)
      : session_(std::move(session)),
        topics_(std::make_shared<kafka::Topics>(session_)),
        producer_(std::make_shared<kafka::Producer>(session_, topics_)) {
    // Built once to be checked: a bad value is an error here, and not at the first publish.
    acknowledged_ = kafka::acknowledged(*session_);
    static_cast<void>(kafka::consumer_properties(*session_, "check", {.topic = "check", .group = "check"}));
    if (!acknowledged_.in_order) log(LogLevel::warning, "an acknowledged publish is " + acknowledged_.means, {{"broker", "kafka"}});
  }

  void check_topic(std::string_view topic) const override { kafka::check_topic_name(topic); }
  [[nodiscard]] bool is_internal(std::string_view topic) const override { return kafka::is_internal(topic); }

  [[nodiscard]] Capabilities capabilities() const override {
    Capabilities can;
    can.broker = "kafka";
    can.acknowledgement = Acknowledgement::cumulative;
    can.groups = can.patterns = can.partitions = can.persistent_topics = true;
    can.release_with_delay = can.transactions = can.administration = can.survives_restart = true;
    can.orders_concurrent_publishes = acknowledged_.in_order;
    can.max_message_bytes = static_cast<std::size_t>(session_->options.integer("max_message_bytes"));
    can.acknowledged_means = acknowledged_.means;
    return can;
  }

  awaitable<void> connect() override {
    if (producer_->client()) co_return;
    co_await producer_->connect(session_->options.duration("connect_timeout"));
    const auto old = producer_->client()->troubles().too_old();
    if (old.empty()) co_return;
    co_await producer_->close(Duration::zero());
    throw MessagingError(errc::unsupported,
                         fmt::format("Kafka at {} is older than 2.8; allowed is Kafka 2.8 or newer", old));
  }

  awaitable<void> disconnect() override {
    const auto limit = session_->options.duration("publish_timeout");
    const auto deadline = session_->clock->now() + limit;
    if (const auto transactor = std::exchange(transactor_, nullptr)) co_await transactor->close(deadline);
    co_await producer_->close(std::max(deadline - session_->clock->now(), Duration::zero()));
  }

  awaitable<void> ping() override {
    std::function<bool()> look = [client = co_await connected()] {
      constexpr int limit = 5000;
      const rd_kafka_metadata_t* found = nullptr;
      kafka::check(rd_kafka_metadata(client->get(), 0, nullptr, &found, limit), "asking the cluster for a sign of life");
      rd_kafka_metadata_destroy(found);
      return true;
    };
    co_await session_->blocking(std::move(look));
    session_->answered();
    session_->whole();
  }

  void report_to(TransportReports reports) override { session_->reports = std::move(reports); }

  awaitable<void> publish(std::span<OutgoingMessage> messages, std::span<PublishResult> results, TimePoint deadline) override {
    return producer_->publish(messages, results, deadline);
  }

  std::size_t hand_over(std::span<OutgoingMessage> messages, std::shared_ptr<HandedOver> outcome) override {
    return producer_->hand_over(messages, std::move(outcome));
  }

  [[nodiscard]] Duration gathering_time() const override { return session_->options.duration("linger"); }

  awaitable<std::unique_ptr<TransportSubscription>> subscribe(SubscribeRequest request) override {
    const auto limit = session_->options.duration("connect_timeout");
    if (!is_pattern(request.topic)) {
      kafka::check_topic_name(request.topic);
      if (topics_->creates()) {
        co_await topics_->ensure(co_await connected(), request.topic, limit);
      } else if (!topics_->knows(request.topic)) {
        log(LogLevel::info, "subscribed; a topic that is not there yet is waited for", {{"broker", "kafka"}, {"topic", request.topic}});
      }
    }
    if (request.group && session_->options.text_if("transactional_id")) co_await end_what_was_left();
    const auto consumer = std::make_shared<kafka::Consumer>(session_, std::move(request), producer_->client());
    auto subscription = std::make_unique<kafka::KafkaSubscription>(consumer);
    co_await consumer->open(limit);
    co_return subscription;
  }

  awaitable<std::vector<std::string>> list_topics() override {
    std::function<std::vector<std::string>()> look = [client = co_await connected()] {
      std::vector<std::string> names;
      for (auto& topic : ask::topics(*client, ask_limit))
        if (!kafka::is_internal(topic.name)) names.push_back(std::move(topic.name));
      return names;
    };
    co_return co_await asked("listing the topics", std::move(look));
  }

  awaitable<TopicInfo> describe_topic(std::string topic) override {
    std::function<TopicInfo()> look = [client = co_await connected(), topic] { return ask::describe_topic(*client, topic, ask_limit); };
    co_return co_await asked(fmt::format("describing the topic \"{}\"", topic), std::move(look));
  }

  awaitable<void> create_topic(std::string topic, TopicSettings settings) override {
    kafka::check_topic_name(topic);
    kafka::check_is_not_kafkas(topic);
    const auto partitions =
        settings.partitions.value_or(static_cast<std::int32_t>(session_->options.integer("auto_create_partitions")));
    settings.configuration.merge(ask::configuration_for(session_->options.integer("max_message_bytes")));
    std::function<bool()> make = [client = co_await connected(), topic, partitions, configuration = std::move(settings.configuration)] {
      if (!ask::create_topic(*client, topic, partitions, configuration, ask_limit))
        throw MessagingError(errc::already_exists, fmt::format("the topic \"{}\" exists", topic));
      try {
        ask::await_leaders(*client, topic, ask_limit, ask_limit);
      } catch (const MessagingError& failure) {
        throw MessagingError(errc::outcome_unknown,
                             fmt::format("the topic \"{}\" was made, but did not come into use: {}", topic, failure.detail()));
      }
      return true;
    };
    co_await asked(fmt::format("creating the topic \"{}\"", topic), std::move(make), errc::outcome_unknown);
  }

  awaitable<void> delete_topic(std::string topic) override {
    kafka::check_is_not_kafkas(topic);
    std::function<bool()> remove = [client = co_await connected(), topic] {
      ask::delete_topic(*client, topic, ask_limit);
      return true;
    };
    co_await asked(fmt::format("deleting the topic \"{}\"", topic), std::move(remove), errc::outcome_unknown);
    producer_->forget(topic);
  }

  awaitable<std::int64_t> purge_topic(std::string topic) override {
    kafka::check_is_not_kafkas(topic);
    std::function<std::int64_t()> purge = [client = co_await connected(), topic] { return ask::purge_topic(*client, topic, ask_limit); };
    co_return co_await asked(fmt::format("purging the topic \"{}\"", topic), std::move(purge), errc::outcome_unknown);
  }

  awaitable<void> commit_transaction(std::span<OutgoingMessage> messages,
                                     std::span<const TransactionAcknowledgement> acknowledgements) override {
    for (const auto& message : messages)
      if (const auto why = kafka::refusal(message, capabilities().max_message_bytes)) throw transaction_failure(why->code, why->detail);
    const auto client = co_await connected();
    for (const auto& message : messages) co_await topics_->ensure(client, message.topic, ask_limit);
    std::vector<kafka::Transactor::Places> places;
    std::vector<std::pair<std::shared_ptr<kafka::Consumer>, DeliveryTag>> settled;
    for (const auto& [subscription, tag] : acknowledgements) {
      const auto& consumer = static_cast<kafka::KafkaSubscription&>(*subscription).consumer();
      co_await consumer->enter_transactions(tag);
      const auto settlement = consumer->settlement_of(tag);
      if (!settlement)
        throw MessagingError(errc::not_owned,
                             "a delivery is no longer this member's; leave what was read with it, and read on");
      auto at = std::ranges::find(places, consumer->client(), &kafka::Transactor::Places::consumer);
      if (at == places.end()) at = places.insert(places.end(), {consumer->client(), {}});
      at->add(*settlement);
      settled.emplace_back(consumer, tag);
    }
    co_await transactor()->commit({messages.begin(), messages.end()}, std::move(places));
    for (const auto& [consumer, tag] : settled) consumer->settled_by_transaction(tag);
  }

 private:
  /// The client, which connects by itself.
  awaitable<std::shared_ptr<kafka::Client>> connected() {
    co_await connect();
    co_return producer_->client();
  }

  /// Of many questions, each of which has a limit of its own, all have one together: librdkafka 2.0.2 does not keep to that of
  /// a question to a leader that is away.
  template <class Result>
  awaitable<Result> asked(std::string what, std::function<Result()> work, errc unanswered = errc::timed_out) {
    constexpr auto all_of_them = std::chrono::duration_cast<std::chrono::seconds>(ask_limit + ask_limit / 2);
    const auto deadline = session_->clock->now() + all_of_them;
    try {
      co_return co_await session_->blocking(std::move(work), deadline);
    } catch (const MessagingError& failure) {
      if (failure.reason() != errc::timed_out || session_->clock->now() < deadline) throw;
      throw MessagingError(unanswered,
                           fmt::format("{}: no answer within {} s; is the leader of each partition there, and the controller?", what,
                                       all_of_them.count()));
    }
  }

  const std::shared_ptr<kafka::Transactor>& transactor() {
    if (!transactor_) transactor_ = std::make_shared<kafka::Transactor>(session_, topics_);
    return transactor_;
  }

  // A predecessor that died in the middle of a transaction: the places in it cannot be read before it is ended.
  awaitable<void> end_what_was_left() {
    try {
      co_await transactor()->prepare();
    } catch (const MessagingError& failure) {
      log(LogLevel::warning, failure.what(), {{"broker", "kafka"}});
    }
  }

  std::shared_ptr<kafka::Session> session_;
  std::shared_ptr<kafka::Topics> topics_;
  std::shared_ptr<kafka::Producer> producer_;
  std::shared_ptr<kafka::Transactor> transactor_;
  kafka::Acknowledged acknowledged_;
};

}  // namespace

std::unique_ptr<Transport> make_kafka_transport(boost::asio::any_io_executor executor, std::shared_ptr<Clock> clock,
                                                const std::string& connection_string, const Options& options) {
  return std::make_unique<KafkaTransport>(std::make_shared<kafka::Session>(
      kafka::Session{std::move(executor), std::move(clock), options, kafka::servers_of(connection_string)}));
}

}  // namespace maestro::messaging

#include "brokers/redis/redis_transport.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <maestro/messaging/atomic_keys.hpp>
#include <maestro/messaging/topic.hpp>

#include "brokers/redis/channel_publisher.hpp"
#include "brokers/redis/channel_reader.hpp"
#include "brokers/redis/group_reader.hpp"
#include "brokers/redis/stream_publisher.hpp"

namespace maestro::messaging {

namespace asio = boost::asio;

namespace {

using namespace redis;

class RedisSubscription final : public TransportSubscription {
 public:
  explicit RedisSubscription(std::shared_ptr<Reader> reader) : reader_(std::move(reader)) {}
  ~RedisSubscription() override { reader_->stop(); }
  RedisSubscription(const RedisSubscription&) = delete;
  RedisSubscription& operator=(const RedisSubscription&) = delete;

  std::size_t take(std::vector<Message>& into, std::size_t at_most) override { return reader_->take(into, at_most); }
  awaitable<void> wait() override { return wait_on(reader_); }
  void acknowledge(std::span<const DeliveryTag> tags) override { reader_->acknowledge(tags); }
  void release(std::span<const DeliveryTag> tags, Duration delay) override { reader_->release(tags, delay); }
  awaitable<void> commit() override { return reader_->commit(); }
  void pause() override { reader_->pause(); }
  void resume() override { reader_->resume(); }
  awaitable<void> close() override { return reader_->close(); }
  awaitable<void> seek(std::string topic, std::int32_t, std::int64_t offset) override {
    constexpr std::int64_t beginning = -1;
    // What is read next comes after the entry that is named here.
    const auto before = offset <= 0 ? EntryId{} : EntryId::from_offset(offset - 1);
    return reader_->seek(std::move(topic), before, offset < beginning);
  }
  awaitable<std::int64_t> offset_at(std::string topic, std::int32_t, Timestamp time) override {
    return reader_->offset_at(std::move(topic), time);
  }
  awaitable<SubscriptionState> state() override { return state_of(reader_); }

  [[nodiscard]] Reader& reader() noexcept { return *reader_; }

 private:
  // The reader outlives the wait.
  static awaitable<void> wait_on(std::shared_ptr<Reader> reader) { co_await reader->wait(); }
  static awaitable<SubscriptionState> state_of(std::shared_ptr<Reader> reader) {
    SubscriptionState state;
    state.connected = reader->is_connected();
    state.paused = reader->is_paused();
    if (state.connected) state.lag = co_await reader->lag();
    co_return state;
  }

  std::shared_ptr<Reader> reader_;
};

/// What both modes have in common: the session, and who publishes on it.
class RedisTransport : public Transport {
 public:
  RedisTransport(std::shared_ptr<Session> session, std::shared_ptr<Publisher> publisher)
      : session_(std::move(session)), publisher_(std::move(publisher)) {}
  ~RedisTransport() override { session_->close(); }
  RedisTransport(const RedisTransport&) = delete;
  RedisTransport& operator=(const RedisTransport&) = delete;

  awaitable<void> connect() override {
    const auto session = session_;
    co_await session->publishing(session->deadline());
  }
  awaitable<void> disconnect() override {
    session_->close();
    co_return;
  }
  awaitable<void> ping() override {
    const auto session = session_;
    const auto connection = co_await session->publishing(session->deadline());
    const auto reply = co_await connection->ask({"PING"});
    if (reply->is_error()) fail(reply->text, "PING");
  }
  void report_to(TransportReports reports) override { session_->reports = std::move(reports); }

  awaitable<void> publish(std::span<OutgoingMessage> messages, std::span<PublishResult> results, TimePoint deadline) override {
    return publisher_->publish(messages, results, deadline);
  }

 protected:
  [[nodiscard]] std::size_t max_message_bytes() const {
    return static_cast<std::size_t>(session_->options.integer("max_message_bytes"));
  }

  std::shared_ptr<Session> session_;

 private:
  std::shared_ptr<Publisher> publisher_;
};

/// `mode=pubsub`: a topic is a channel, and whoever listens gets what is published from then on.
class ChannelTransport final : public RedisTransport {
 public:
  explicit ChannelTransport(const std::shared_ptr<Session>& session)
      : RedisTransport(session, std::make_shared<ChannelPublisher>(session)) {}

  [[nodiscard]] Capabilities capabilities() const override {
    Capabilities can;
    can.broker = "redis";
    can.patterns = can.orders_concurrent_publishes = true;
    can.headers = session_->options.boolean("pubsub_envelope");
    can.max_message_bytes = max_message_bytes();
    can.acknowledged_means = "the server has handed it to those who listened at that moment; it is kept nowhere (mode=pubsub)";
    return can;
  }

  awaitable<std::unique_ptr<TransportSubscription>> subscribe(SubscribeRequest request) override {
    auto reader = std::make_shared<ChannelReader>(session_, std::move(request));
    co_await reader->start();
    co_return std::make_unique<RedisSubscription>(std::move(reader));
  }
};

/// Streams: everything that the contract asks for.
class StreamTransport final : public RedisTransport, public Administration, public Transactions, public AtomicKeys {
 public:
  explicit StreamTransport(const std::shared_ptr<Session>& session)
      : StreamTransport(session, std::make_shared<StreamPublisher>(session)) {}

  [[nodiscard]] Capabilities capabilities() const override {
    Capabilities can;
    can.broker = "redis";
    can.acknowledgement = Acknowledgement::individual;
    can.groups = can.patterns = can.persistent_topics = can.release_with_delay = can.counts_deliveries = true;
    can.transactions = can.administration = can.survives_restart = can.orders_concurrent_publishes = true;
    can.max_message_bytes = max_message_bytes();
    can.acknowledged_means = session_->persistence.empty()
                                 ? "the server has it in its stream; what it survives there is known once connected"
                                 : "the server has it in its stream, " + session_->persistence;
    return can;
  }

  [[nodiscard]] std::optional<Position> parse_position(std::string_view text) const override {
    if (const auto id = EntryId::parse(text)) return Position{-1, id->to_offset(), text};
    return Position::parse(text);
  }
  awaitable<void> learn() override { return learn_on(session_); }

  awaitable<std::unique_ptr<TransportSubscription>> subscribe(SubscribeRequest request) override {
    std::shared_ptr<StreamReader> reader;
    if (request.group) {
      reader = std::make_shared<GroupReader>(session_, std::move(request));
    } else {
      reader = std::make_shared<PrivateReader>(session_, std::move(request));
    }
    co_await reader->start();
    co_return std::make_unique<RedisSubscription>(std::move(reader));
  }

  awaitable<std::vector<std::string>> list_topics() override {
    const auto session = session_;
    const auto known = co_await session->ask("", {"SMEMBERS", std::string(topic_index)}, "listing topics");
    std::vector<std::vector<std::string>> asks;
    for (const auto& each : known->items()) asks.push_back({"TYPE", std::string(each.text)});
    std::vector<std::string> topics;
    if (asks.empty()) co_return topics;
    const auto connection = co_await session->commands("", session->deadline());
    const auto kinds = co_await connection->ask_all(std::move(asks));
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      if (kinds[i]->is_error()) fail(kinds[i]->text, "listing topics");
      if (kinds[i]->text == "stream") topics.emplace_back(known->items()[i].text);
    }
    std::ranges::sort(topics);
    co_return topics;
  }

  awaitable<TopicInfo> describe_topic(std::string topic) override {
    const auto session = session_;
    const auto connection = co_await session->commands(topic, session->deadline());
    const auto stream = co_await connection->ask({"XINFO", "STREAM", topic});
    if (stream->is_error() && is_error(stream->text, "ERR no such key"))
      throw MessagingError(errc::topic_not_found, fmt::format("\"{}\" is not there", topic));
    if (stream->is_error()) fail(stream->text, fmt::format("looking at \"{}\"", topic));
    TopicInfo info;
    info.name = topic;
    PartitionInfo all{-1, 0, 0};
    const auto fields = fields_of(*stream);
    const auto entry = [&](std::string_view name) { return fields.contains(name) ? read_entry(*fields.at(name)) : std::nullopt; };
    if (fields.contains("length")) info.messages = fields.at("length")->number;
    if (const auto first = entry("first-entry")) all.first = first->id.to_offset();
    if (const auto last = entry("last-entry")) all.next = last->id.to_offset() + 1;
    info.partitions.push_back(all);
    info.groups = co_await groups_of(*session, topic);
    co_return info;
  }

  awaitable<void> create_topic(std::string topic, TopicSettings settings) override {
    if (settings.partitions && *settings.partitions != 1)
      throw MessagingError(errc::unsupported,
                           fmt::format("partitions: {}; a topic of Redis is one stream, leave it out", *settings.partitions));
    if (!settings.configuration.empty())
      throw MessagingError(errc::unsupported,
                           fmt::format("{}: a topic of Redis has no settings", settings.configuration.begin()->first));
    const auto session = session_;
    const auto there = co_await session->ask(topic, {"EXISTS", topic}, fmt::format("creating \"{}\"", topic));
    if (there->number > 0) throw MessagingError(errc::already_exists, fmt::format("\"{}\"", topic));
    // A stream without entries is made by making a group.
    co_await session->ask(topic, {"XGROUP", "CREATE", topic, "maestro:made", "$", "MKSTREAM"}, fmt::format("creating \"{}\"", topic));
    co_await session->ask(topic, {"XGROUP", "DESTROY", topic, "maestro:made"}, fmt::format("creating \"{}\"", topic));
    co_await session->ask(topic, {"SADD", std::string(topic_index), topic}, fmt::format("creating \"{}\"", topic));
  }

  awaitable<void> delete_topic(std::string topic) override {
    const auto session = session_;
    const auto publisher = streams_;
    const auto gone = co_await session->ask(topic, {"DEL", topic}, fmt::format("deleting \"{}\"", topic));
    co_await session->ask(topic, {"SREM", std::string(topic_index), topic}, fmt::format("deleting \"{}\"", topic));
    co_await publisher->forget(topic);
    if (gone->number == 0) throw MessagingError(errc::topic_not_found, fmt::format("\"{}\" is not there", topic));
  }

  awaitable<std::int64_t> purge_topic(std::string topic) override {
    const auto session = session_;
    const auto there = co_await session->ask(topic, {"EXISTS", topic}, fmt::format("purging \"{}\"", topic));
    if (there->number == 0) throw MessagingError(errc::topic_not_found, fmt::format("\"{}\" is not there", topic));
    const auto removed = co_await session->ask(topic, {"XTRIM", topic, "MAXLEN", "0"}, fmt::format("purging \"{}\"", topic));
    co_return removed->number;
  }

  awaitable<void> commit_transaction(std::span<OutgoingMessage> messages,
                                     std::span<const TransactionAcknowledgement> acknowledgements) override {
    std::vector<Settlement> settlements;
    for (const auto& each : acknowledgements) {
      auto* group = dynamic_cast<GroupReader*>(&static_cast<RedisSubscription&>(*each.subscription).reader());
      auto settlement = group ? group->settlement(each.tag) : std::nullopt;
      if (!settlement)
        throw MessagingError(errc::not_owned,
                             "a delivery is no longer this member's; leave what was read with it, and read on");
      settlements.push_back(*std::move(settlement));
    }
    co_await streams_->transact(messages, std::move(settlements));
    for (const auto& each : acknowledgements)
      if (auto* group = dynamic_cast<GroupReader*>(&static_cast<RedisSubscription&>(*each.subscription).reader())) group->forget(each.tag);
  }

  awaitable<std::optional<std::string>> put_if_absent(std::string key, std::string value, Duration life) override {
    const auto session = session_;
    for (;;) {
      const auto stored = co_await session->ask(key, {"SET", key, value, "NX", "PX", life_of(life)}, "storing a key");
      if (!stored->is_nil()) co_return std::nullopt;
      const auto there = co_await session->ask(key, {"GET", key}, "reading a key");
      if (!there->is_nil()) co_return std::string(there->text);
      // It ended in between.
    }
  }
  awaitable<bool> replace_if(std::string key, std::string expected, std::string value, Duration life) override {
    const auto session = session_;
    const auto done = co_await session->ask(
        key, {"EVAL", "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1",
              "1", key, expected, value, life_of(life)},
        "replacing a key");
    co_return done->number == 1;
  }
  awaitable<bool> remove_if(std::string key, std::string expected) override {
    const auto session = session_;
    const auto done = co_await session->ask(
        key, {"EVAL", "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])", "1", key, expected},
        "removing a key");
    co_return done->number == 1;
  }

 private:
  static awaitable<void> learn_on(std::shared_ptr<Session> session) {
    co_await session->learn(co_await session->publishing(session->deadline()));
  }
  /// The life of a key, which Redis wants to be at least a millisecond.
  static std::string life_of(Duration span) { return milliseconds(std::max<Duration>(span, std::chrono::milliseconds(1))); }

  StreamTransport(const std::shared_ptr<Session>& session, std::shared_ptr<StreamPublisher> publisher)
      : RedisTransport(session, publisher), streams_(std::move(publisher)) {}

  std::shared_ptr<StreamPublisher> streams_;
};

}  // namespace

std::unique_ptr<Transport> make_redis_transport(asio::any_io_executor executor, std::shared_ptr<Clock> clock,
                                                const std::string& connection_string, const Options& options) {
  const bool channels = options.text("mode") == "pubsub";
  for (const auto* name : {"wait_replicas", "wait_fsync", "idempotence_window", "claim_idle", "trim_after", "consumer_name"})
    if (channels && options.is_set(name))
      throw MessagingError(errc::invalid_option, fmt::format("{}: a channel (mode=pubsub) keeps nothing; leave it out, or use mode=streams", name));
  for (const auto* name : {"require_routing", "pubsub_envelope"})
    if (!channels && options.is_set(name))
      throw MessagingError(errc::invalid_option, fmt::format("{}: is for mode=pubsub; a stream keeps every message, key and headers included", name));
  const auto session = std::make_shared<Session>(std::move(executor), std::move(clock), connection_string, options);
  if (channels) return std::make_unique<ChannelTransport>(session);
  return std::make_unique<StreamTransport>(session);
}

}  // namespace maestro::messaging

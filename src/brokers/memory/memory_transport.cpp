#include "brokers/memory/memory_transport.hpp"

#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/utf8.hpp>

#include "brokers/memory/memory_subscription.hpp"
#include "core/control_characters.hpp"
#include "core/readable.hpp"
#include "core/size_limit.hpp"
#include "core/transaction_failure.hpp"

namespace maestro::messaging {

namespace asio = boost::asio;

namespace {

using memory::Hub;
using memory::Waker;

class MemoryTransport final : public Transport, public Administration, public Transactions {
 public:
  MemoryTransport(asio::any_io_executor executor, std::shared_ptr<Clock> clock, const std::string& name,
                  const Options& options)
      : session_(std::make_shared<memory::Session>(memory::Session{
            executor, clock, Hub::named(name),
            {static_cast<std::int32_t>(options.integer("partitions")), options.integer("max_messages"),
             options.integer("max_bytes")},
            options.duration("rebalance_timeout"), memory::Faults(options)})),
        max_message_bytes_(static_cast<std::size_t>(options.integer("max_message_bytes"))) {}

  [[nodiscard]] Capabilities capabilities() const override {
    Capabilities can;
    can.broker = "memory";
    can.acknowledgement = Acknowledgement::cumulative;
    can.groups = can.patterns = can.partitions = can.persistent_topics = true;
    can.release_with_delay = can.counts_deliveries = can.transactions = can.administration = true;
    can.max_message_bytes = max_message_bytes_;
    can.acknowledged_means = "stored in this process; survives neither its end nor a power loss";
    return can;
  }

  awaitable<void> connect() override { co_return; }
  awaitable<void> disconnect() override {
    session_->closed = true;  // who waits for room looks
    co_return;
  }
  awaitable<void> ping() override {
    const bool was_lost = std::exchange(session_->connection_lost, session_->faults.connection_breaks());
    if (session_->connection_lost)
      throw MessagingError(errc::connection_failed, "memory: the connection broke (injected fault)");
    if (was_lost) session_->reports.reconnected();
    co_return;
  }
  void report_to(TransportReports reports) override { session_->reports = std::move(reports); }

  awaitable<void> publish(std::span<OutgoingMessage> messages, std::span<PublishResult> results,
                          TimePoint deadline) override {
    // An awaited publish is done at once: others on this executor get their turn now and then.
    constexpr std::size_t turn = 256;
    immediate_ += messages.size();
    if (immediate_ >= turn) {
      immediate_ = 0;
      co_await asio::post(session_->executor, asio::use_awaitable);
    }
    auto wall = session_->clock->wall();
    bool broken = false;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      auto& message = messages[i];
      auto& result = results[i];
      if (broken) {
        break_connection(result);
        continue;
      }
      std::shared_ptr<Waker> room;
      while (!attempt(message, result, wall)) {
        if (!room) room = std::make_shared<Waker>(*session_->clock, session_->executor);
        room->park();
        session_->hub->await_room(room);
        const bool rung = co_await room->notifier().wait_until(std::min(deadline, session_->clock->now() + room_poll));
        wall = session_->clock->wall();
        if (session_->closed) {
          result.error = errc::closed;
          result.detail = "the broker was disconnected while this waited for room";
          break;
        }
        if (rung || session_->clock->now() < deadline) continue;
        result.error = errc::queue_full;
        result.detail = fmt::format(
            "\"{}\" holds max_messages ({}) or max_bytes ({}) that not every group has acknowledged", message.topic,
            session_->limits.max_messages, session_->limits.max_bytes);
        break;
      }
      broken = result.error == errc::connection_failed || result.error == errc::outcome_unknown;
    }
  }

  bool publish_now(OutgoingMessage& message, PublishResult& result) override {
    constexpr std::size_t turn = 256;
    if (immediate_ + 1 >= turn) return false;
    ++immediate_;
    return attempt(message, result, message.timestamp ? *message.timestamp : session_->clock->wall());
  }

  awaitable<std::unique_ptr<TransportSubscription>> subscribe(SubscribeRequest request) override {
    co_return std::make_unique<memory::MemorySubscription>(session_, std::move(request));
  }

  awaitable<std::vector<std::string>> list_topics() override { co_return session_->hub->topics(); }
  awaitable<TopicInfo> describe_topic(std::string topic) override { co_return session_->hub->describe(topic); }
  awaitable<void> create_topic(std::string topic, TopicSettings settings) override {
    const auto partitions = settings.partitions.value_or(session_->limits.partitions);
    if (partitions < 1 || partitions > 65'535)
      throw MessagingError(errc::invalid_argument, fmt::format("partitions: {}, allowed are 1 to 65535", partitions));
    if (!settings.configuration.empty())
      throw MessagingError(errc::unsupported, fmt::format("{}: a topic of memory:// has no settings but partitions",
                                                          settings.configuration.begin()->first));
    session_->hub->create(topic, partitions);
    co_return;
  }
  awaitable<void> delete_topic(std::string topic) override {
    session_->hub->remove(topic);
    co_return;
  }
  awaitable<std::int64_t> purge_topic(std::string topic) override { co_return session_->hub->purge(topic); }

  awaitable<void> commit_transaction(std::span<OutgoingMessage> messages,
                                     std::span<const TransactionAcknowledgement> acknowledgements) override {
    std::vector<Hub::Settlement> settlements;
    for (const auto& each : acknowledgements)
      settlements.push_back({static_cast<memory::MemorySubscription&>(*each.subscription).member(), each.tag});
    for (const auto& message : messages) {
      PublishResult result;
      if (refused(message, result)) throw transaction_failure(static_cast<errc>(result.error.value()), result.detail);
    }
    switch (session_->hub->commit(messages, settlements, session_->limits, session_->clock->wall())) {
      case Hub::Commit::full:
        throw transaction_failure(errc::queue_full, "a topic is full (max_messages or max_bytes)");
      case Hub::Commit::no_such_partition:
        throw transaction_failure(errc::invalid_argument, "a message names a partition that its topic does not have");
      case Hub::Commit::not_owned:
        throw MessagingError(errc::not_owned,
                             "a delivery is no longer this member's; leave what was read with it, and read on");
      case Hub::Commit::committed:
        break;
    }
    co_return;
  }

 private:
  // Room may come by another client's reading, which does not always ring.
  static constexpr Duration room_poll = std::chrono::milliseconds(100);

  static void lose_outcome(PublishResult& result) {
    result.error = errc::outcome_unknown;
    result.detail = "memory: the connection broke before the answer came (injected fault)";
  }
  static void break_connection(PublishResult& result) {
    result.error = errc::connection_failed;
    result.detail = "memory: the connection broke (injected fault)";
  }

  /// False while there is no room; else the result is filled in.
  bool attempt(OutgoingMessage& message, PublishResult& result, Timestamp wall) {
    if (refused(message, result)) return true;
    if (session_->faults.outcome_gets_lost()) {
      if (session_->faults.was_stored()) {
        auto copy = message;
        if (session_->hub->append(copy, result.receipt, session_->limits, wall) == Hub::Append::full) return false;
      }
      lose_outcome(result);
      return true;
    }
    switch (session_->hub->append(message, result.receipt, session_->limits, wall)) {
      case Hub::Append::full:
        return false;
      case Hub::Append::no_such_partition:
        result.error = errc::invalid_argument;
        result.detail = fmt::format("partition {}: \"{}\" has none of this number", *message.partition, message.topic);
        break;
      case Hub::Append::stored:
        break;
    }
    return true;
  }

  bool refused(const OutgoingMessage& message, PublishResult& result) {
    if (auto why = over_limit(message, max_message_bytes_)) {
      result.error = errc::message_too_large;
      result.detail = *std::move(why);
    } else if (session_->faults.publish_fails()) {
      break_connection(result);
    }
    return static_cast<bool>(result.error);
  }

  std::shared_ptr<memory::Session> session_;
  std::size_t max_message_bytes_;
  std::size_t immediate_ = 0;
};

}  // namespace

std::unique_ptr<Transport> make_memory_transport(asio::any_io_executor executor, std::shared_ptr<Clock> clock,
                                                 const std::string& connection_string, const Options& options) {
  constexpr std::string_view scheme = "memory://";
  std::string name = connection_string;
  if (name.starts_with(scheme)) name.erase(0, scheme.size());
  if (!is_utf8(name) || without_control_characters(name) != name)
    throw MessagingError(
        errc::invalid_option,
        fmt::format("connection string \"{}\"; allowed is memory://name, the name without control characters",
                    readable(connection_string)));
  return std::make_unique<MemoryTransport>(std::move(executor), std::move(clock), name, options);
}

}  // namespace maestro::messaging

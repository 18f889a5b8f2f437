#pragma once

#include <boost/unordered/unordered_flat_set.hpp>
#include <unordered_map>

#include "brokers/redis/publisher.hpp"

namespace maestro::messaging::redis {

/// A delivery that is acknowledged within a transaction.
struct Settlement {
  std::string key;
  std::string group;
  std::string consumer;
  std::string id;
};

/// Publishes with `XADD`, and knows what became of messages whose answer got lost.
class StreamPublisher final : public Publisher {
 public:
  explicit StreamPublisher(std::shared_ptr<Session> session);

  /// `MULTI`, all of it, `EXEC`, once it is known that each command can be done.
  awaitable<void> transact(std::span<OutgoingMessage> messages, std::vector<Settlement> settlements);
  /// A topic that was deleted: what was published to it with an id may be published again.
  awaitable<void> forget(std::string topic);

 protected:
  void append(std::string& to, const OutgoingMessage& message) override;
  void confirm(PublishResult& result, OutgoingMessage& message, const Value& reply) override;
  void begin(Batch& batch) override;
  awaitable<void> settle(std::shared_ptr<Connection> connection, std::shared_ptr<Batch> batch, TimePoint deadline) override;

 private:
  struct Round;
  /// Finds out what became of messages that have an id and whose connection broke: stored, or surely not. Waits for a
  /// server that is away, or cannot answer yet.
  awaitable<void> find_out(Batch& batch, TimePoint deadline);
  /// Writes new topics down, where patterns and lists find them.
  awaitable<void> index(std::shared_ptr<Connection> connection, std::vector<std::string> topics);
  [[nodiscard]] bool is_new(Connection& connection, const std::string& topic);
  /// Completes when so many replicas, and the file if that is wanted, have what was sent on this connection; else says what is missing.
  awaitable<std::optional<std::string>> wait_for_copies(std::shared_ptr<Connection> connection, TimePoint deadline);
  static awaitable<void> run_rounds(std::shared_ptr<StreamPublisher> self);
  awaitable<void> run_round(Round& round);

  boost::unordered_flat_set<std::string> known_topics_;
  std::unordered_map<std::string, std::int64_t> confirmed_;  // the latest offset of each topic that was confirmed here
  const Connection* known_on_ = nullptr;  // what was written down is looked at again after each new connection
  TimePoint known_since_{};
  bool index_refused_ = false;
  std::int64_t wait_replicas_;
  bool wait_fsync_;
  std::string window_ms_;  // empty: a message with the same id is another message
  std::deque<std::shared_ptr<Round>> rounds_;  // that have not begun
  bool rounds_run_ = false;
  Signal round_done_;
};

}  // namespace maestro::messaging::redis

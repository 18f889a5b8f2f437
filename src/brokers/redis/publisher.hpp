#pragma once

#include <boost/unordered/unordered_flat_set.hpp>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>

#include "brokers/redis/session.hpp"

namespace maestro::messaging::redis {

/// Publishes with pipelined `XADD`: whoever publishes at the same time shares a write, and nobody waits for another's answer.
class Publisher : public std::enable_shared_from_this<Publisher> {
 public:
  explicit Publisher(std::shared_ptr<Session> session);
  ~Publisher();

  awaitable<void> publish(std::span<OutgoingMessage> messages, std::span<PublishResult> results, Duration timeout);
  /// `MULTI`, all of it, `EXEC`. `commands` are further commands, `count` of them, that belong to it.
  awaitable<void> transact(std::span<OutgoingMessage> messages, std::string commands, std::size_t count);
  /// A topic that was deleted.
  void forget(const std::string& topic);

 private:
  class Batch;
  class InLine;
  /// Finds out what became of messages that have an id and whose connection broke: stored, or surely not.
  awaitable<void> find_out(std::span<OutgoingMessage> messages, std::span<PublishResult> results, const Batch& batch,
                           TimePoint deadline);
  /// Writes down each new topic, where patterns and lists find it.
  void remember_topics(Connection& connection, std::span<const OutgoingMessage> messages);

  std::shared_ptr<Session> session_;
  std::size_t max_message_bytes_;
  boost::unordered_flat_set<std::string> known_topics_;
  /// Tells those whose time is up, twice a second; a timer for each would cost more than the publish.
  void schedule_sweep();
  void sweep();
  std::unordered_map<std::string, std::int64_t> confirmed_;  // the latest offset of each topic that was confirmed here
  std::vector<InLine*> line_;
  Signal moved_;
  std::deque<std::pair<TimePoint, std::weak_ptr<Batch>>> deadlines_;
  std::unique_ptr<Timer> sweeper_;
  bool sweeping_ = false;
  const Connection* known_on_ = nullptr;  // what was written down is looked at again after each new connection
  TimePoint known_since_{};
};

}  // namespace maestro::messaging::redis

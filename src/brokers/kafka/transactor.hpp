#pragma once

#include <memory>
#include <string>
#include <vector>

#include "brokers/kafka/administration.hpp"
#include "brokers/kafka/consumer.hpp"

namespace maestro::messaging::kafka {

/// The transactional producer (KIP-98, KIP-447). One transaction at a time; each is begun, filled and committed off the
/// executor, and runs to its end also when the wait for it is cancelled.
class Transactor : public std::enable_shared_from_this<Transactor> {
 public:
  /// The places that a transaction moves, by consumer.
  struct Places {
    std::shared_ptr<Client> consumer;
    std::vector<Consumer::Settlement> places;

    /// Of one partition the furthest place says all.
    void add(const Consumer::Settlement& settlement) {
      for (auto& each : places) {
        if (each.topic != settlement.topic || each.partition != settlement.partition) continue;
        if (settlement.place > each.place) each = settlement;
        return;
      }
      places.push_back(settlement);
    }
  };

  Transactor(std::shared_ptr<Session> session, std::shared_ptr<Topics> topics);

  /// Registers the id: ends what an owner before left behind, and fences it. Others need not wait until its transaction times out.
  awaitable<void> prepare();
  /// Throws `transaction_aborted` with the reason, the cause's own code where another try is of no use, `outcome_unknown` when the answer to the commit did not come in
  /// time, or `closed` from when on another has the configured id: whoever was fenced must not fence its successor.
  awaitable<void> commit(std::vector<OutgoingMessage> messages, std::vector<Places> places);
  /// Completes when none is under way, or at the deadline.
  awaitable<void> close(TimePoint deadline);

 private:
  awaitable<void> run(std::vector<OutgoingMessage> messages, std::vector<Places> places, bool only_prepare);
  [[nodiscard]] MessagingError fenced() const;

  std::shared_ptr<Session> session_;
  std::shared_ptr<Topics> topics_;
  std::string transactional_id_;
  bool may_be_taken_over_;          ///< The id is configured, so that another may register it.
  std::shared_ptr<Client> client_;  ///< Null before the first, and after one that failed for good.
  std::int64_t largest_batch_ = 0;  ///< Of that client.
  bool ready_ = false;              ///< Its id is registered, and older owners are fenced.
  bool fenced_ = false;             ///< Another has the id; for good.
  bool busy_ = false;
  Signal ended_;
};

}  // namespace maestro::messaging::kafka

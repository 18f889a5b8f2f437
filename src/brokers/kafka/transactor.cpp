#include "brokers/kafka/transactor.hpp"

#include <fmt/format.h>

#include "brokers/kafka/outgoing.hpp"
#include "brokers/kafka/properties.hpp"

namespace maestro::messaging::kafka {
namespace {

/// What becomes of a transaction that ran off the executor.
struct Outcome {
  bool committed = false;
  bool client_is_lost = false;
  errc code = errc::transaction_aborted;
  std::string reason;
};

class Work {
 public:
  Work(std::shared_ptr<Client> client, std::shared_ptr<Clock> clock, TimePoint deadline)
      : client_(std::move(client)), clock_(std::move(clock)), deadline_(deadline) {}

  bool initialize() {
    return step("registering the transactional id", [&] { return rd_kafka_init_transactions(client_->get(), left()); });
  }

  Outcome prepare() {
    outcome_.committed = initialize();
    return outcome_;
  }

  Outcome run(std::vector<OutgoingMessage>& messages, const std::vector<Transactor::Places>& places, bool is_new) {
    const bool done = (!is_new || initialize()) &&
                      step("beginning a transaction", [&] { return rd_kafka_begin_transaction(client_->get()); }) &&
                      produce(messages) && send(places) && commit();
    while (client_->poll()) continue;  // errors that were told above already
    if (!done && begun_and_open_) abort();
    outcome_.committed = done;
    return outcome_;
  }

 private:
  int left() const { return std::max(milliseconds(deadline_ - clock_->now()), 1); }

  /// Does it again while that may help. False when it failed; then the outcome says why.
  template <class Call>
  bool step(std::string_view what, Call call) {
    for (;;) {
      const ErrorHandle error(call());
      if (!error) {
        begun_and_open_ |= what.starts_with("beginning");
        return true;
      }
      if (rd_kafka_error_is_retriable(error.get()) && clock_->now() < deadline_) continue;
      outcome_.client_is_lost |= rd_kafka_error_is_fatal(error.get()) != 0 || !begun_and_open_;
      if (outcome_.client_is_lost) begun_and_open_ = false;
      outcome_.reason = describe(rd_kafka_error_code(error.get()), what, rd_kafka_error_string(error.get())).detail;
      return false;
    }
  }

  bool produce(std::vector<OutgoingMessage>& messages) {
    constexpr int moment = 100;
    for (auto& message : messages) {
      const TopicHandle topic(rd_kafka_topic_new(client_->get(), message.topic.c_str(), nullptr));
      const auto partition = message.partition.value_or(RD_KAFKA_PARTITION_UA);
      auto error = give(client_->get(), topic.get(), partition, message, nullptr);
      while (error == RD_KAFKA_RESP_ERR__QUEUE_FULL && clock_->now() < deadline_) {
        rd_kafka_flush(client_->get(), moment);
        error = give(client_->get(), topic.get(), partition, message, nullptr);
      }
      if (!error) continue;
      outcome_.reason = describe(error, fmt::format("publishing to \"{}\"", message.topic)).detail;
      return false;
    }
    return true;
  }

  bool send(const std::vector<Transactor::Places>& all) {
    for (const auto& [consumer, places] : all) {
      const GroupMetadataHandle group(rd_kafka_consumer_group_metadata(consumer->get()));
      const auto offsets = make_partitions(places.size());
      for (const auto& each : places)
        rd_kafka_topic_partition_list_add(offsets.get(), each.topic.c_str(), each.partition)->offset = each.place;
      if (!step("moving the group's places",
                [&] { return rd_kafka_send_offsets_to_transaction(client_->get(), offsets.get(), group.get(), left()); }))
        return false;
    }
    return true;
  }

  bool commit() {
    const bool done = step("committing", [&] { return rd_kafka_commit_transaction(client_->get(), left()); });
    // Out of time in the middle: the coordinator may have it. A new client with this id finds out, or fences it.
    if (!done && clock_->now() >= deadline_) {
      outcome_.code = errc::outcome_unknown;
      outcome_.client_is_lost = true;
      begun_and_open_ = false;
    }
    return done;
  }

  void abort() {
    constexpr int limit = 10'000;
    const ErrorHandle error(rd_kafka_abort_transaction(client_->get(), limit));
    if (error) outcome_.client_is_lost = true;
  }

  std::shared_ptr<Client> client_;
  std::shared_ptr<Clock> clock_;
  TimePoint deadline_;
  bool begun_and_open_ = false;
  Outcome outcome_;
};

}  // namespace

Transactor::Transactor(std::shared_ptr<Session> session, std::string transactional_id)
    : session_(std::move(session)), transactional_id_(std::move(transactional_id)), free_(session_->clock, session_->executor) {}

awaitable<void> Transactor::prepare() { return run({}, {}, true); }

awaitable<void> Transactor::commit(std::vector<OutgoingMessage> messages, std::vector<Places> places) {
  return run(std::move(messages), std::move(places), false);
}

awaitable<void> Transactor::run(std::vector<OutgoingMessage> messages, std::vector<Places> places, bool only_prepare) {
  const auto self = shared_from_this();
  const auto deadline = session_->clock->now() + session_->options.duration("publish_timeout");
  while (busy_)
    if (!co_await free_.wait_until(deadline))
      throw MessagingError(errc::transaction_aborted, "earlier transactions did not end in time; nothing was begun");
  busy_ = true;
  // The turn ends with the work, and not with the wait: a cancelled transaction runs to its end.
  struct Turn {
    std::shared_ptr<Transactor> owner;
    explicit Turn(std::shared_ptr<Transactor> whose) : owner(std::move(whose)) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
      boost::asio::post(owner->session_->executor, [owner = owner] {
        owner->busy_ = false;
        owner->free_.ring();
      });
    }
  };
  auto turn = std::make_shared<Turn>(self);
  if (!client_) {
    client_ = std::make_shared<Client>(RD_KAFKA_PRODUCER, transactional_properties(*session_, transactional_id_));
    ready_ = false;
  }
  if (only_prepare && ready_) co_return;
  std::function<Outcome()> work = [turn = std::exchange(turn, nullptr), client = client_, clock = session_->clock, deadline,
                                  messages = std::move(messages), places = std::move(places), is_new = !ready_, only_prepare]() mutable {
    Work work(client, clock, deadline);
    return only_prepare ? work.prepare() : work.run(messages, places, is_new);
  };
  ready_ = true;
  const auto outcome = co_await session_->blocking(std::move(work));
  if (outcome.client_is_lost) client_.reset();
  if (!outcome.committed) throw MessagingError(outcome.code, outcome.reason);
}

}  // namespace maestro::messaging::kafka

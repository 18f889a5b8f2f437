#include "brokers/kafka/transactor.hpp"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <map>
#include <random>
#include <set>

#include "brokers/kafka/outgoing.hpp"
#include "brokers/kafka/properties.hpp"
#include "core/size_limit.hpp"
#include "core/transaction_failure.hpp"

namespace maestro::messaging::kafka {
namespace {

/// What becomes of a transaction that ran off the executor.
struct Outcome {
  bool committed = false;
  bool client_is_lost = false;
  bool fenced = false;
  bool is_of_topic = false;
  errc code = errc::transaction_aborted;
  std::string reason;
};

/// By topic.
using Bytes = std::map<std::string, std::size_t, std::less<>>;

class Work {
 public:
  Work(std::shared_ptr<Client> client, std::shared_ptr<Clock> clock, TimePoint deadline, Duration limit, Bytes limits,
       bool creates_topics)
      : client_(std::move(client)),
        clock_(std::move(clock)),
        deadline_(deadline),
        limit_(limit),
        limits_(std::move(limits)),
        creates_topics_(creates_topics) {}

  bool initialize() {
    return step("registering the transactional id", [&] { return rd_kafka_init_transactions(client_->get(), left()); });
  }

  Outcome prepare() {
    outcome_.committed = initialize();
    return outcome_;
  }

  Outcome run(std::vector<OutgoingMessage>& messages, const std::vector<Transactor::Places>& places, bool is_new) {
    static_cast<void>(client_->troubles().take_undelivered());
    const bool done = (!is_new || initialize()) &&
                      step("beginning a transaction", [&] { return rd_kafka_begin_transaction(client_->get()); }) &&
                      produce(messages) && flush() && send(places) && commit();
    while (client_->poll()) continue;  // errors that were told above already
    if (!done && begun_and_open_) abort();
    outcome_.fenced = !done && is_fenced();
    if (!done && !outcome_.fenced && outcome_.code != errc::outcome_unknown) look_for_undelivered();
    outcome_.client_is_lost |= outcome_.fenced;
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
      is_to_be_aborted_ = rd_kafka_error_txn_requires_abort(error.get()) != 0;
      outcome_.client_is_lost |= rd_kafka_error_is_fatal(error.get()) != 0 || !begun_and_open_;
      if (outcome_.client_is_lost) begun_and_open_ = false;
      const auto code = rd_kafka_error_code(error.get());
      failed(code, describe(code, what, rd_kafka_error_string(error.get())));
      return false;
    }
  }

  void failed(rd_kafka_resp_err_t error, Failure failure) {
    outcome_.code = may_go_well(error, failure.code) ? errc::transaction_aborted : failure.code;
    outcome_.reason = std::move(failure.detail);
    outcome_.is_of_topic = is_of_topic(error) || error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
  }

  // What the broker says, and is not known here, is most often about the transaction, and not about what is in it.
  static bool may_go_well(rd_kafka_resp_err_t error, errc code) {
    if (error == RD_KAFKA_RESP_ERR_INVALID_RECORD || error == RD_KAFKA_RESP_ERR_POLICY_VIOLATION) return false;
    return is_retriable(code) || code == errc::broker_error;
  }

  void look_for_undelivered() {
    while (client_->poll()) continue;
    const auto undelivered = client_->troubles().take_undelivered();
    if (!undelivered) return;
    // A batch that a broker refused leaves a gap in the sequence, which librdkafka 2.0.2 takes into the next transaction.
    outcome_.client_is_lost |= undelivered->error > RD_KAFKA_RESP_ERR_NO_ERROR;
    OutgoingMessage message;
    message.topic = undelivered->topic;
    if (undelivered->has_partition) message.partition = 0;
    failed(undelivered->error, describe_delivery(undelivered->error, RD_KAFKA_MSG_STATUS_NOT_PERSISTED, message, creates_topics_));
  }

  bool produce(std::vector<OutgoingMessage>& messages) {
    constexpr int moment = 100;
    for (auto& message : messages) {
      make_batch_fit(message);
      const TopicHandle topic(rd_kafka_topic_new(client_->get(), message.topic.c_str(), nullptr));
      const auto partition = message.partition.value_or(RD_KAFKA_PARTITION_UA);
      // All that its report has to tell beside the error.
      static char chosen;
      auto* const mark = message.partition ? &chosen : nullptr;
      auto error = give(client_->get(), topic.get(), partition, message, mark);
      while (error == RD_KAFKA_RESP_ERR__QUEUE_FULL && clock_->now() < deadline_) {
        rd_kafka_flush(client_->get(), moment);
        error = give(client_->get(), topic.get(), partition, message, mark);
      }
      if (!error) continue;
      failed(error, describe_delivery(error, RD_KAFKA_MSG_STATUS_NOT_PERSISTED, message, creates_topics_));
      return false;
    }
    return true;
  }

  // A broker refuses a batch as a whole. Another client, as the producer has it for such a topic, would be another
  // transaction.
  void make_batch_fit(const OutgoingMessage& message) {
    constexpr std::size_t beside_each =
        100;  // no less than what a batch, and a record of it, have beside what is counted
    const auto limit = limits_.find(message.topic);
    if (limit == limits_.end()) return;
    const auto bytes = size_of(message) + beside_each;
    if (const auto waiting = waiting_[message.topic]; waiting > 0 && waiting + bytes > limit->second) {
      rd_kafka_flush(client_->get(), left());
      waiting_.clear();
    }
    waiting_[message.topic] += bytes;
  }

  bool send(const std::vector<Transactor::Places>& all) {
    for (const auto& [consumer, places] : all) {
      const GroupMetadataHandle group(rd_kafka_consumer_group_metadata(consumer->get()));
      const auto offsets = make_partitions(places.size());
      for (const auto& each : places) add_place(*offsets, each.topic, each.partition, each.place, each.landmark);
      if (!step("moving the group's places",
                [&] { return rd_kafka_send_offsets_to_transaction(client_->get(), offsets.get(), group.get(), left()); }))
        return false;
    }
    return true;
  }

  // Before it flushes, so that who runs out of time here knows that nothing is committed.
  bool flush() {
    const auto error = rd_kafka_flush(client_->get(), left());
    if (error) failed(error, describe(error, "publishing what is in the transaction"));
    return !error;
  }

  bool commit() {
    const bool done = step("committing", [&] { return rd_kafka_commit_transaction(client_->get(), left()); });
    // Out of time in the middle: the coordinator may have it. A new client with this id finds out, or fences it.
    if (!done && !is_to_be_aborted_ && clock_->now() >= deadline_) {
      outcome_.code = errc::outcome_unknown;
      outcome_.client_is_lost = true;
      begun_and_open_ = false;
    }
    return done;
  }

  // Within its life, which is twice the limit: the broker's own end of it would look like a takeover.
  void abort() {
    constexpr Duration most = std::chrono::seconds(10);
    const ErrorHandle error(rd_kafka_abort_transaction(client_->get(), milliseconds(std::min(limit_, most))));
    if (error) outcome_.client_is_lost = true;
  }

  /// Whether another client has registered the id.
  [[nodiscard]] bool is_fenced() const {
    char text[512] = "";
    switch (rd_kafka_fatal_error(client_->get(), text, sizeof text)) {
      case RD_KAFKA_RESP_ERR__FENCED:
      case RD_KAFKA_RESP_ERR_PRODUCER_FENCED:
      case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH:
        return true;
      default:
        return false;
    }
  }

  std::shared_ptr<Client> client_;
  std::shared_ptr<Clock> clock_;
  TimePoint deadline_;
  Duration limit_;
  Bytes limits_;   // of those that take no batch of the usual size
  Bytes waiting_;  // that may go in one batch
  bool creates_topics_;
  bool begun_and_open_ = false;
  bool is_to_be_aborted_ = false;  // so that it is surely not committed
  Outcome outcome_;
};

// One of its own where none is configured: transactions are whole all the same, but a zombie is fenced by the group
// alone.
std::string id_for(const Session& session) {
  if (const auto configured = session.options.text_if("transactional_id")) return *configured;
  std::random_device random;
  return fmt::format("maestro-{:08x}{:08x}", random(), random());
}

}  // namespace

Transactor::Transactor(std::shared_ptr<Session> session, std::shared_ptr<Topics> topics)
    : session_(std::move(session)),
      topics_(std::move(topics)),
      transactional_id_(id_for(*session_)),
      may_be_taken_over_(session_->options.text_if("transactional_id").has_value()),
      ended_(session_->clock, session_->executor) {}

awaitable<void> Transactor::prepare() { return run({}, {}, true); }

awaitable<void> Transactor::commit(std::vector<OutgoingMessage> messages, std::vector<Places> places) {
  return run(std::move(messages), std::move(places), false);
}

awaitable<void> Transactor::close(TimePoint deadline) {
  const auto self = shared_from_this();
  while (busy_)
    if (!co_await ended_.wait_until(deadline)) co_return;
}

MessagingError Transactor::fenced() const {
  return {errc::closed,
          fmt::format("another program with the transactional_id \"{}\" has taken over, or this one or the broker stood "
                      "still for longer than a transaction may last, which is twice publish_timeout; it makes no more "
                      "of them until it is started again. Programs that run at the same time need different ids",
                      transactional_id_)};
}

awaitable<void> Transactor::run(std::vector<OutgoingMessage> messages, std::vector<Places> places, bool only_prepare) {
  const auto self = shared_from_this();
  const auto limit = session_->options.duration("publish_timeout");
  const auto deadline = session_->clock->now() + limit;
  while (busy_)
    if (!co_await ended_.wait_until(deadline))
      throw MessagingError(errc::transaction_aborted, "earlier transactions did not end in time; nothing was begun");
  if (fenced_) throw fenced();
  if (!client_) {
    auto properties = transactional_properties(*session_, transactional_id_);
    largest_batch_ = largest_batch(*properties);
    client_ = std::make_shared<Client>(RD_KAFKA_PRODUCER, std::move(properties));
    ready_ = false;
  }
  if (only_prepare && ready_) co_return;
  Bytes limits;
  std::set<std::string> names;
  for (const auto& message : messages) {
    names.insert(message.topic);
    if (const auto most = topics_->max_message_bytes(message.topic); most && *most < largest_batch_)
      limits.emplace(message.topic, static_cast<std::size_t>(std::max<std::int64_t>(*most, 0)));
  }
  std::function<Outcome()> work = [client = client_, clock = session_->clock, deadline, limit,
                                   messages = std::move(messages), places = std::move(places), is_new = !ready_,
                                   only_prepare, limits = std::move(limits), creates_topics = topics_->creates()]() mutable {
    Work work(client, clock, deadline, limit, std::move(limits), creates_topics);
    return only_prepare ? work.prepare() : work.run(messages, places, is_new);
  };
  struct Course {
    bool ended = false;
    std::exception_ptr error;
    Outcome outcome;
  };
  const auto course = std::make_shared<Course>();
  busy_ = true;
  ready_ = true;
  // A coroutine of its own, which nobody cancels: whoever runs the executor to its end sees the transaction's end too.
  boost::asio::co_spawn(session_->executor, session_->blocking(std::move(work)),
                        [self, course](std::exception_ptr error, Outcome outcome) {
                          if (error || outcome.client_is_lost) self->client_.reset();
                          self->fenced_ = outcome.fenced && self->may_be_taken_over_;
                          *course = {true, error, std::move(outcome)};
                          self->busy_ = false;
                          self->ended_.ring();
                        });
  while (!course->ended) co_await ended_.wait_until(TimePoint::max());
  if (course->error) std::rethrow_exception(course->error);
  if (fenced_) throw fenced();
  const auto& outcome = course->outcome;
  if (outcome.is_of_topic)
    for (const auto& each : names) topics_->forget(each);  // the next try looks whether it is there
  if (outcome.committed) co_return;
  if (outcome.code == errc::outcome_unknown || only_prepare) throw MessagingError(outcome.code, outcome.reason);
  throw transaction_failure(outcome.code, outcome.reason);
}

}  // namespace maestro::messaging::kafka

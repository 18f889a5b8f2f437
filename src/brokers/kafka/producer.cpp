#include "brokers/kafka/producer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/container/small_vector.hpp>
#include <boost/system/system_error.hpp>
#include <initializer_list>
#include <maestro/messaging/log.hpp>

#include "brokers/kafka/outgoing.hpp"
#include "brokers/kafka/properties.hpp"
#include "core/size_limit.hpp"
#include "runtime/waiter.hpp"

namespace maestro::messaging::kafka {

namespace asio = boost::asio;

namespace {

constexpr Duration one_look = std::chrono::seconds(2);
// A look asks twice at most, and the next one begins a second later.
constexpr Duration looked_lately = 2 * one_look + std::chrono::seconds(2);

Timestamp from_milliseconds(std::int64_t milliseconds) { return Timestamp(std::chrono::milliseconds(milliseconds)); }

void refuse(PublishResult& result, Failure failure) {
  result.error = make_error_code(failure.code);
  result.detail = std::move(failure.detail);
  result.is_of_topic = failure.is_of_topic;
}

bool contains_any(std::string_view text, std::initializer_list<std::string_view> signs) {
  return std::ranges::any_of(signs, [&](auto sign) { return text.find(sign) != std::string_view::npos; });
}

// All are down although no attempt was said to have failed, or one broke or was closed when it was made: connections
// are taken, and closed.
bool is_hang_up(rd_kafka_resp_err_t error, std::string_view text, bool heard_before) {
  if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) return !heard_before;
  return error == RD_KAFKA_RESP_ERR__TRANSPORT && contains_any(text, {"Broken pipe", "reset by peer", "Disconnected"});
}

}  // namespace

/// What a delivery report comes back with.
struct Producer::Slot {
  Batch* batch = nullptr;
  std::uint32_t index = 0;
  // What the sender chose, for a message that is made anew from its report: that has any message's partition, and no time.
  bool has_partition = false;
  bool has_timestamp = false;
  Timestamp timestamp;
  Spread* spread = nullptr;   // that counts it
  Outlet* outlet = nullptr;   // it opens a partition there, as far as is known this one
  std::int32_t opens = RD_KAFKA_PARTITION_UA;
};

struct Producer::Batch : Listed {
  std::span<OutgoingMessage> messages;
  std::span<PublishResult> results;  // empty once nobody waits any more
  std::size_t outstanding = 0;
  bool expired = false;              // its results were written although answers are missing
  bool in_use = true;                // by the coroutine that published it
  std::size_t gathered = 0;          // of its messages, that wait to be given to the client
  TimePoint began;
  TimePoint deadline;
  boost::container::small_vector<Slot, 1> slots;
  Waiter waiter;
  std::shared_ptr<HandedOver> outcome;  // of messages that were handed over: they have no results
  std::size_t taken = 0;                // of those
  std::string topic;                    // of the first of those

  [[nodiscard]] bool has_all_answers() const noexcept { return outstanding == 0 && gathered == 0; }
  /// Of the first message that waits for its answer.
  [[nodiscard]] const std::string& topic_that_waits() const noexcept {
    for (std::size_t i = 0; i < results.size(); ++i)
      if (results[i].ok() && results[i].receipt.offset < 0) return messages[i].topic;
    return topic;
  }
};

Producer::Batch& Producer::new_batch() {
  auto batch = idle_.empty() ? std::make_unique<Batch>() : std::move(idle_.back());
  if (!idle_.empty()) idle_.pop_back();
  batch->expired = false;
  batch->in_use = true;
  batch->taken = 0;
  batch->gathered = 0;
  pending_.push_front(*batch);
  return *batch.release();
}

void Producer::recycle(Batch& batch) {
  pending_.erase(pending_.iterator_to(batch));
  std::unique_ptr<Batch> owned(&batch);
  constexpr std::size_t most_idle = 4096;
  constexpr std::size_t most_slots = 8;
  if (idle_.size() < most_idle && batch.slots.capacity() <= most_slots) idle_.push_back(std::move(owned));
}

Producer::Producer(std::shared_ptr<Session> session, std::shared_ptr<Topics> topics)
    : session_(std::move(session)),
      topics_(std::move(topics)),
      max_message_bytes_(static_cast<std::size_t>(session_->options.integer("max_message_bytes"))),
      creates_topics_(topics_->creates()),
      publish_timeout_(session_->options.duration("publish_timeout")),
      message_timeout_(message_timeout(session_->options)),
      spreads_(spreads(session_->options)),
      moved_(session_->clock, session_->executor),
      answered_(session_->clock, session_->executor),
      sweeper_(session_->clock->make_timer(session_->executor)),
      linger_(session_->options.duration("linger")),
      linger_timer_(session_->clock->make_timer(session_->executor)) {}

Producer::~Producer() {
  if (watch_) watch_->stop();
  sweeper_->cancel();
  linger_timer_->cancel();
  pending_.clear_and_dispose([](Listed* batch) { delete static_cast<Batch*>(batch); });
}

void Producer::open() {
  if (client_) {
    constexpr int all = RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT;
    rd_kafka_purge(client_->get(), all);
    for (const auto& [bytes, narrow] : narrow_) rd_kafka_purge(narrow.client->get(), all);
    hear_all();
    expire([](const Batch& batch) { return batch.outstanding > 0; });  // the old client's last answers are in
  }
  drop_clients();
  auto properties = producer_properties(*session_);
  largest_batch_ = largest_batch(*properties);
  tells_places_ = tells_places(*properties);
  client_ = std::make_shared<Client>(RD_KAFKA_PRODUCER, std::move(properties));
  watch_ = watch(client_);
  failed_for_good_ = false;
}

std::shared_ptr<EventWatch> Producer::watch(const std::shared_ptr<Client>& client) {
  return EventWatch::start(session_->executor, client, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->serve();
  });
}

void Producer::drop_clients() {
  const auto gone = [](const OutgoingMessage&) {
    return Failure{errc::connection_failed, "the Kafka client was closed before it got the message"};
  };
  for (auto& [topic, outlet] : outlets_) refuse_all(std::exchange(outlet.held, {}), gone);
  refuse_all(std::exchange(gathered_, {}), gone);
  wake_settled();
  opened_.clear();
  outlets_.clear();
  last_outlet_ = {};
  narrow_.clear();
  if (watch_) watch_->stop();
  client_.reset();
}

awaitable<void> Producer::connect(Duration limit) {
  const auto self = shared_from_this();
  connecting_failure_.reset();
  decisive_failure_ = false;
  open();
  const auto deadline = session_->clock->now() + limit;
  const auto reached = std::make_shared<std::atomic<int>>(0);  // 1: yes, 2: the limit is over
  // In slices, so that it ends soon after we gave up.
  run_blocking([client = client_, reached, slices = milliseconds(limit) / 250 + 1] {
    for (int i = 0; i < slices && reached->load() == 0; ++i) {
      const rd_kafka_metadata_t* found = nullptr;
      if (rd_kafka_metadata(client->get(), 0, nullptr, &found, 250) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        rd_kafka_metadata_destroy(found);
        reached->store(1);
        return;
      }
    }
  });
  struct Stop {
    Producer& of;
    std::atomic<int>& reached;
    ~Stop() {
      if (reached.exchange(2) == 1) return;
      // Nor is a cancelled connect() one that succeeded.
      of.watch_->stop();
      of.client_.reset();
    }
  } const stop{*this, *reached};
  constexpr Duration look = std::chrono::milliseconds(20);
  while (reached->load() == 0 && !decisive_failure_ && session_->clock->now() < deadline)
    co_await answered_.wait_until(std::min(deadline, session_->clock->now() + look));
  if (reached->load() == 1) co_return;
  auto failure = connecting_failure_.value_or(
      Failure{errc::connection_failed, fmt::format("no answer from {}; is a broker listening there?", session_->servers)});
  if (!decisive_failure_) {
    failure.code = errc::connection_failed;
    failure.detail = fmt::format("no Kafka at {} within {} ms (connect_timeout): {}", session_->servers, milliseconds(limit),
                                 failure.detail);
  }
  throw MessagingError(failure.code, failure.detail);
}

awaitable<void> Producer::close(Duration limit) {
  const auto self = shared_from_this();
  const auto deadline = session_->clock->now() + limit;
  give_gathered();
  while (outstanding_ > 0 && session_->clock->now() < deadline) {
    co_await answered_.wait_until(std::min(deadline, session_->clock->now() + std::chrono::milliseconds(100)));
  }
  drop_clients();
}

void Producer::hear_all() {
  if (const auto client = client_) hear(*client);
  if (!narrow_.empty()) {
    std::vector<std::shared_ptr<Client>> clients;
    for (const auto& [bytes, narrow] : narrow_) clients.push_back(narrow.client);
    for (const auto& client : clients) hear(*client);
  }
}

void Producer::hear(const Client& client) {
  while (auto event = client.poll()) {
    switch (rd_kafka_event_type(event.get())) {
      case RD_KAFKA_EVENT_DR:
        while (const auto* message = rd_kafka_event_message_next(event.get())) on_delivery(*message);
        break;
      case RD_KAFKA_EVENT_ERROR:
        on_error(client, *event);
        break;
      default:
        break;
    }
  }
}

void Producer::serve() {
  const auto self = shared_from_this();
  hear_all();
  answered_.ring();
  wake_settled();
  // With what those published who were woken now.
  if (is_full_ || !opened_.empty() || is_worth_a_request()) give_gathered();
  // Where nothing is under way any more, a request a millisecond is no burden.
  constexpr Duration soon = std::chrono::milliseconds(1);
  if (lingering_ && outstanding_ == 0 && linger_ > soon) linger_until(lingers_since_ + soon);
}

void Producer::on_error(const Client& client, const rd_kafka_event_t& event) {
  auto* raw = const_cast<rd_kafka_event_t*>(&event);
  const auto error = rd_kafka_event_error(raw);
  auto failure = describe(error, "connecting", rd_kafka_event_error_string(raw));
  if (failure.code == errc::authentication_failed)
    failure.detail += login_advice(session_->options.text("sasl_mechanism"), failure.detail);
  if (failure.code == errc::tls_failed) {
    failure.detail = with_certificate_trouble(std::move(failure.detail), client.troubles().certificate());
    if (contains_any(failure.detail, {"unexpected eof", "wrong version number", "Disconnected", "reset by peer", "Broken pipe"}))
      failure.detail += fmt::format("; security_protocol is {}: is that what this port speaks?", session_->options.text("security_protocol"));
  }
  if (failure.code == errc::authentication_failed || failure.code == errc::tls_failed) {
    if (!decisive_failure_) connecting_failure_ = failure;
    decisive_failure_ = true;
  } else if (!decisive_failure_ && is_hang_up(error, failure.detail, connecting_failure_.has_value())) {
    connecting_failure_ = failure;
    connecting_failure_->detail = fmt::format(
        "something listens there, and closes the connection without a word; security_protocol is {}: is that "
        "what this port speaks (TLS: SSL or SASL_SSL; with a login: SASL_SSL or SASL_PLAINTEXT)?",
        session_->options.text("security_protocol"));
  } else if (!decisive_failure_ && error != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
    connecting_failure_ = failure;
  }
  if (error == RD_KAFKA_RESP_ERR__FATAL) failed_for_good_ = true;
  if (failure.code == errc::connection_failed) session_->lost(failure.detail);
  log(error == RD_KAFKA_RESP_ERR__FATAL ? LogLevel::error : LogLevel::info, failure.detail, {{"broker", "kafka"}});
}

void Producer::on_delivery(const rd_kafka_message_t& report) {
  const auto& slot = *static_cast<Slot*>(report._private);
  auto& batch = *slot.batch;
  if (slot.spread) slot.spread->remove(report.partition);
  if (slot.outlet) on_opening(slot, report);
  --outstanding_;
  --batch.outstanding;
  if (!report.err) session_->answered();
  if (batch.outcome) {
    on_kept_delivery(batch, slot, report);
  } else if (!batch.results.empty()) {
    on_own_delivery(batch, slot, report);
  }
  if (batch.has_all_answers()) settle(batch);
}

void Producer::on_opening(const Slot& slot, const rd_kafka_message_t& report) {
  slot.outlet->openings.answer(slot.opens, report.partition, !report.err);
  opened_.push_back(slot.outlet);
  if (!report.err && !slot.outlet->held.empty()) slot.outlet->spread.stay();
  // It is tried again, and what came after it must not be there before.
  const auto failure = [&](const OutgoingMessage& message) {
    return describe_delivery(report.err, rd_kafka_message_status(&report), message, creates_topics_);
  };
  if (report.err && failure({}).code == errc::connection_failed) refuse_all(std::exchange(slot.outlet->held, {}), failure);
}

void Producer::on_own_delivery(Batch& batch, const Slot& slot, const rd_kafka_message_t& report) {
  auto& result = batch.results[slot.index];
  if (!was_taken(report)) {
    refuse(result, failure_of(report, batch.messages[slot.index]));
    return;
  }
  result.receipt.topic = std::move(batch.messages[slot.index].topic);
  result.receipt.partition = report.partition;
  result.receipt.offset = report.offset;
  rd_kafka_timestamp_type_t kind = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
  if (const auto at = rd_kafka_message_timestamp(&report, &kind); kind != RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
    result.receipt.timestamp = from_milliseconds(at);
}

void Producer::on_kept_delivery(Batch& batch, const Slot& slot, const rd_kafka_message_t& report) {
  if (was_taken(report)) {
    ++batch.taken;
    return;
  }
  auto message = message_of(report);
  if (!slot.has_partition) message.partition.reset();
  if (slot.has_timestamp) message.timestamp = slot.timestamp;
  PublishResult result;
  refuse(result, failure_of(report, message));
  batch.outcome->on_failure(slot.index, std::move(message), std::move(result));
}

bool Producer::was_taken(const rd_kafka_message_t& report) const noexcept {
  return !report.err && (report.offset >= 0 || !tells_places_);
}

Failure Producer::failure_of(const rd_kafka_message_t& report, const OutgoingMessage& message) {
  if (!report.err) return unplaced(message.topic);
  auto failure = describe_delivery(report.err, rd_kafka_message_status(&report), message, creates_topics_, hindrance_of(message.topic));
  if (is_of_topic(report.err) || report.err == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION) forget(message.topic);
  return failure;
}

void Producer::settle(Batch& batch) {
  if (const auto outcome = std::exchange(batch.outcome, nullptr)) {
    const auto taken = batch.taken;
    recycle(batch);
    outcome->on_end(taken);
  } else if (batch.in_use) {
    settled_.push_back(&batch);
  } else {
    recycle(batch);
  }
}

Producer::Outlet& Producer::outlet_of(const std::string& topic) {
  if (last_outlet_.second && last_outlet_.first == topic) return *last_outlet_.second;
  auto& outlet = outlets_[topic];
  if (!outlet.handle) {
    // Behind what may be under way to the topic there is no change of clients: they would not keep the order.
    if (!outlet.client || outstanding_ == 0) outlet.client = client_for(topic);
    outlet.handle.reset(rd_kafka_topic_new(outlet.client->get(), topic.c_str(), nullptr));
    if (const auto partitions = topics_->partitions(topic); partitions > 0) outlet.openings.learn(partitions);
    if (!spreads_) outlet.openings.trust();
  }
  last_outlet_ = {topic, &outlet};
  return outlet;
}

// A broker refuses a batch as a whole, and how large a client's batches become is fixed when it is made. Powers of two,
// so that there are few clients.
std::shared_ptr<Client> Producer::client_for(const std::string& topic) try {
  const auto limit = topics_->max_message_bytes(topic);
  if (!limit || *limit >= largest_batch_) return client_;
  const auto bytes =
      static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(std::max<std::int64_t>(*limit, 1))));
  if (const auto found = narrow_.find(bytes); found != narrow_.end()) return found->second.client;
  auto properties = producer_properties(*session_);
  limit_batches(*properties, bytes);
  auto client = std::make_shared<Client>(RD_KAFKA_PRODUCER, std::move(properties));
  narrow_.emplace(bytes, Narrow{client, watch(client)});
  return client;
} catch (const MessagingError& failure) {  // as when a file of its options has gone since the other client was made
  log(LogLevel::warning, fmt::format("no client for the small batches of \"{}\": {}", topic, failure.what()),
      {{"broker", "kafka"}});
  return client_;
}

// What is under way to it is still counted.
void Producer::forget(const std::string& topic) {
  topics_->forget(topic);
  if (const auto outlet = outlets_.find(topic); outlet != outlets_.end()) {
    outlet->second.handle.reset();
    outlet->second.spread.forget();
    outlet->second.openings.close();
  }
  last_outlet_ = {};
}

std::optional<Failure> Producer::refusal_of(rd_kafka_resp_err_t error, const OutgoingMessage& message) {
  if (error == RD_KAFKA_RESP_ERR__QUEUE_FULL) return std::nullopt;
  if (error == RD_KAFKA_RESP_ERR__FATAL) failed_for_good_ = true;
  if (error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION && message.partition)
    return Failure{errc::invalid_argument,
                   fmt::format("partition {}: \"{}\" has none of this number", *message.partition, message.topic)};
  if (is_of_topic(error) || error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION) forget(message.topic);
  return describe_delivery(error, RD_KAFKA_MSG_STATUS_NOT_PERSISTED, message, creates_topics_);
}

/// Where messages to one topic go that all have a key, all have none, or are for one partition.
class Producer::Route {
 public:
  /// `spread` chooses the partition of messages without a key; null for others, and where they are another partitioner's.
  Route(Outlet& outlet, Spread* spread, std::optional<std::int32_t> partition, bool keys_are_ours)
      : outlet_(outlet),
        spread_(spread),
        partition_(partition.value_or(spread ? spread->choice() : RD_KAFKA_PARTITION_UA)),
        keys_are_ours_(keys_are_ours) {}

  [[nodiscard]] std::int32_t partition() const noexcept { return partition_; }
  /// The partition is chosen as a message is given.
  [[nodiscard]] bool chooses() const noexcept { return spread_ && partition_ == RD_KAFKA_PARTITION_UA; }
  [[nodiscard]] bool may_go(const OutgoingMessage& message) const {
    return chooses() ? outlet_.openings.may_choose() : outlet_.openings.may_go(destination(message));
  }
  /// It is about to be given.
  void go(const OutgoingMessage& message, Slot& slot) {
    if (!chooses()) open(destination(message), slot);
  }
  /// It was, and taken or not.
  void gone(const OutgoingMessage& message, Slot& slot, bool taken) {
    if (taken && chooses()) open(spread_->choice(), slot);
    // Giving it may have told how many partitions there are, and so where it is.
    const bool is_found = slot.outlet && slot.opens == RD_KAFKA_PARTITION_UA && destination(message) != RD_KAFKA_PARTITION_UA;
    if (taken && !is_found) return;
    if (std::exchange(slot.outlet, nullptr)) outlet_.openings.answer(slot.opens, slot.opens, false);
    if (taken) open(destination(message), slot);
  }

 private:
  void open(std::int32_t partition, Slot& slot) {
    if (!outlet_.openings.go(partition)) return;
    slot.outlet = &outlet_;
    slot.opens = partition;
  }
  // As far as that can be told, and only while it matters.
  [[nodiscard]] std::int32_t destination(const OutgoingMessage& message) const {
    const auto partitions = outlet_.openings.partitions();
    if (partition_ != RD_KAFKA_PARTITION_UA || !message.key || !keys_are_ours_ || partitions == 0 || outlet_.openings.all_open())
      return partition_;
    return rd_kafka_msg_partitioner_murmur2_random(outlet_.handle.get(), message.key->data(), message.key->size(), partitions,
                                                   nullptr, nullptr);
  }

  Outlet& outlet_;
  Spread* spread_;
  std::int32_t partition_;
  bool keys_are_ours_;
};

std::size_t Producer::give_all(std::size_t count, auto message_of, auto slot_of, auto refuse, auto hold) {
  const Outlet* before = nullptr;
  for (std::size_t first = 0; first < count;) {
    const OutgoingMessage& leader = message_of(first);
    if (auto why = refusal(leader, max_message_bytes_)) {
      if (!refuse(first, *std::move(why))) return first;
      ++first;
      continue;
    }
    auto& outlet = outlet_of(leader.topic);
    auto* const spread = spreads_ && !leader.key && !leader.partition ? &outlet.spread : nullptr;
    if (spread && (std::exchange(before, &outlet) != &outlet || spread->has_given_enough())) spread->choose(session_->clock->now());
    Route route(outlet, spread, leader.partition, spreads_);
    if (!route.may_go(leader)) {
      if (!hold(first, outlet)) return first;
      ++first;
      continue;
    }
    const auto most = route.chooses() ? 1 : records_.size();
    const auto goes_along = [&](const OutgoingMessage& message) {
      return is_plain(message) && size_of(message) <= max_message_bytes_ && message.topic == leader.topic &&
             message.key.has_value() == leader.key.has_value() && route.may_go(message);
    };
    std::size_t together = 0;
    std::size_t bytes = 0;
    while (together < most && first + together < count && bytes < Spread::enough_bytes && goes_along(message_of(first + together))) {
      const OutgoingMessage& message = message_of(first + together);
      auto* const slot = slot_of(first + together);
      route.go(message, *slot);
      bytes += size_of(message);
      records_[together] = plain_record(message, slot);
      ++together;
    }
    {
      const Spread::Asking asking(spread, outlet.openings);
      if (together > 0) {
        give_plain(outlet.handle.get(), route.partition(), std::span(records_).first(together));
      } else {
        auto* const slot = slot_of(first);
        route.go(leader, *slot);
        records_[0]._private = slot;
        records_[0].err = give(outlet.client->get(), outlet.handle.get(), route.partition(), leader, slot);
        together = 1;
      }
    }
    const auto given = std::span(records_).first(together);
    for (std::size_t i = 0; i < together; ++i)
      route.gone(message_of(first + i), *static_cast<Slot*>(given[i]._private), !given[i].err);
    const bool counts = spread && spread->choice() != RD_KAFKA_PARTITION_UA;
    for (const auto& record : given) {
      if (!record.err) {
        auto& slot = *static_cast<Slot*>(record._private);
        ++slot.batch->outstanding;
        ++outstanding_;
        if (counts) {
          slot.spread = spread;
          spread->add(size_of(message_of(first)));
        }
      } else {
        auto failure = refusal_of(record.err, message_of(first));
        if (!failure || !refuse(first, *std::move(failure))) return first;
      }
      ++first;
    }
  }
  return count;
}

// Publishes of one turn are given together, and while others have no answer yet those of `linger` too, unless they are worth a request
// before: one by one they would leave in as many requests (compare RFC 896). A lone publish waits for nothing. That an answer comes is no
// reason to go: at some 3,000 requests a second the broker has more work with them than with the messages.
void Producer::gather(Batch& batch) {
  for (std::size_t i = 0; i < batch.messages.size(); ++i) {
    if (!batch.results[i].ok()) continue;
    batch.slots[i] = {&batch, static_cast<std::uint32_t>(i)};
    gathered_.push_back(&batch.slots[i]);
    ++batch.gathered;
  }
  if (batch.messages.size() > 1 || is_worth_a_request()) give_gathered();
  if (!gathered_.empty()) at_end_of_turn();
}

bool Producer::is_worth_a_request() const noexcept {
  constexpr std::size_t least = 64;
  constexpr std::size_t enough = 4096;
  return gathered_.size() >= std::clamp(outstanding_, least, enough);
}

void Producer::at_end_of_turn() {
  if (std::exchange(end_of_turn_scheduled_, true)) return;
  asio::post(session_->executor, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->end_of_turn_scheduled_ = false;
    if (self->gathered_.empty() || self->lingering_) return;
    if (self->outstanding_ == 0 || self->linger_ == Duration::zero()) {
      self->give_gathered();
    } else {
      self->lingering_ = true;
      self->lingers_since_ = self->session_->clock->now();
      self->linger_until(self->lingers_since_ + self->linger_);
    }
  });
}

void Producer::linger_until(TimePoint time) {
  linger_timer_->expires_at(time);
  linger_timer_->async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self) return;
    self->lingering_ = false;
    self->give_gathered();
  });
}

void Producer::give_gathered() {
  for (auto* outlet : std::exchange(opened_, {})) gather_again(*outlet);
  if (gathered_.empty() || !client_) return;
  const auto message_of = [&](std::size_t i) -> const OutgoingMessage& { return gathered_[i]->batch->messages[gathered_[i]->index]; };
  const auto slot_of = [&](std::size_t i) { return gathered_[i]; };
  const auto refused = [&](std::size_t i, Failure failure) {
    refuse(gathered_[i]->batch->results[gathered_[i]->index], std::move(failure));
    return true;
  };
  const auto hold = [&](std::size_t i, Outlet& outlet) {
    if (outlet.held.empty()) outlet.held_since = session_->clock->now();
    outlet.held.push_back(std::exchange(gathered_[i], nullptr));
    return true;
  };
  const auto count = give_all(gathered_.size(), message_of, slot_of, refused, hold);
  is_full_ = count < gathered_.size();
  for (const auto* slot : std::span(gathered_).first(count))
    if (slot && --slot->batch->gathered == 0 && slot->batch->outstanding == 0) settled_.push_back(slot->batch);
  gathered_.erase(gathered_.begin(), gathered_.begin() + static_cast<std::ptrdiff_t>(count));
  wake_settled();
}

void Producer::gather_again(Outlet& outlet) {
  const auto now = session_->clock->now();
  std::vector<Slot*> again;
  std::vector<Slot*> late;
  for (auto* slot : std::exchange(outlet.held, {})) (now < slot->batch->began + message_timeout_ ? again : late).push_back(slot);
  refuse_all(std::move(late), [this](const OutgoingMessage& message) { return held_too_long(message); });
  gathered_.insert(gathered_.begin(), again.begin(), again.end());
}

void Producer::free_what_is_held(TimePoint now) {
  constexpr Duration patience = std::chrono::seconds(1);
  for (auto& [topic, outlet] : outlets_) {
    if (outlet.held.empty() || now - outlet.held_since < patience) continue;
    outlet.spread.forget();
    opened_.push_back(&outlet);
  }
  if (!opened_.empty()) give_gathered();
}

void Producer::refuse_all(std::vector<Slot*> slots, const std::function<Failure(const OutgoingMessage&)>& why) {
  for (const auto* slot : slots) {
    auto& batch = *slot->batch;
    refuse(batch.results[slot->index], why(batch.messages[slot->index]));
    if (--batch.gathered == 0 && batch.outstanding == 0) settled_.push_back(&batch);
  }
}

// As librdkafka says it of what it had itself.
Failure Producer::held_too_long(const OutgoingMessage& message) const {
  return describe_delivery(RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, RD_KAFKA_MSG_STATUS_NOT_PERSISTED, message, creates_topics_,
                           hindrance_of(message.topic));
}

void Producer::take_back(Batch& batch) {
  if (std::exchange(batch.gathered, 0) == 0) return;
  const auto is_its = [&](const Slot* slot) { return slot->batch == &batch; };
  std::erase_if(gathered_, is_its);
  for (auto& [topic, outlet] : outlets_) std::erase_if(outlet.held, is_its);
}

void Producer::wake_settled() {
  for (auto* batch : std::exchange(settled_, {})) batch->waiter.wake();
}

Failure Producer::no_room() const {
  return {errc::queue_full, fmt::format("queue_messages ({}) messages wait for the broker", session_->options.integer("queue_messages"))};
}

bool Producer::ready_for(std::span<const OutgoingMessage> messages) {
  const std::string* last = nullptr;
  for (const auto& message : messages) {
    if (last && *last == message.topic) continue;
    if (!topics_->knows(message.topic)) return false;
    last = &message.topic;
  }
  return true;
}

awaitable<void> Producer::ensure_topics(std::span<OutgoingMessage> messages, std::span<PublishResult> results,
                                        TimePoint deadline) {
  std::map<std::string, Failure, std::less<>> failures;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& topic = messages[i].topic;
    if (topics_->knows(topic)) continue;
    if (!failures.contains(topic)) {
      try {
        const auto left = std::max<Duration>(deadline - session_->clock->now(), std::chrono::milliseconds(1));
        co_await topics_->ensure(client_, topic, left);
        continue;
      } catch (const MessagingError& failure) {
        failures.emplace(topic, Failure{failure.reason(), failure.detail()});
      }
    }
    refuse(results[i], failures.find(topic)->second);
  }
}

awaitable<void> Producer::publish(std::span<OutgoingMessage> messages, std::span<PublishResult> results, TimePoint deadline) {
  const auto self = shared_from_this();
  if (messages.empty()) co_return;
  if (failed_for_good_ && outstanding_ > 0) {
    open();
    // What comes back from the old client is older, and has to go first when all of it is tried again.
    for (auto& result : results) refuse(result, {errc::connection_failed, "the Kafka client failed for good, and was replaced"});
    co_return;
  }
  if (!client_ || failed_for_good_) open();
  auto& batch = new_batch();
  batch.messages = messages;
  batch.results = results;
  batch.began = deadline - publish_timeout_;
  batch.deadline = deadline;
  batch.slots.resize(messages.size());
  struct Use {
    Producer& producer;
    Batch& batch;
    ~Use() {
      batch.in_use = false;
      batch.results = {};
      std::erase(producer.settled_, &batch);
      producer.take_back(batch);
      if (batch.outstanding == 0) producer.recycle(batch);
    }
  } const use{*this, batch};

  if (!line_.empty() || !ready_for(messages)) co_await wait_in_line(batch);
  gather(batch);
  if (!batch.has_all_answers()) schedule_sweep();
  while (!batch.expired && !batch.has_all_answers()) {
    co_await batch.waiter.async_wait(asio::deferred);
    const auto cancellation = co_await asio::this_coro::cancellation_state;
    if (cancellation.cancelled() != asio::cancellation_type::none && !batch.has_all_answers())
      throw boost::system::system_error(asio::error::operation_aborted);
  }
}

awaitable<void> Producer::wait_in_line(Batch& batch) {
  struct Place {
    Producer& producer;
    Batch& batch;
    Place(Producer& of, Batch& one) : producer(of), batch(one) { producer.line_.push_back(&batch); }
    Place(const Place&) = delete;
    ~Place() {
      std::erase(producer.line_, &batch);
      producer.moved_.ring();
    }
  } const place(*this, batch);
  while (line_.front() != &batch)
    if (!co_await moved_.wait_until(batch.deadline)) break;
  if (line_.front() == &batch) {
    co_await ensure_topics(batch.messages, batch.results, batch.deadline);
  } else {
    for (auto& result : batch.results) refuse(result, {errc::timed_out, "earlier publishes did not get through in time"});
  }
}

std::size_t Producer::hand_over(std::span<OutgoingMessage> messages, std::shared_ptr<HandedOver> outcome) {
  if (messages.empty() || !client_ || failed_for_good_ || !line_.empty() || !ready_for(messages)) return 0;
  const auto self = shared_from_this();
  give_gathered();
  if (!gathered_.empty()) return 0;
  auto& batch = new_batch();
  batch.in_use = false;
  batch.messages = {};
  batch.results = {};
  batch.began = session_->clock->now();
  batch.topic = messages.front().topic;
  batch.slots.resize(messages.size());
  const auto slot_of = [&](std::size_t i) {
    const auto& message = messages[i];
    return &(batch.slots[i] = {&batch, static_cast<std::uint32_t>(i), message.partition.has_value(), message.timestamp.has_value(),
                               message.timestamp.value_or(Timestamp())});
  };
  const auto refused = [&](std::size_t i, Failure failure) {
    // It would come back before those that were taken, and may have to be tried again behind them.
    if (failure.code == errc::connection_failed) return false;
    PublishResult result;
    refuse(result, std::move(failure));
    outcome->on_failure(i, std::move(messages[i]), std::move(result));
    return true;
  };
  const auto message_of = [&](std::size_t i) -> const OutgoingMessage& { return messages[i]; };
  const auto hold = [](std::size_t, const Outlet&) { return false; };
  const auto count = give_all(messages.size(), message_of, slot_of, refused, hold);
  if (batch.outstanding > 0) {
    batch.outcome = std::move(outcome);
    schedule_sweep();
  } else {
    recycle(batch);
    if (count > 0) outcome->on_end(0);
  }
  return count;
}

void Producer::schedule_sweep() {
  if (std::exchange(sweeping_, true)) return;
  sweeper_->expires_at(session_->clock->now() + std::chrono::milliseconds(250));
  sweeper_->async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (!self) return;
    self->sweeping_ = false;
    if (!error) self->sweep();
  });
}

void Producer::sweep() {
  serve();
  const auto now = session_->clock->now();
  expire([now](const Batch& batch) { return batch.deadline <= now; });
  look_for_hindrances(now);
  free_what_is_held(now);
  if (!pending_.empty()) schedule_sweep();
}

// Messages that are not taken are tried again by librdkafka, which does not say why until their time is over, and then
// says that it is.
void Producer::look_for_hindrances(TimePoint now) {
  const auto patience = std::min<Duration>(std::chrono::seconds(1), publish_timeout_ / 2);
  constexpr Duration period = std::chrono::seconds(1);
  if (!client_ || looking_) return;
  std::string_view before;
  for (auto each = pending_.rbegin(); each != pending_.rend(); ++each) {  // the oldest is the last
    const auto& batch = static_cast<Batch&>(*each);
    if (!(batch.in_use || batch.outcome) || batch.expired || batch.outstanding == 0) continue;
    if (now - batch.began < patience) return;
    const auto& topic = batch.topic_that_waits();
    if (topic.empty() || std::exchange(before, topic) == topic) continue;
    if (const auto known = hindrances_.find(topic); known != hindrances_.end() && now - known->second.at < period)
      continue;
    looking_ = true;
    asio::co_spawn(session_->executor, look_for_hindrance(shared_from_this(), topic), asio::detached);
    return;
  }
}

awaitable<void> Producer::look_for_hindrance(std::shared_ptr<Producer> self, std::string topic) {
  std::function<Hindrance()> look = [client = self->client_, topic] {
    return client ? ask::hindrance(*client, topic, one_look) : Hindrance();
  };
  auto found = co_await self->session_->blocking(std::move(look));
  self->looking_ = false;
  const auto now = self->session_->clock->now();
  std::erase_if(self->hindrances_, [now](const auto& known) { return now - known.second.at > looked_lately; });
  self->hindrances_.insert_or_assign(std::move(topic), Looked{std::move(found), now});
  self->look_for_hindrances(now);
}

Hindrance Producer::hindrance_of(std::string_view topic) const {
  const auto known = hindrances_.find(topic);
  if (known != hindrances_.end() && session_->clock->now() - known->second.at <= looked_lately && !known->second.found.text.empty())
    return known->second.found;
  if (session_->trouble.empty()) return {};
  return {fmt::format("what was heard last of a connection: {}", session_->trouble)};
}

void Producer::expire(const std::function<bool(const Batch&)>& is_late) {
  std::vector<Batch*> late;
  for (auto& each : pending_) {
    auto& batch = static_cast<Batch&>(each);
    if (batch.in_use && !batch.expired && !batch.has_all_answers() && is_late(batch)) late.push_back(&batch);
  }
  for (auto* batch : late) batch->expired = true;
  const auto refuse_late = [](std::vector<Slot*>& slots, auto why) {
    std::erase_if(slots, [&](const Slot* slot) {
      auto& batch = *slot->batch;
      if (!batch.expired) return false;
      refuse(batch.results[slot->index], why(batch.messages[slot->index]));
      --batch.gathered;
      return true;
    });
  };
  if (!late.empty()) {
    refuse_late(gathered_, [this](const OutgoingMessage&) { return no_room(); });
    for (auto& [topic, outlet] : outlets_)
      refuse_late(outlet.held, [this](const OutgoingMessage& message) { return held_too_long(message); });
  }
  for (auto* batch : late) {
    for (std::size_t i = 0; i < batch->results.size(); ++i) {
      auto& result = batch->results[i];
      if (result.error || result.receipt.offset >= 0) continue;
      refuse(result, no_answer(batch->messages[i].topic, hindrance_of(batch->messages[i].topic)));
    }
    batch->results = {};
  }
  for (auto* batch : late) batch->waiter.wake();
}

}  // namespace maestro::messaging::kafka

#include "brokers/redis/publisher.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/system/system_error.hpp>
#include <limits>

#include "core/size_limit.hpp"
#include "core/stable_hash.hpp"
#include "runtime/notifier.hpp"

namespace maestro::messaging::redis {

namespace asio = boost::asio;

namespace {
constexpr Duration sweep_period = std::chrono::milliseconds(250);
constexpr Duration first_full_pause = std::chrono::milliseconds(50);
constexpr Duration longest_full_pause = std::chrono::seconds(1);

bool is_without_memory(const PublishResult& result) {
  return result.error == errc::queue_full;
}

std::uint64_t hash_of_key(const OutgoingMessage& message) {
  return (stable_hash(message.topic) * 31) ^ stable_hash(*message.key);
}
}  // namespace

/// A place in the line of those that wait for a connection, for memory of the server, or until it is known what became
/// of them: whoever comes while others wait, waits behind them.
class Publisher::InLine {
 public:
  explicit InLine(Publisher& publisher) : publisher_(publisher) {}
  ~InLine() { leave(); }
  InLine(const InLine&) = delete;
  InLine& operator=(const InLine&) = delete;

  /// Behind all others, or, when the message of that place was sent before, before all that came later.
  void enter(Place sent = never_sent) {
    if (std::exchange(in_it_, true)) return;
    place_ = sent;
    auto& line = publisher_.line_;
    line.insert(std::ranges::upper_bound(line, place_, {}, &InLine::place_), this);
  }
  void enter_without_memory(Place refused) {
    without_memory_ = true;
    enter(refused);
  }
  void leave() {
    if (!std::exchange(in_it_, false)) return;
    auto& line = publisher_.line_;
    std::erase(line, this);
    if (!publisher_.short_of_memory_.empty() && std::ranges::none_of(line, &InLine::waits_for_memory))
      publisher_.short_of_memory_.clear();
    publisher_.moved_.ring();
  }
  [[nodiscard]] bool is_first() const { return publisher_.line_.front() == this; }
  [[nodiscard]] bool waits_for_memory() const { return without_memory_; }
  /// It will be tried again by its caller, and so will those behind, which else would overtake it.
  void fail_all(const Failure& why) {
    for (auto* each : publisher_.line_)
      if (!each->failure) each->failure = why;
    publisher_.moved_.ring();
  }

  std::optional<Failure> failure;

 private:
  static constexpr Place never_sent = std::numeric_limits<Place>::max();

  Publisher& publisher_;
  Place place_ = never_sent;
  bool without_memory_ = false;
  bool in_it_ = false;
};

Publisher::Batch::Batch(Publisher& of, InLine& line, std::span<OutgoingMessage> to_send,
                        std::span<PublishResult> outcomes, std::vector<Place> places)
    : messages(to_send), results(outcomes), publisher_(of), line_(line), places_(std::move(places)) {
  if (!places_.empty()) return;
  first_ = of.next_place_;
  of.next_place_ += messages.size();
}

void Publisher::Batch::on_reply(std::size_t index, const Value& reply, ReplyReader&) {
  ++answered;
  if (!results.empty()) {
    auto& result = results[sent[index]];
    auto& message = messages[sent[index]];
    if (reply.is_error()) {
      refuse(result, describe(reply.text, fmt::format("publishing to \"{}\"", message.topic)));
      if (is_without_memory(result)) {
        line_.enter_without_memory(place_of(sent[index]));
        publisher_.note_refused(message);
      }
    } else {
      publisher_.note_taken(message, place_of(sent[index]));
      publisher_.confirm(result, message, reply);
    }
  }
  if (answered == sent.size()) waiter.wake();
}

void Publisher::Batch::on_broken(std::size_t from, bool was_sent, const Failure& why) {
  broken = was_sent;
  // Nothing overtakes it until it is known whether the server has it.
  if (was_sent && from < sent.size() && !results.empty()) line_.enter(place_of(sent[from]));
  for (auto i = from; i < sent.size() && !results.empty(); ++i)
    refuse(results[sent[i]], was_sent ? Failure{errc::outcome_unknown, why.detail + "; no answer came before"}
                                      : Failure{errc::connection_failed, why.detail});
  answered = sent.size();
  waiter.wake();
}

Publisher::Publisher(std::shared_ptr<Session> session)
    : session_(std::move(session)),
      max_message_bytes_(static_cast<std::size_t>(session_->options.integer("max_message_bytes"))),
      moved_(session_->clock, session_->executor),
      sweeper_(session_->clock->make_timer(session_->executor)) {}

Publisher::~Publisher() { sweeper_->cancel(); }

std::optional<Failure> Publisher::refusal(const OutgoingMessage& message) const {
  if (auto why = over_limit(message, max_message_bytes_)) return Failure{errc::message_too_large, *std::move(why)};
  if (message.partition)
    return Failure{errc::invalid_argument,
                   fmt::format("partition {}: a topic of Redis has no partitions; leave it out", *message.partition)};
  return std::nullopt;
}

void Publisher::schedule_sweep() {
  if (std::exchange(sweeping_, true)) return;
  sweeper_->expires_at(session_->clock->now() + sweep_period);
  sweeper_->async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    if (!self) return;
    self->sweeping_ = false;
    if (!error) self->sweep();
  });
}

void Publisher::sweep() {
  const auto now = session_->clock->now();
  std::vector<std::shared_ptr<Batch>> late;
  std::erase_if(deadlines_, [&](const auto& each) {
    const auto batch = each.second.lock();
    if (!batch || batch->is_done()) return true;
    if (each.first > now) return false;
    late.push_back(batch);
    return true;
  });
  for (const auto& batch : late) {
    batch->late = true;
    batch->waiter.wake();
  }
  if (!deadlines_.empty()) schedule_sweep();
}

void Publisher::note_refused(const OutgoingMessage& message) {
  if (message.key) short_of_memory_.try_emplace(hash_of_key(message), 0);
}

void Publisher::note_taken(const OutgoingMessage& message, Place place) {
  if (short_of_memory_.empty() || !message.key) return;
  if (const auto key = short_of_memory_.find(hash_of_key(message)); key != short_of_memory_.end())
    key->second = std::max(key->second, place);
}

bool Publisher::is_overtaken(const OutgoingMessage& message, Place place) const {
  if (!message.key) return false;
  const auto key = short_of_memory_.find(hash_of_key(message));
  return key != short_of_memory_.end() && key->second > place;
}

awaitable<void> Publisher::publish_again(std::shared_ptr<Batch> batch, InLine& line, TimePoint deadline) {
  const auto messages = batch->messages;
  const auto results = batch->results;
  std::vector<std::size_t> refused;
  for (std::size_t i = 0; i < results.size(); ++i)
    if (is_without_memory(results[i]) || batch->is_lost(results[i])) refused.push_back(i);
  // What was lost is tried at once, and but once here: its caller does so from then on.
  bool at_once = std::ranges::any_of(refused, [&](std::size_t i) { return batch->is_lost(results[i]); });
  for (auto pause = first_full_pause;; pause = std::min(2 * pause, longest_full_pause)) {
    std::erase_if(refused, [&](std::size_t i) {
      if (!is_without_memory(results[i]) && !at_once) return true;
      if (!is_overtaken(messages[i], batch->place_of(i))) return false;
      results[i].detail += "; a later message of its key was taken, so it is not tried again";
      return true;
    });
    if (refused.empty()) co_return;
    if (!line.is_first()) {
      while (!line.failure && !line.is_first())
        if (!co_await moved_.wait_until(deadline)) co_return;
    } else if (!at_once) {
      if (session_->clock->now() + pause >= deadline) co_return;
      co_await sleep_for(*session_->clock, pause);
    }
    at_once = false;
    if (line.failure) {
      for (const auto i : refused) refuse(results[i], *line.failure);
      co_return;
    }
    std::vector<OutgoingMessage> again;
    std::vector<Place> places;
    for (const auto i : refused) {
      again.push_back(std::move(messages[i]));
      places.push_back(batch->place_of(i));
    }
    std::vector<PublishResult> outcome(again.size());
    co_await attempt(again, outcome, deadline, &line, std::move(places));
    for (std::size_t k = 0; k < refused.size(); ++k) {
      messages[refused[k]] = std::move(again[k]);
      results[refused[k]] = std::move(outcome[k]);
    }
    const auto broken =
        std::ranges::find_if(results, [](const auto& result) { return result.error == errc::connection_failed; });
    if (broken != results.end()) line.fail_all({errc::connection_failed, broken->detail});
  }
}

awaitable<std::shared_ptr<Connection>> Publisher::wait_for_turn(InLine& line, TimePoint deadline) {
  line.enter();
  while (!line.failure && !line.is_first()) {
    if (co_await moved_.wait_until(deadline)) continue;
    if (!line_.front()->waits_for_memory()) {
      line.fail_all({errc::connection_failed, "earlier publishes did not get through in time"});
    } else {
      line.failure =
          Failure{errc::queue_full, "earlier publishes still wait for the server to have memory (maxmemory)"};
    }
  }
  if (line.failure) co_return nullptr;
  try {
    auto connection = co_await session_->publishing(deadline);
    if (!line.failure) co_return connection;
  } catch (const MessagingError& known) {
    line.fail_all({known.reason(), known.detail()});
  }
  co_return nullptr;
}

awaitable<void> Publisher::attempt(std::span<OutgoingMessage> messages, std::span<PublishResult> results,
                                   TimePoint deadline, InLine* again, std::vector<Place> places) {
  const auto self = shared_from_this();
  auto connection = session_->open_publishing();
  InLine own(*this);
  auto& line = again ? *again : own;
  if (!connection || !line_.empty()) {
    connection = co_await wait_for_turn(line, deadline);
    if (!connection) {
      for (auto& result : results) refuse(result, *line.failure);
      co_return;
    }
  }
  auto batch = std::make_shared<Batch>(*this, line, messages, results, std::move(places));
  begin(*batch);
  batch->sent.reserve(messages.size());
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (const auto why = refusal(messages[i])) {
      refuse(results[i], *why);
    } else {
      append(connection->buffer(), messages[i]);
      connection->push();
      batch->sent.push_back(static_cast<std::uint32_t>(i));
    }
  }
  if (batch->sent.empty()) co_return;
  struct Leave {
    Batch& batch;
    ~Leave() { batch.results = {}; }
  } const leave{*batch};
  connection->sent(batch->sent.size(), batch);
  if (!again) line.leave();
  deadlines_.emplace_back(deadline, batch);
  schedule_sweep();
  while (!batch->is_done() && !batch->late) {
    co_await batch->waiter.async_wait(asio::deferred);
    const auto cancellation = co_await asio::this_coro::cancellation_state;
    if (cancellation.cancelled() != asio::cancellation_type::none && batch->answered < batch->sent.size())
      throw boost::system::system_error(asio::error::operation_aborted);
  }
  for (auto i = batch->answered; i < batch->sent.size(); ++i)
    refuse(results[batch->sent[i]],
           {errc::outcome_unknown, fmt::format("no answer for \"{}\" within the time allowed", messages[batch->sent[i]].topic)});
  co_await settle(std::move(connection), batch, deadline);
  const auto has_another_try = [&](const auto& result) { return is_without_memory(result) || batch->is_lost(result); };
  if (!again && std::ranges::any_of(results, has_another_try)) co_await publish_again(batch, line, deadline);
}

}  // namespace maestro::messaging::redis

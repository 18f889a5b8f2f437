#include "brokers/redis/publisher.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/system/system_error.hpp>

#include "core/size_limit.hpp"
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
}  // namespace

void Publisher::Batch::on_reply(std::size_t index, const Value& reply, ReplyReader&) {
  ++answered;
  if (!results.empty()) {
    auto& result = results[sent[index]];
    auto& message = messages[sent[index]];
    if (reply.is_error()) {
      refuse(result, describe(reply.text, fmt::format("publishing to \"{}\"", message.topic)));
    } else {
      publisher_.confirm(result, message, reply);
    }
  }
  if (answered == sent.size()) waiter.wake();
}

void Publisher::Batch::on_broken(std::size_t from, bool was_sent, const Failure& why) {
  broken = was_sent;
  for (auto i = from; i < sent.size() && !results.empty(); ++i)
    refuse(results[sent[i]], was_sent ? Failure{errc::outcome_unknown, why.detail + "; no answer came before"}
                                      : Failure{errc::connection_failed, why.detail});
  answered = sent.size();
  waiter.wake();
}

/// A place in the line of those that wait for a connection: whoever comes while others wait, waits behind them.
class Publisher::InLine {
 public:
  explicit InLine(Publisher& publisher) : publisher_(publisher) {}
  ~InLine() { leave(); }
  InLine(const InLine&) = delete;
  InLine& operator=(const InLine&) = delete;

  void enter() {
    publisher_.line_.push_back(this);
    in_it_ = true;
  }
  void leave() {
    if (!std::exchange(in_it_, false)) return;
    std::erase(publisher_.line_, this);
    publisher_.moved_.ring();
  }

  std::optional<Failure> failure;

 private:
  Publisher& publisher_;
  bool in_it_ = false;
};

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

awaitable<void> Publisher::wait_for_memory(std::span<OutgoingMessage> messages, std::span<PublishResult> results,
                                           TimePoint deadline) {
  for (auto pause = first_full_pause; std::ranges::any_of(results, is_without_memory);
       pause = std::min(2 * pause, longest_full_pause)) {
    if (session_->clock->now() + pause >= deadline) co_return;
    co_await sleep_for(*session_->clock, pause);
    std::vector<std::size_t> refused;
    std::vector<OutgoingMessage> again;
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (!is_without_memory(results[i])) continue;
      refused.push_back(i);
      again.push_back(std::move(messages[i]));
    }
    std::vector<PublishResult> outcome(again.size());
    co_await attempt(again, outcome, deadline, false);
    for (std::size_t k = 0; k < refused.size(); ++k) {
      messages[refused[k]] = std::move(again[k]);
      results[refused[k]] = std::move(outcome[k]);
    }
  }
}

awaitable<void> Publisher::attempt(std::span<OutgoingMessage> messages, std::span<PublishResult> results,
                                   TimePoint deadline, bool is_first) {
  const auto self = shared_from_this();
  auto connection = session_->open_publishing();
  InLine line(*this);
  if (!connection || !line_.empty()) {
    line.enter();
    try {
      while (!line.failure && line_.front() != &line)
        if (!co_await moved_.wait_until(deadline))
          throw MessagingError(errc::connection_failed, "earlier publishes did not get through in time");
      if (!line.failure) connection = co_await session_->publishing(deadline);
    } catch (const MessagingError& known) {
      // Those behind fail too, or they would overtake this one when it is tried again.
      for (auto* behind : line_)
        if (!behind->failure) behind->failure = Failure{known.reason(), known.detail()};
    }
    if (line.failure) {
      for (auto& result : results) refuse(result, *line.failure);
      co_return;
    }
  }
  auto batch = std::make_shared<Batch>(*this, messages, results);
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
  line.leave();
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
  if (is_first && std::ranges::any_of(results, is_without_memory))
    co_await wait_for_memory(messages, results, deadline);
}

}  // namespace maestro::messaging::redis

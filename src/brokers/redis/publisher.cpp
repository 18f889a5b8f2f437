#include "brokers/redis/publisher.hpp"

#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <boost/unordered/unordered_flat_map.hpp>

#include "brokers/redis/entry.hpp"
#include "core/message_id.hpp"
#include "core/size_limit.hpp"
#include "runtime/waiter.hpp"

namespace maestro::messaging::redis {

namespace asio = boost::asio;

namespace {

// How far is looked for messages whose answer got lost, in entries.
constexpr std::size_t most_looked_at = 100'000;
constexpr std::size_t page = 1000;

// A topic that another program deleted from the index comes back after so long.
constexpr Duration index_period = std::chrono::minutes(1);
constexpr Duration sweep_period = std::chrono::milliseconds(250);

}  // namespace

class Publisher::Batch final : public Call {
 public:
  Batch(std::span<OutgoingMessage> to_send, std::span<PublishResult> outcomes) : messages(to_send), results(outcomes) {}

  void on_reply(std::size_t index, const Value& reply, ReplyReader&) override {
    ++answered;
    if (!results.empty()) {
      auto& result = results[sent[index]];
      auto& message = messages[sent[index]];
      if (const auto id = reply.is_error() ? std::nullopt : EntryId::parse(reply.text)) {
        confirm(result, std::move(message.topic), *id, reply.text);
        last_offset = result.receipt.offset;
      } else {
        refuse(result, describe(reply.text, fmt::format("publishing to \"{}\"", message.topic)));
      }
    }
    if (answered == sent.size()) waiter.wake();
  }

  void on_broken(std::size_t from, bool was_sent, const Failure& why) override {
    broken = was_sent;
    for (auto i = from; i < sent.size(); ++i) {
      if (!results.empty())
        refuse(results[sent[i]], was_sent ? Failure{errc::outcome_unknown, why.detail + "; no answer came before"}
                                          : Failure{errc::connection_failed, why.detail});
    }
    answered = sent.size();
    waiter.wake();
  }

  static void confirm(PublishResult& result, std::string topic, EntryId id, std::string_view id_text) {
    result.receipt.topic = std::move(topic);
    result.receipt.offset = id.to_offset();
    result.receipt.position = id_text;
    result.receipt.timestamp = Timestamp(std::chrono::milliseconds(id.ms));
  }
  static void refuse(PublishResult& result, const Failure& failure) {
    result.error = failure.code;
    result.detail = failure.detail;
  }

  [[nodiscard]] bool is_done() const noexcept { return results.empty() || answered == sent.size(); }

  std::span<OutgoingMessage> messages;
  std::span<PublishResult> results;  // empty once nobody waits any more
  std::vector<std::uint32_t> sent;   // those messages that were given to the connection
  std::size_t answered = 0;
  std::int64_t last_offset = 0;      // of what was confirmed last
  std::int64_t before = 0;           // the latest of its one topic that was confirmed before it was sent; 0: not known
  bool broken = false;               // sent, and the connection broke before the answers
  bool late = false;
  Waiter waiter;
};

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
    : session_(std::move(session)), max_message_bytes_(static_cast<std::size_t>(session_->options.integer("max_message_bytes"))),
      moved_(session_->clock, session_->executor),
      sweeper_(session_->clock->make_timer(session_->executor)) {}

Publisher::~Publisher() { sweeper_->cancel(); }

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

void Publisher::forget(const std::string& topic) {
  known_topics_.erase(topic);
  if (const auto known = confirmed_.find(topic); known != confirmed_.end()) known->second = 0;
}

void Publisher::remember_topics(Connection& connection, std::span<const OutgoingMessage> messages) {
  const auto now = connection.last_heard();
  if (known_on_ != &connection || now - known_since_ > index_period) {
    known_on_ = &connection;
    known_since_ = now;
    known_topics_.clear();
  }
  const std::string* last = nullptr;
  for (const auto& message : messages) {
    if (last && *last == message.topic) continue;
    last = &message.topic;
    if (!known_topics_.insert(message.topic).second) continue;
    connection.tell({"SADD", topic_index, message.topic});
  }
}

awaitable<void> Publisher::publish(std::span<OutgoingMessage> messages, std::span<PublishResult> results, Duration timeout) {
  const auto self = shared_from_this();
  const auto deadline = session_->clock->now() + timeout;
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
      for (auto& result : results) Batch::refuse(result, *line.failure);
      co_return;
    }
  }
  auto batch = std::make_shared<Batch>(messages, results);
  remember_topics(*connection, messages);
  batch->sent.reserve(messages.size());
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (auto why = over_limit(messages[i], max_message_bytes_)) {
      Batch::refuse(results[i], {errc::message_too_large, *std::move(why)});
    } else if (messages[i].partition) {
      Batch::refuse(results[i], {errc::invalid_argument, fmt::format("partition {}: a topic of Redis has no partitions; leave it out",
                                                                     *messages[i].partition)});
    } else {
      append_add(connection->buffer(), messages[i]);
      batch->sent.push_back(static_cast<std::uint32_t>(i));
    }
  }
  if (batch->sent.empty()) co_return;
  struct Leave {
    Batch& batch;
    ~Leave() { batch.results = {}; }
  } const leave{*batch};
  // Offsets of one topic say nothing of another's.
  const auto& topic = messages[batch->sent.front()].topic;
  const bool one_topic = std::ranges::all_of(messages, [&](const auto& message) { return message.topic == topic; });
  auto* latest = one_topic ? &confirmed_[topic] : nullptr;
  if (latest) batch->before = *latest;
  connection->sent(batch->sent.size(), batch);
  line.leave();
  deadlines_.emplace_back(deadline, batch);
  schedule_sweep();
  while (!batch->is_done() && !batch->late) {
    co_await batch->waiter.async_wait(asio::use_awaitable);
    const auto cancellation = co_await asio::this_coro::cancellation_state;
    if (cancellation.cancelled() != asio::cancellation_type::none && batch->answered < batch->sent.size())
      throw boost::system::system_error(asio::error::operation_aborted);
  }
  if (latest) *latest = std::max(*latest, batch->last_offset);
  if (batch->broken) co_await find_out(messages, results, *batch, deadline);
  for (auto i = batch->answered; i < batch->sent.size(); ++i)
    Batch::refuse(results[batch->sent[i]],
                  {errc::outcome_unknown, fmt::format("no answer for \"{}\" within the time allowed", messages[batch->sent[i]].topic)});
}

// The connection that broke is ended at the server before the next one is used, so what it had sent is stored by now or never will be.
awaitable<void> Publisher::find_out(std::span<OutgoingMessage> messages, std::span<PublishResult> results, const Batch& batch,
                                    TimePoint deadline) {
  boost::unordered_flat_map<std::string_view, std::size_t> wanted;
  const std::string* topic = nullptr;
  for (const auto i : batch.sent) {
    if (results[i].error != errc::outcome_unknown) continue;
    const auto id = message_id(messages[i].headers);
    // Without an id, a message of the same content may be another's.
    if (!id || (topic && *topic != messages[i].topic) || !wanted.emplace(*id, i).second) co_return;
    topic = &messages[i].topic;
  }
  if (wanted.empty()) co_return;
  const std::string key = *topic;
  try {
    const auto connection = co_await session_->publishing(deadline);
    if (!session_->fenced) co_return;
    // From the last that is known to have been there before; else from the beginning of what is kept.
    auto from = fmt::format("({}", EntryId::from_offset(batch.before).to_string());
    for (std::size_t looked = 0; looked < most_looked_at && !wanted.empty(); looked += page) {
      const auto reply = co_await connection->ask({"XRANGE", key, from, "+", "COUNT", std::to_string(page)});
      if (reply->is_error()) co_return;
      for (const auto& each : reply->items()) {
        const auto entry = read_entry(each);
        if (!entry) continue;
        from = fmt::format("({}", entry->id_text);
        EntryBatch stored(key, reply.owner);
        stored.add(*entry, {}, 1);
        std::vector<Message> message;
        stored.take(message);
        const auto id = message_id(message.front().headers());
        const auto found = id ? wanted.find(*id) : wanted.end();
        if (found == wanted.end()) continue;
        auto& result = results[found->second];
        wanted.erase(found);
        result = {};
        Batch::confirm(result, key, entry->id, entry->id_text);
      }
      if (reply->count == page) continue;
      for (const auto& [id, i] : wanted)
        Batch::refuse(results[i], {errc::connection_failed, "the connection broke before the server took the message"});
      co_return;
    }
  } catch (const MessagingError&) {
    // It stays unknown.
  }
}

awaitable<void> Publisher::transact(std::span<OutgoingMessage> messages, std::string commands, std::size_t count) {
  const auto self = shared_from_this();
  for (const auto& message : messages) {
    if (const auto why = over_limit(message, max_message_bytes_)) throw MessagingError(errc::transaction_aborted, *why);
  }
  const auto connection = co_await session_->publishing(session_->deadline());
  remember_topics(*connection, messages);
  // The whole of it is one write, so that nothing of another's comes between.
  auto& out = connection->buffer();
  append_command(out, {"MULTI"});
  for (const auto& message : messages) append_add(out, message);
  out += commands;
  std::vector<std::vector<std::string>> exec;
  exec.push_back({"EXEC"});
  const auto replies = co_await connection->ask_all(std::move(exec), 1 + messages.size() + count);
  const auto& outcome = *replies.back();
  for (std::size_t i = 0; i + 1 < replies.size(); ++i)
    if (replies[i]->is_error()) throw MessagingError(errc::transaction_aborted, describe(replies[i]->text, "a command of the transaction").detail);
  if (outcome.is_error()) throw MessagingError(errc::transaction_aborted, describe(outcome.text, "EXEC").detail);
  // Redis runs all of it even where one command fails at run time; only a wrong type can.
  for (const auto& each : outcome.items())
    if (each.is_error()) throw MessagingError(errc::transaction_aborted, describe(each.text, "within EXEC").detail);
}

}  // namespace maestro::messaging::redis

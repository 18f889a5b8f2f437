#include "brokers/redis/stream_publisher.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/unordered/unordered_flat_map.hpp>
#include <maestro/messaging/log.hpp>
#include <set>

#include "brokers/redis/channel.hpp"
#include "brokers/redis/entry.hpp"
#include "core/message_id.hpp"
#include "core/transaction_failure.hpp"
#include "runtime/notifier.hpp"

namespace maestro::messaging::redis {

namespace asio = boost::asio;

namespace {

// How long a server that is away is left alone before it is asked again, at first and at most.
constexpr Duration first_look_pause = std::chrono::milliseconds(20);
constexpr Duration longest_look_pause = std::chrono::seconds(1);
// How far is looked for messages whose answer got lost, in entries.
constexpr std::size_t most_looked_at = 100'000;
constexpr std::size_t page = 1000;

// A topic that another program deleted from the index, or with everything else, comes back after so long.
constexpr Duration index_period = std::chrono::seconds(5);
// How long the server may be asked to wait for copies at once: shorter than the silence that is taken for a dead connection.
constexpr Duration longest_round = std::chrono::seconds(4);

void confirm_entry(PublishResult& result, std::string topic, EntryId id, std::string_view id_text) {
  result.receipt.topic = std::move(topic);
  result.receipt.offset = id.to_offset();
  result.receipt.position = id_text;
  result.receipt.timestamp = Timestamp(std::chrono::milliseconds(id.ms));
}

// What the server refuses now and will take later may be tried again.
MessagingError aborted_by(std::string_view error, std::string_view what) {
  const auto failure = describe(error, what);
  return transaction_failure(passes(error) ? errc::transaction_aborted : failure.code, failure.detail);
}

}  // namespace

/// All publishes that have their answers when it begins ask for their copies together.
struct StreamPublisher::Round {
  std::shared_ptr<Connection> connection;
  TimePoint deadline{};
  bool done = false;
  bool enough = false;
  std::string missing;
};

StreamPublisher::StreamPublisher(std::shared_ptr<Session> session)
    : Publisher(std::move(session)),
      wait_replicas_(session_->options.integer("wait_replicas")),
      wait_fsync_(session_->options.boolean("wait_fsync")),
      window_ms_(session_->options.duration("idempotence_window") > Duration::zero()
                     ? milliseconds(session_->options.duration("idempotence_window"))
                     : ""),
      round_done_(session_->clock, session_->executor) {}

// Who deletes need not be who publishes, and so does not know whether there is a window: the ids are looked for in any
// case.
awaitable<void> StreamPublisher::forget(std::string topic) {
  const auto self = shared_from_this();
  known_topics_.erase(topic);
  if (const auto known = confirmed_.find(topic); known != confirmed_.end()) known->second = 0;
  const auto what = fmt::format("\"{}\" is deleted, but ids that were published to it may still be remembered", topic);
  const auto pattern = glob_of(published_key(topic, "")) + "*";
  std::string cursor = "0";
  do {
    const auto found =
        co_await session_->ask(topic, {"SCAN", cursor, "MATCH", pattern, "COUNT", std::to_string(page)}, what);
    if (found->count != 2) break;
    cursor = found->items()[0].text;
    std::vector<std::string> remove{"DEL"};
    for (const auto& key : found->items()[1].items()) remove.emplace_back(key.text);
    if (remove.size() > 1) co_await session_->ask(topic, std::move(remove), what);
  } while (cursor != "0");
}

bool StreamPublisher::is_new(Connection& connection, const std::string& topic) {
  const auto now = connection.last_heard();
  if (known_on_ != &connection || now - known_since_ > index_period) {
    known_on_ = &connection;
    known_since_ = now;
    known_topics_.clear();
  }
  return !known_topics_.contains(topic);
}

// Only topics that took a message: a key that is something else would stand in the way of every pattern.
awaitable<void> StreamPublisher::index(std::shared_ptr<Connection> connection, std::vector<std::string> topics) {
  std::vector<std::string> add{"SADD", std::string(topic_index)};
  add.insert(add.end(), topics.begin(), topics.end());
  try {
    const auto added = co_await connection->ask(std::move(add));
    if (added->is_error() && !std::exchange(index_refused_, true))
      log(LogLevel::warning, "topics cannot be written down; patterns and lists do not see those that are published to here",
          {{"broker", "redis"}, {"key", std::string(topic_index)}, {"cause", std::string(added->text)}});
    known_topics_.insert(std::make_move_iterator(topics.begin()), std::make_move_iterator(topics.end()));
  } catch (const MessagingError&) {
    // The next publish to them tries again.
  }
}

void StreamPublisher::append(std::string& to, const OutgoingMessage& message) {
  const auto id = window_ms_.empty() ? std::nullopt : message_id(message.headers);
  if (id) {
    append_add_once(to, message, *id, window_ms_);
  } else {
    append_add(to, message);
  }
}

void StreamPublisher::confirm(PublishResult& result, OutgoingMessage& message, const Value& reply) {
  if (const auto id = EntryId::parse(reply.text)) {
    confirm_entry(result, std::move(message.topic), *id, reply.text);
  } else {
    refuse(result, {errc::broker_error, fmt::format("publishing to \"{}\": an answer that is no id of an entry", message.topic)});
  }
}

void StreamPublisher::begin(Batch& batch) {
  // Offsets of one topic say nothing of another's.
  const auto& topic = batch.messages.front().topic;
  if (!std::ranges::all_of(batch.messages, [&](const auto& message) { return message.topic == topic; })) return;
  batch.latest = &confirmed_[topic];
  batch.before = *batch.latest;
}

awaitable<void> StreamPublisher::settle(std::shared_ptr<Connection> connection, std::shared_ptr<Batch> batch, TimePoint deadline) {
  const auto stored = [&](std::uint32_t i) { return batch->results[i].ok(); };
  const auto last = std::find_if(batch->sent.rbegin(), batch->sent.rend(), stored);
  if (batch->latest && last != batch->sent.rend())
    *batch->latest = std::max(*batch->latest, batch->results[*last].receipt.offset);
  if (batch->broken) co_await find_out(*batch, deadline);
  std::vector<std::string> fresh;
  const std::string* before = nullptr;
  for (const auto i : batch->sent) {
    const auto& topic = batch->results[i].receipt.topic;
    if (!stored(i) || (before && *before == topic)) continue;
    before = &topic;
    if (is_new(*connection, topic)) fresh.push_back(topic);
  }
  if (!fresh.empty()) co_await index(connection, std::move(fresh));
  if ((wait_replicas_ == 0 && !wait_fsync_) || last == batch->sent.rend()) co_return;
  const auto missing = co_await wait_for_copies(std::move(connection), deadline);
  if (!missing) co_return;
  for (const auto i : batch->sent) {
    auto& result = batch->results[i];
    if (!result.ok()) continue;
    auto& topic = batch->messages[i].topic = std::move(result.receipt.topic);
    result.receipt = {};
    refuse(result, {errc::outcome_unknown, fmt::format("\"{}\": the server has it, but {}", topic, *missing)});
  }
}

awaitable<std::optional<std::string>> StreamPublisher::wait_for_copies(std::shared_ptr<Connection> connection, TimePoint deadline) {
  std::string missing = "whether its copies are made was not said within the time allowed";
  for (;;) {
    if (rounds_.empty() || rounds_.back()->connection != connection) rounds_.push_back(std::make_shared<Round>(Round{connection}));
    const auto round = rounds_.back();
    round->deadline = std::max(round->deadline, deadline);
    if (!std::exchange(rounds_run_, true))
      asio::co_spawn(session_->executor, run_rounds(std::static_pointer_cast<StreamPublisher>(shared_from_this())), asio::detached);
    while (!round->done)
      if (!co_await round_done_.wait_until(deadline)) co_return missing;
    if (round->enough) co_return std::nullopt;
    missing = round->missing;
    if (!connection->is_open() || session_->clock->now() >= deadline) co_return missing;
  }
}

awaitable<void> StreamPublisher::run_rounds(std::shared_ptr<StreamPublisher> self) {
  while (!self->rounds_.empty()) {
    const auto round = std::move(self->rounds_.front());
    self->rounds_.pop_front();
    co_await self->run_round(*round);
    round->done = true;
    self->round_done_.ring();
  }
  self->rounds_run_ = false;
}

awaitable<void> StreamPublisher::run_round(Round& round) {
  // The server, which looks at its limits ten times a second, is to answer before the time is over.
  const auto left = std::min<Duration>(round.deadline - session_->clock->now() - std::chrono::milliseconds(200), longest_round);
  const auto limit = milliseconds(std::max<Duration>(left, std::chrono::milliseconds(1)));  // 0 would be for ever
  const auto replicas = std::to_string(wait_replicas_);
  try {
    const auto reply = co_await round.connection->ask(wait_fsync_ ? std::vector<std::string>{"WAITAOF", "1", replicas, limit}
                                                                  : std::vector<std::string>{"WAIT", replicas, limit});
    if (reply->is_error()) fail(reply->text, "waiting for copies");
    const bool synced = !wait_fsync_ || (reply->count == 2 && reply->items()[0].number >= 1);
    const auto have = wait_fsync_ && reply->count == 2 ? reply->items()[1].number : reply->number;
    round.enough = synced && have >= wait_replicas_;
    round.missing = synced ? fmt::format("only {} of {} replicas had it in time (wait_replicas)", have, wait_replicas_)
                           : "its append-only file was not synced in time (wait_fsync)";
  } catch (const MessagingError& failure) {
    round.missing = fmt::format("whether its copies are made was not said: {}", failure.detail());
  }
}

// The connection that broke is ended at the server before the next one is used, so what it had sent is stored by now or never will be.
awaitable<void> StreamPublisher::find_out(Batch& batch, TimePoint deadline) {
  const auto messages = batch.messages;
  const auto results = batch.results;
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
  // From the last that is known to have been there before; else from the beginning of what is kept.
  auto from = fmt::format("({}", EntryId::from_offset(batch.before).to_string());
  const auto found = [&](const Value& value, const Kept& reply) {
    const auto entry = read_entry(value);
    if (!entry) return;
    from = fmt::format("({}", entry->id_text);
    EntryBatch stored(key, reply.owner);
    stored.add(*entry, {}, 1);
    std::vector<Message> message;
    stored.take(message);
    const auto id = message_id(message.front().headers());
    const auto sought = id ? wanted.find(*id) : wanted.end();
    if (sought == wanted.end()) return;
    auto& result = results[sought->second];
    wanted.erase(sought);
    result = {};
    confirm_entry(result, key, entry->id, entry->id_text);
  };
  std::size_t looked = 0;
  for (auto pause = first_look_pause;; pause = std::min(2 * pause, longest_look_pause)) {
    try {
      const auto connection = co_await session_->publishing(deadline);
      if (!session_->fenced) co_return;
      while (looked < most_looked_at && !wanted.empty()) {
        const auto reply = co_await connection->ask({"XRANGE", key, from, "+", "COUNT", std::to_string(page)});
        if (reply->is_error()) fail(reply->text, "looking for what was published");
        looked += page;
        for (const auto& each : reply->items()) found(each, reply);
        if (reply->count == page) continue;
        for (const auto& [id, i] : wanted)
          refuse(results[i], {errc::connection_failed, "the connection broke before the server took the message"});
        co_return;
      }
      co_return;
    } catch (const MessagingError& failure) {
      if (failure.reason() != errc::connection_failed) co_return;  // it stays unknown
    }
    if (session_->clock->now() + pause >= deadline) co_return;
    co_await sleep_for(*session_->clock, pause);
  }
}

awaitable<void> StreamPublisher::transact(std::span<OutgoingMessage> messages, std::vector<Settlement> settlements) {
  const auto self = shared_from_this();
  for (const auto& message : messages) {
    if (const auto why = refusal(message)) throw transaction_failure(why->code, why->detail);
  }
  const auto deadline = session_->clock->now() + session_->options.duration("publish_timeout");
  const auto connection = co_await session_->publishing(session_->deadline());
  // Redis runs all of a transaction, even where one of its commands cannot be done: that is looked for before.
  const std::set<std::string> topics = [&] {
    std::set<std::string> names;
    for (const auto& message : messages) names.insert(message.topic);
    return names;
  }();
  std::vector<std::vector<std::string>> looks;
  for (const auto& topic : topics) looks.push_back({"TYPE", topic});
  for (const auto& each : settlements) looks.push_back({"XPENDING", each.key, each.group, each.id, each.id, "1"});
  // Where these two are refused, the commands between them would be done one by one.
  looks.push_back({"MULTI"});
  looks.push_back({"EXEC"});
  const auto seen = co_await connection->ask_all(std::move(looks));
  auto look = seen.begin();
  for (const auto& topic : topics) {
    const auto& kind = **look++;
    if (kind.is_error()) throw aborted_by(kind.text, "looking at \"" + topic + "\"");
    if (kind.text != "none" && kind.text != "stream")
      throw transaction_failure(errc::broker_error, fmt::format("\"{}\" holds a {}, and no stream", topic, kind.text));
  }
  for (const auto& each : settlements) {
    const auto& pending = **look++;
    if (pending.is_error() && !pending.text.starts_with("NOGROUP"))
      throw aborted_by(pending.text, "looking at a delivery of \"" + each.key + "\"");
    if (pending.is_error() || pending.count != 1 || pending.items()[0].count < 2 || pending.items()[0].items()[1].text != each.consumer)
      throw MessagingError(errc::not_owned,
                           fmt::format("the delivery {} of \"{}\" is no longer this member's; leave what was read "
                                       "with it, and read on",
                                       each.id, each.key));
  }
  for (const auto* command : {"MULTI", "EXEC"})
    if (const auto& empty = **look++; empty.is_error())
      throw aborted_by(empty.text, fmt::format("trying an empty transaction, {}", command));
  if (!connection->is_open()) throw MessagingError(errc::connection_failed, "the connection broke before the transaction began");
  // The whole of it is one write, so that nothing of another's comes between.
  auto& out = connection->buffer();
  append_command(out, {"MULTI"});
  for (const auto& message : messages) append(out, message);
  for (const auto& each : settlements) append_command(out, {"XACK", each.key, each.group, each.id});
  std::vector<std::vector<std::string>> exec;
  exec.push_back({"EXEC"});
  std::vector<Kept> replies;
  try {
    replies = co_await connection->ask_all(std::move(exec), 1 + messages.size() + settlements.size());
  } catch (const MessagingError& failure) {
    throw MessagingError(errc::outcome_unknown, "during the transaction: " + failure.detail());
  }
  const auto& outcome = *replies.back();
  if (replies.front()->is_error())
    throw MessagingError(errc::outcome_unknown, "the commands of the transaction were done one by one, if at all: " +
                                                    describe(replies.front()->text, "MULTI").detail);
  for (std::size_t i = 0; i + 1 < replies.size(); ++i)
    if (replies[i]->is_error()) throw aborted_by(replies[i]->text, "a command of the transaction");
  if (outcome.is_error()) throw aborted_by(outcome.text, "EXEC");
  for (const auto& each : outcome.items())
    if (each.is_error())
      throw MessagingError(errc::outcome_unknown, "only a part of the transaction took effect: " + describe(each.text, "within EXEC").detail);
  std::vector<std::string> fresh;
  for (const auto& topic : topics)
    if (is_new(*connection, topic)) fresh.push_back(topic);
  if (!fresh.empty()) co_await index(connection, std::move(fresh));
  if (wait_replicas_ == 0 && !wait_fsync_) co_return;
  if (const auto missing = co_await wait_for_copies(connection, deadline))
    throw MessagingError(errc::outcome_unknown, "the transaction took effect at the server, but " + *missing);
}

}  // namespace maestro::messaging::redis

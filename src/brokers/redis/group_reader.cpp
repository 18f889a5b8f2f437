#include "brokers/redis/group_reader.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <maestro/messaging/log.hpp>
#include <map>
#include <set>

namespace maestro::messaging::redis {

namespace asio = boost::asio;

namespace {

// Entries in one XACK or XCLAIM.
constexpr std::size_t most_ids = 1000;
// Entries that are claimed from dead members at once.
constexpr std::size_t most_claimed = 100;
// A group that was destroyed is made again before the second look of a member of another group, which then trims.
constexpr Duration shortest_trim_period = std::chrono::seconds(1);
constexpr Duration longest_trim_period = std::chrono::seconds(30);
constexpr Duration group_period = shortest_trim_period / 4;
// What was read so long ago has come to the replicas too.
constexpr Duration replicated_after = std::chrono::seconds(10);
constexpr Duration claim_period = std::chrono::seconds(1);
// A member that lives says something so often: it reads, or claims.
constexpr Duration alive_within = 2 * claim_period;
// How long a server that refused acknowledgements for now is left alone with them.
constexpr Duration refusal_pause = std::chrono::milliseconds(500);

/// A name that no other member of any process has.
std::string make_consumer_name(const Session& session) {
  static std::atomic<unsigned> number{0};
  char host[64] = "host";
  static_cast<void>(::gethostname(host, sizeof host - 1));
  return fmt::format("{}.{}.{}.{}", session.client_name, host, ::getpid(), ++number);
}

awaitable<std::int64_t> count_after(Session& session, std::string key, std::optional<EntryId> after) {
  constexpr std::size_t page = 1000;
  std::int64_t count = 0;
  while (after) {
    const auto part = co_await session.ask(key, {"XRANGE", key, fmt::format("({}", after->to_string()), "+", "COUNT", std::to_string(page)},
                                           "counting what is unread");
    count += static_cast<std::int64_t>(part->count);
    const auto last = part->count == page ? read_entry(part->items().back()) : std::nullopt;
    after = last ? std::optional(last->id) : std::nullopt;
  }
  co_return count;
}

}  // namespace

/// Acknowledgements under way. Those whose connection breaks, or that the server cannot take now, are sent again: an
/// XACK that comes twice changes nothing.
class GroupReader::Acknowledging final : public Call {
 public:
  Acknowledging(std::weak_ptr<GroupReader> reader, std::vector<std::pair<std::size_t, EntryId>> ids)
      : reader_(std::move(reader)), ids_(std::move(ids)) {}

  void on_reply(std::size_t, const Value& reply, ReplyReader&) override {
    const auto reader = self();
    if (!reader) return;
    if (reply.is_error()) {
      reader->on_refused(reply.text, ids_);
    } else {
      reader->refusing_ = false;
    }
    done(*reader);
  }
  void on_broken(std::size_t, bool, const Failure&) override {
    const auto reader = self();
    if (!reader) return;
    reader->acknowledged_.insert(reader->acknowledged_.end(), ids_.begin(), ids_.end());
    done(*reader);
  }

 private:
  [[nodiscard]] std::shared_ptr<GroupReader> self() const { return reader_.lock(); }
  void done(GroupReader& reader) {
    --reader.acknowledging_;
    reader.acknowledged_all_.ring();
  }

  std::weak_ptr<GroupReader> reader_;
  std::vector<std::pair<std::size_t, EntryId>> ids_;
};

GroupReader::GroupReader(std::shared_ptr<Session> session, SubscribeRequest request)
    : StreamReader(std::move(session), std::move(request)),
      group_(*request_.group),
      own_name_(session_->options.text_if("consumer_name")),
      consumer_(own_name_ ? *own_name_ : make_consumer_name(*session_)),
      claim_idle_(session_->options.duration("claim_idle")),
      trim_after_(session_->options.duration("trim_after")),
      trim_period_(trim_after_ > Duration::zero() ? std::clamp<Duration>(trim_after_ / 4, shortest_trim_period, longest_trim_period)
                                                  : longest_trim_period),
      acknowledged_all_(session_->clock, session_->executor),
      looked_at_(session_->clock->now()),
      claimed_at_(session_->clock->now()),
      trimmed_at_(session_->clock->now()) {}

Duration GroupReader::tick() const {
  auto next = std::min<Duration>(claim_idle_ / 4, std::chrono::milliseconds(500));
  const auto now = session_->clock->now();
  for (const auto& due : due_) next = std::min(next, due.at - now);
  return std::max<Duration>(next, std::chrono::milliseconds(1));
}

// A server without memory makes no group, and says so before it looks whether there is one.
awaitable<bool> GroupReader::has_group(Connection& connection, std::string key) const {
  const auto groups = co_await connection.ask({"XINFO", "GROUPS", key});
  for (const auto& each : groups->items()) {
    const auto fields = fields_of(each);
    if (fields.contains("name") && fields.at("name")->text == group_) co_return true;
  }
  co_return false;
}

awaitable<void> GroupReader::prepare_stream(Connection& connection, std::size_t stream) {
  const auto key = streams_[stream].key;
  const auto replies = co_await connection.ask_all(
      {{"SADD", std::string(topic_index), key},
       {"XGROUP", "CREATE", key, group_, streams_[stream].from_end ? "$" : "0", "MKSTREAM"}});
  if (replies[1]->is_error() && !is_error(replies[1]->text, "BUSYGROUP") &&
      !(is_error(replies[1]->text, "OOM") && co_await has_group(connection, key)))
    fail(replies[1]->text, fmt::format("making the group \"{}\" of \"{}\"", group_, key));
  streams_[stream].ready = true;
}

std::vector<std::string> GroupReader::read_command(std::span<const std::size_t> streams, std::size_t at_most,
                                                   std::optional<Duration> block) const {
  std::vector<std::string> words{"XREADGROUP", "GROUP", group_, consumer_, "COUNT", std::to_string(at_most)};
  if (block) words.insert(words.end(), {"BLOCK", milliseconds(*block)});
  words.emplace_back("STREAMS");
  for (const auto i : streams) words.push_back(streams_[i].key);
  words.insert(words.end(), streams.size(), ">");
  return words;
}

void GroupReader::on_entries(std::size_t stream, std::span<const Value> entries, const Kept& reply) {
  deliver(stream, entries, reply, {});
}

void GroupReader::deliver(std::size_t stream, std::span<const Value> entries, const Kept& reply,
                          std::span<const std::uint32_t> counts) {
  EntryBatch batch(streams_[stream].key, reply.owner);
  const auto now = session_->clock->now();
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const auto entry = read_entry(entries[i]);
    if (!entry) continue;
    if (entry->fields->is_nil()) {  // deleted while it was pending
      drop_poison(stream, entry->id);
      continue;
    }
    const auto serial = next_serial_++;
    const auto count = i < counts.size() ? counts[i] : 1;
    held_.emplace(serial, Held{stream, entry->id, count, now});
    batch.add(*entry, {stream, serial}, count);
  }
  add_ready(batch);
}

void GroupReader::drop_poison(std::size_t stream, EntryId id) {
  log(LogLevel::warning, "an entry was deleted before it was handled; it is acknowledged",
      {{"broker", "redis"}, {"topic", streams_[stream].key}, {"group", group_}, {"position", id.to_string()}});
  acknowledged_.emplace_back(stream, id);
}

// After a new connection: the groups may be gone, and what the server sent last may have been lost on its way.
awaitable<void> GroupReader::recover(Connection& connection) {
  if (is_pattern_) co_await discover(connection);
  for (std::size_t i = 0; i < streams_.size(); ++i) co_await make_ready(connection, i);
  co_await read_pending(connection);
  send_acknowledgements();
}

awaitable<void> GroupReader::begin() {
  if (own_name_) {
    co_await look_for_namesakes(*connection_);
    co_await read_pending(*connection_);
  }
  co_await claim_from_the_dead();
}

// Two of one name would each be given what the other holds. One that was killed just now looks the same, and is not
// refused.
awaitable<void> GroupReader::look_for_namesakes(Connection& connection) const {
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    if (!streams_[i].ready) continue;
    const auto key = streams_[i].key;
    const auto members = co_await connection.ask({"XINFO", "CONSUMERS", key, group_});
    for (const auto& each : members->items()) {
      const auto fields = fields_of(each);
      if (!fields.contains("name") || !fields.contains("idle") || fields.at("name")->text != consumer_) continue;
      const std::chrono::milliseconds idle(fields.at("idle")->number);
      if (idle > alive_within) continue;
      log(LogLevel::warning,
          "a member of this name was active a moment ago; if it still runs, both handle the same messages: give each a "
          "consumer_name of its own",
          {{"broker", "redis"},
           {"topic", key},
           {"group", group_},
           {"consumer_name", consumer_},
           {"idle_ms", std::to_string(idle.count())}});
      co_return;
    }
  }
}

awaitable<void> GroupReader::read_pending(Connection& connection) {
  std::set<std::pair<std::size_t, EntryId>> known;
  for (const auto& [serial, held] : held_) known.emplace(held.stream, held.id);
  for (const auto& each : acknowledged_) known.insert(each);
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    if (!streams_[i].ready) continue;
    EntryId after;
    for (bool more = true; more;) {
      const auto reply = co_await connection.ask({"XREADGROUP", "GROUP", group_, consumer_, "COUNT", std::to_string(most_ids), "STREAMS",
                                                  streams_[i].key, after.to_string()});
      if (reply->is_error()) fail(reply->text, "reading what is pending");
      more = false;
      if (reply->count != 1 || reply->items()[0].count != 2) continue;
      std::vector<Value> lost;
      for (const auto& each : reply->items()[0].items()[1].items()) {
        const auto entry = read_entry(each);
        if (!entry) continue;
        after = entry->id;
        more = true;
        if (!known.contains({i, entry->id})) lost.push_back(each);
      }
      const auto counts = co_await counts_of(connection, i, lost);
      deliver(i, lost, reply, counts);
    }
  }
}

void GroupReader::acknowledge(std::span<const DeliveryTag> tags) {
  const bool was_full = room() == 0;
  for (const auto tag : tags) {
    const auto found = held_.find(tag.sequence);
    if (found == held_.end()) continue;
    acknowledged_.emplace_back(found->second.stream, found->second.id);
    held_.erase(found);
  }
  send_acknowledgements();
  if (was_full || room() >= request_.prefetch / 2) wake_reader();
}

// What is refused for good stays pending, and is claimed and delivered again.
void GroupReader::on_refused(std::string_view error, std::span<const std::pair<std::size_t, EntryId>> ids) {
  const auto why = describe(error, fmt::format("acknowledging as group \"{}\"", group_));
  if (passes(error)) {
    acknowledged_.insert(acknowledged_.end(), ids.begin(), ids.end());
    acknowledge_from_ = session_->clock->now() + refusal_pause;
  } else {
    refused_ = why;
  }
  session_->reports.failed("acknowledge", std::string(errc_name(why.code)));
  if (std::exchange(refusing_, true)) return;
  log(LogLevel::warning,
      passes(error) ? "acknowledgements were refused; they are sent again"
                    : "acknowledgements were refused; what they settled is delivered again",
      {{"broker", "redis"}, {"topic", request_.topic}, {"cause", why.detail}});
}

void GroupReader::send_acknowledgements() {
  if (acknowledged_.empty() || session_->clock->now() < acknowledge_from_) return;
  const auto connection = session_->open_commands(request_.topic);
  if (!connection) return;  // the next round of tend() opens it
  auto ids = std::exchange(acknowledged_, {});
  std::ranges::sort(ids);
  for (std::size_t from = 0; from < ids.size();) {
    const auto stream = ids[from].first;
    auto to = from;
    while (to < ids.size() && to - from < most_ids && ids[to].first == stream) ++to;
    auto& out = connection->buffer();
    append_count(out, 3 + to - from);
    append_word(out, "XACK");
    append_word(out, streams_[stream].key);
    append_word(out, group_);
    for (auto i = from; i < to; ++i) append_word(out, ids[i].second.to_string());
    ++acknowledging_;
    connection->sent(1, std::make_shared<Acknowledging>(std::static_pointer_cast<GroupReader>(shared_from_this()),
                                                        std::vector(ids.begin() + static_cast<std::ptrdiff_t>(from),
                                                                    ids.begin() + static_cast<std::ptrdiff_t>(to))));
    from = to;
  }
}

void GroupReader::release(std::span<const DeliveryTag> tags, Duration delay) {
  const auto at = session_->clock->now() + delay;
  for (const auto tag : tags)
    if (held_.contains(tag.sequence)) due_.push_back({tag.sequence, at});
  wake_tending();
}

awaitable<void> GroupReader::commit() {
  const auto self = shared_from_this();
  const auto deadline = session_->clock->now() + session_->options.duration("publish_timeout");
  while (!acknowledged_.empty() || acknowledging_ > 0) {
    if (!acknowledged_.empty()) {
      co_await session_->commands(request_.topic, deadline);
      send_acknowledgements();
    }
    const auto until = acknowledging_ > 0 ? deadline : std::min(deadline, acknowledge_from_);
    if (!co_await acknowledged_all_.wait_until(until) && session_->clock->now() >= deadline)
      throw MessagingError(errc::timed_out, refusing_
                                                ? "Redis refused the acknowledgements until publish_timeout had passed"
                                                : "Redis did not answer the acknowledgements in time");
  }
  if (const auto why = std::exchange(refused_, std::nullopt)) throw MessagingError(why->code, why->detail);
}

awaitable<void> GroupReader::start() {
  const auto self = std::static_pointer_cast<GroupReader>(shared_from_this());
  std::exception_ptr refusal;
  try {
    co_await StreamReader::start();
    co_return;
  } catch (const MessagingError&) {
    if (!connection_) throw;
    refusal = std::current_exception();
  } catch (...) {
    if (connection_) asio::co_spawn(session_->executor, leave(self), asio::detached);
    throw;
  }
  // It may have been given messages already: it leaves like any member, and others need not wait for them. Where the
  // server answers, it has left before the program hears why, and may end.
  if (connection_->is_open()) {
    co_await close();
  } else {
    asio::co_spawn(session_->executor, leave(self), asio::detached);
  }
  std::rethrow_exception(refusal);
}

awaitable<void> GroupReader::leave(std::shared_ptr<GroupReader> self) {
  co_await self->close();
}

awaitable<void> GroupReader::close() {
  const auto self = shared_from_this();
  auto kill = kill_command();
  stop();
  try {
    try {
      co_await commit();
    } catch (const MessagingError& refusal) {
      if (refusal.reason() == errc::connection_failed || refusal.reason() == errc::timed_out) throw;
      // What was refused is still pending, and handed over with the rest.
    }
    const auto connection = co_await session_->commands(request_.topic, session_->deadline());
    // A read that is still blocked at the server might be given messages that nobody would ever see here.
    if (!kill.empty()) co_await connection->ask(std::move(kill));
    for (std::size_t i = 0; i < streams_.size(); ++i) co_await hand_over(*connection, i);
  } catch (const MessagingError& failure) {
    log(LogLevel::info, "a member left without a word to the server; what it held will be claimed",
        {{"broker", "redis"}, {"group", group_}, {"cause", failure.detail()}});
  }
  held_.clear();
}

// What this member holds stays pending, and others may claim it at once: its idle time is set beyond any limit. What
// was released until later looks as if it had been idle so long that it may be claimed then. A member that holds
// nothing leaves no trace.
awaitable<void> GroupReader::hand_over(Connection& connection, std::size_t stream) {
  const auto key = streams_[stream].key;
  const auto now = session_->clock->now();
  std::map<EntryId, Duration> later;
  for (const auto& due : due_)
    if (const auto held = held_.find(due.serial); held != held_.end() && held->second.stream == stream && due.at > now)
      later[held->second.id] = due.at - now;
  std::string from = "-";
  bool holds = false;
  for (bool more = true; more;) {
    const auto pending = co_await connection.ask({"XPENDING", key, group_, from, "+", std::to_string(most_ids), consumer_});
    if (pending->is_error()) co_return;
    std::map<Duration, std::vector<std::string>> ids;  // by how long they are to have been idle
    for (const auto& each : pending->items()) {
      if (each.count == 0) continue;
      const auto id = std::string(each.items()[0].text);
      const auto released = later.find(EntryId::parse(id).value_or(EntryId{}));
      ids[released == later.end() ? Duration(std::chrono::hours(24))
                                  : std::max(claim_idle_ - released->second, Duration::zero())]
          .push_back(id);
      from = "(" + id;
    }
    more = pending->count == most_ids;
    if (pending->count == 0) break;
    holds = true;
    std::vector<std::vector<std::string>> claims;
    for (auto& [idle, of] : ids) {
      auto& claim = claims.emplace_back(std::vector<std::string>{"XCLAIM", key, group_, consumer_, "0"});
      claim.insert(claim.end(), of.begin(), of.end());
      claim.insert(claim.end(), {"IDLE", milliseconds(idle), "JUSTID"});
    }
    if (!claims.empty()) co_await connection.ask_all(std::move(claims));
  }
  if (!holds) co_await connection.ask({"XGROUP", "DELCONSUMER", key, group_, consumer_});
}

awaitable<void> GroupReader::seek(std::string topic, EntryId last_read, bool to_end) {
  const auto self = shared_from_this();
  const auto stream = find_stream(topic);
  if (!stream) throw MessagingError(errc::invalid_argument, fmt::format("seek: \"{}\" is not subscribed to", topic));
  // What was handed out is behind us; what of it comes after the new place is read again.
  boost::unordered_flat_map<std::uint64_t, Held> kept;
  for (const auto& [serial, held] : held_) {
    if (held.stream == *stream) {
      acknowledged_.emplace_back(held.stream, held.id);
    } else {
      kept.emplace(serial, held);
    }
  }
  held_ = std::move(kept);
  std::erase_if(ready_messages_, [&](const Message& message) { return message.tag().lane == *stream; });
  co_await commit();
  co_await session_->ask(topic, {"XGROUP", "SETID", topic, group_, to_end ? "$" : last_read.to_string()},
                                            fmt::format("seeking in \"{}\"", topic));
  begin_again();
}

awaitable<std::vector<PartitionLag>> GroupReader::lag() {
  const auto self = shared_from_this();
  std::vector<PartitionLag> lags;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    if (!streams_[i].ready) continue;
    const auto key = streams_[i].key;
    PartitionLag lag{key, -1, 0};
    for (const auto& group : co_await groups_of(*session_, key))
      if (group.group == group_) lag.lag = group.lag;
    lags.push_back(std::move(lag));
  }
  co_return lags;
}

std::optional<Settlement> GroupReader::settlement(DeliveryTag tag) const {
  const auto found = held_.find(tag.sequence);
  if (found == held_.end()) return std::nullopt;
  return Settlement{streams_[found->second.stream].key, group_, consumer_, found->second.id.to_string()};
}

void GroupReader::forget(DeliveryTag tag) {
  held_.erase(tag.sequence);
  wake_reader();
}

awaitable<void> GroupReader::tend() {
  if (!acknowledged_.empty()) {
    co_await session_->commands(request_.topic, session_->deadline());
    send_acknowledgements();
  }
  const auto now = session_->clock->now();
  // Who reads is told that the group is gone.
  if (now - looked_at_ >= group_period && (paused_ || room() == 0)) {
    looked_at_ = now;
    co_await look_for_groups();
  }
  co_await claim_due();
  co_await keep_fresh();
  if (now - claimed_at_ >= std::min<Duration>(claim_idle_ / 2, claim_period) && !paused_) {
    claimed_at_ = now;
    co_await claim_from_the_dead();
  }
  if (now - trimmed_at_ >= trim_period_) {
    trimmed_at_ = now;
    co_await trim();
    co_await forget_the_dead();
  }
}

// Each member of a process has a name of its own, and those that are gone would pile up. Within a script, so that nobody is given a message
// between the look and the deletion: that would be lost.
awaitable<void> GroupReader::forget_the_dead() {
  constexpr std::string_view script =
      "for _, each in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do "
      "local of = {} for i = 1, #each, 2 do of[each[i]] = each[i + 1] end "
      "if of['pending'] == 0 and of['idle'] > tonumber(ARGV[2]) then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], of['name']) end "
      "end";
  for (std::size_t i = 0; i < streams_.size(); ++i)
    if (streams_[i].ready)
      co_await session_->ask(request_.topic, {"EVAL", std::string(script), "1", streams_[i].key, group_, milliseconds(10 * claim_idle_)},
                           "forgetting members");
}

// Released deliveries whose time has come are claimed from ourselves, which counts as a delivery at the server.
awaitable<void> GroupReader::claim_due() {
  const auto now = session_->clock->now();
  std::vector<std::uint64_t> due;
  std::erase_if(due_, [&](const Due& each) {
    if (each.at > now) return false;
    due.push_back(each.serial);
    return true;
  });
  for (auto next = due.begin(); next != due.end(); ++next) {
    const auto found = held_.find(*next);
    if (found == held_.end()) continue;
    const auto held = found->second;
    if (!streams_[held.stream].ready) {  // its topic was deleted
      held_.erase(found);
      continue;
    }
    try {
      const auto reply = co_await session_->ask(
          request_.topic, {"XCLAIM", streams_[held.stream].key, group_, consumer_, "0", held.id.to_string()}, "taking a message again");
      // A seek, or the end, may have come meanwhile.
      if (held_.erase(*next) == 0) continue;
      const std::vector<std::uint32_t> counts(reply->count, held.deliveries + 1);
      deliver(held.stream, reply->items(), reply, counts);
    } catch (const MessagingError&) {
      // It and those behind it are still ours: they fall due again.
      for (; next != due.end(); ++next) due_.push_back({*next, now + std::chrono::seconds(1)});
      throw;
    }
  }
}

// What is handled for long is not idle: without a word, others would claim it.
awaitable<void> GroupReader::keep_fresh() {
  const auto now = session_->clock->now();
  std::map<std::size_t, std::vector<std::uint64_t>> old;
  for (const auto& [serial, held] : held_)
    if (now - held.fresh >= claim_idle_ / 3 && streams_[held.stream].ready) old[held.stream].push_back(serial);
  for (const auto& [stream, serials] : old) {
    for (std::size_t from = 0; from < serials.size(); from += most_ids) {
      std::vector<std::string> words{"XCLAIM", streams_[stream].key, group_, consumer_, "0"};
      for (auto i = from; i < std::min(from + most_ids, serials.size()); ++i)
        if (const auto found = held_.find(serials[i]); found != held_.end()) {
          found->second.fresh = now;
          words.push_back(found->second.id.to_string());
        }
      words.emplace_back("JUSTID");
      if (words.size() > 6) co_await session_->ask(request_.topic, std::move(words), "keeping what is handled");
    }
  }
}

awaitable<std::vector<std::uint32_t>> GroupReader::counts_of(Connection& connection, std::size_t stream,
                                                             std::span<const Value> entries) {
  std::vector<std::vector<std::string>> asks;
  for (const auto& each : entries) {
    const auto entry = read_entry(each);
    const auto id = entry ? entry->id.to_string() : "0-0";
    asks.push_back({"XPENDING", streams_[stream].key, group_, id, id, "1"});
  }
  std::vector<std::uint32_t> counts;
  if (asks.empty()) co_return counts;
  for (const auto& reply : co_await connection.ask_all(std::move(asks))) {
    const bool known = reply->count == 1 && reply->items()[0].count == 4;
    counts.push_back(known ? static_cast<std::uint32_t>(std::max<std::int64_t>(reply->items()[0].items()[3].number, 1)) : 1);
  }
  co_return counts;
}

awaitable<void> GroupReader::claim_from_the_dead() {
  const auto connection = co_await session_->commands(request_.topic, session_->deadline());
  for (std::size_t i = 0; i < streams_.size() && !closed_; ++i) {
    if (!streams_[i].ready) continue;
    EntryId from;
    for (bool more = true; more && room() > 0 && !closed_;) {
      more = session_->has_autoclaim ? co_await autoclaim(*connection, i, from) : co_await claim_one_by_one(*connection, i, from);
    }
  }
}

awaitable<bool> GroupReader::autoclaim(Connection& connection, std::size_t stream, EntryId& from) {
  const auto reply = co_await connection.ask({"XAUTOCLAIM", streams_[stream].key, group_, consumer_, milliseconds(claim_idle_),
                                              from.to_string(), "COUNT", std::to_string(std::min(room(), most_claimed))});
  if (reply->is_error()) {
    if (is_error(reply->text, "NOGROUP")) co_return false;  // the reader makes it again
    if (!is_error(reply->text, "ERR unknown command")) fail(reply->text, "claiming what dead members left");
    session_->has_autoclaim = false;
    co_return true;
  }
  if (reply->count < 2) co_return false;
  co_await take_over(connection, stream, reply->items()[1].items(), reply);
  from = EntryId::parse(reply->items()[0].text).value_or(EntryId{});
  co_return from != EntryId{};
}

// Before Redis 6.2.
awaitable<bool> GroupReader::claim_one_by_one(Connection& connection, std::size_t stream, EntryId& from) {
  const auto key = streams_[stream].key;
  const auto count = std::min(room(), most_claimed);
  const auto pending = co_await connection.ask({"XPENDING", key, group_, from.to_string(), "+", std::to_string(count)});
  if (pending->is_error()) {
    if (is_error(pending->text, "NOGROUP")) co_return false;
    fail(pending->text, "claiming what dead members left");
  }
  std::vector<std::string> claim{"XCLAIM", key, group_, consumer_, milliseconds(claim_idle_)};
  const auto ids = claim.size();
  for (const auto& each : pending->items()) {
    const auto id = each.count == 4 ? EntryId::parse(each.items()[0].text) : std::nullopt;
    if (!id) continue;
    from = {id->ms, id->number + 1};
    if (each.items()[2].number >= std::chrono::ceil<std::chrono::milliseconds>(claim_idle_).count()) claim.push_back(id->to_string());
  }
  if (claim.size() > ids) {
    const auto reply = co_await connection.ask(std::move(claim));
    if (reply->is_error()) fail(reply->text, "claiming what dead members left");
    co_await take_over(connection, stream, reply->items(), reply);
  }
  co_return pending->count == count;
}

awaitable<void> GroupReader::take_over(Connection& connection, std::size_t stream, std::span<const Value> entries, Kept reply) {
  std::set<EntryId> ours;
  for (const auto& [serial, held] : held_)
    if (held.stream == stream) ours.insert(held.id);
  std::vector<Value> claimed;
  for (const auto& each : entries)
    if (const auto entry = read_entry(each); entry && !ours.contains(entry->id)) claimed.push_back(each);
  if (claimed.empty()) co_return;
  log(LogLevel::info, "took over what another member left",
      {{"broker", "redis"}, {"topic", streams_[stream].key}, {"group", group_}, {"messages", std::to_string(claimed.size())}});
  const auto counts = co_await counts_of(connection, stream, claimed);
  deliver(stream, claimed, reply, counts);
}

awaitable<void> GroupReader::look_for_groups() {
  const auto connection = co_await session_->commands(request_.topic, session_->deadline());
  for (std::size_t i = 0; i < streams_.size() && !closed_; ++i) {
    if (!streams_[i].ready || co_await has_group(*connection, streams_[i].key)) continue;
    co_await make_again(*connection, "it was looked for");
    co_return;
  }
}

// Entries that every group has acknowledged and that are old enough; never one that a group has not read or holds pending. The looks and
// the deletion are one step, so that no group is made, or set back, between them. Nothing goes while this member's own group is missing,
// or one that was there at the last look: its members make it again, and have not read what is there.
awaitable<void> GroupReader::trim() {
  // The keys are a stream; the values this group, the age's id, and the groups of the last look. Returns the groups; nothing where the own
  // one is missing. Numbers of an id may be larger than Lua's, so their digits are compared.
  constexpr std::string_view script =
      "local function less(a, b) if #a ~= #b then return #a < #b end return a < b end "
      "local function before(a, b) "
      "local am, an = a:match('(%d+)-(%d+)') local bm, bn = b:match('(%d+)-(%d+)') "
      "if am ~= bm then return less(am, bm) end return less(an, bn) end "
      "local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1]) "
      "if groups.err then return groups end "
      "local names, there, keep = {}, {}, ARGV[2] "
      "for _, each in ipairs(groups) do "
      "local of = {} for i = 1, #each, 2 do of[each[i]] = each[i + 1] end "
      "names[#names + 1] = of['name'] there[of['name']] = true "
      "local first = of['last-delivered-id'] "
      "if before(first, keep) then keep = first end "
      "if of['pending'] > 0 then first = redis.call('XPENDING', KEYS[1], of['name'])[2] "
      "if before(first, keep) then keep = first end end "
      "end "
      "if not there[ARGV[1]] then return {} end "
      "for i = 3, #ARGV do if not there[ARGV[i]] then return names end end "
      "local trimmed = redis.pcall('XTRIM', KEYS[1], 'MINID', '~', keep) "
      "if type(trimmed) == 'table' and trimmed.err then return trimmed end "
      "return names";
  if (trim_after_ <= Duration::zero()) co_return;
  for (std::size_t i = 0; i < streams_.size() && !closed_; ++i) {
    if (!streams_[i].ready) continue;
    const auto key = streams_[i].key;
    const auto age = session_->clock->wall().time_since_epoch() - trim_after_;
    const EntryId keep{static_cast<std::uint64_t>(std::max<std::int64_t>(std::chrono::floor<std::chrono::milliseconds>(age).count(), 0)), 0};
    std::vector<std::string> words{"EVAL", std::string(script), "1", key, group_, keep.to_string()};
    const auto& before = groups_[i];
    words.insert(words.end(), before.begin(), before.end());
    const auto connection = co_await session_->commands(request_.topic, session_->deadline());
    const auto reply = co_await connection->ask(std::move(words));
    if (is_error(reply->text, "ERR no such key") || (!reply->is_error() && reply->count == 0)) {
      co_await make_again(*connection, "it was not there when the stream was to be trimmed");
      continue;
    }
    if (!reply->is_error()) {
      auto& groups = groups_[i];
      groups.clear();
      for (const auto& each : reply->items()) groups.emplace_back(each.text);
      continue;
    }
    if (passes(reply->text)) fail(reply->text, "trimming");
    if (std::exchange(trim_refused_, true)) continue;
    const bool is_old = is_error(reply->text, "ERR syntax error");
    log(LogLevel::warning,
        is_old ? "this Redis cannot trim a stream by age (XTRIM MINID came with 6.2); what was acknowledged stays"
               : "the server does not let this user trim (EVAL with XINFO, XPENDING and XTRIM); what was acknowledged stays",
        {{"broker", "redis"}, {"topic", key}, {"cause", std::string(reply->text)}});
    if (is_old) trim_after_ = Duration::zero();
    if (is_old) co_return;
  }
}

awaitable<std::vector<GroupInfo>> groups_of(Session& session, std::string key) {
  const auto reply = co_await session.ask(key, {"XINFO", "GROUPS", key}, fmt::format("looking at the groups of \"{}\"", key));
  std::vector<GroupInfo> groups;
  for (const auto& each : reply->items()) {
    const auto fields = fields_of(each);
    const auto number = [&](std::string_view name) { return fields.contains(name) ? fields.at(name)->number : 0; };
    GroupInfo group;
    if (fields.contains("name")) group.group = fields.at("name")->text;
    group.members = static_cast<std::size_t>(number("consumers"));
    group.lag = number("pending");
    if (fields.contains("lag") && !fields.at("lag")->is_nil()) {
      group.lag += number("lag");
    } else if (fields.contains("last-delivered-id")) {
      // Redis before 7, and 7 after a seek or a deletion, does not know: counted.
      group.lag += co_await count_after(session, key, EntryId::parse(fields.at("last-delivered-id")->text));
    }
    groups.push_back(std::move(group));
  }
  co_return groups;
}

awaitable<EntryId> last_of(Connection& connection, std::string key) {
  const auto reply = co_await connection.ask({"XINFO", "STREAM", key});
  if (is_error(reply->text, "ERR no such key")) co_return EntryId{};
  if (reply->is_error()) fail(reply->text, fmt::format("reading \"{}\"", key));
  const auto fields = fields_of(*reply);
  co_return fields.contains("last-generated-id")
      ? EntryId::parse(fields.at("last-generated-id")->text).value_or(EntryId{})
      : EntryId{};
}

awaitable<void> PrivateReader::on_silence(Connection& connection) {
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    if (!streams_[i].ready || streams_[i].last_read == EntryId{}) continue;
    const auto last = co_await last_of(connection, streams_[i].key);
    auto& stream = streams_[i];
    if (last >= stream.last_read) continue;
    // A replica that was made master may lack the latest, and then has what came before.
    const bool is_same = stream.read_before != EntryId{} && last >= stream.read_before;
    stream.last_read = is_same ? last : EntryId{};
    stream.read_before = {};
    log(LogLevel::warning,
        is_same ? "the server has lost the latest of a stream; what comes behind the rest is read"
                : "a stream was deleted at the server; what comes into it is read from its beginning",
        {{"broker", "redis"}, {"topic", stream.key}, {"last", last.to_string()}});
  }
}

awaitable<void> PrivateReader::prepare_stream(Connection& connection, std::size_t stream) {
  // A key that cannot be read is refused now: a read of it would fail again and again.
  const auto key = streams_[stream].key;
  if (!is_pattern_) {
    const auto look = co_await connection.ask({"XREAD", "COUNT", "1", "STREAMS", key, "$"});
    if (look->is_error()) fail(look->text, fmt::format("reading \"{}\"", key));
  }
  if (streams_[stream].from_end) {
    const auto last = co_await last_of(connection, streams_[stream].key);
    if (last != EntryId{}) streams_[stream].last_read = last;
    streams_[stream].from_end = false;
  }
  streams_[stream].ready = true;
}

awaitable<void> PrivateReader::recover(Connection& connection) {
  for (std::size_t i = 0; i < streams_.size(); ++i)
    if (!streams_[i].ready || !is_pattern_) co_await make_ready(connection, i);
}

std::vector<std::string> PrivateReader::read_command(std::span<const std::size_t> streams, std::size_t at_most,
                                                     std::optional<Duration> block) const {
  std::vector<std::string> words{"XREAD", "COUNT", std::to_string(at_most)};
  if (block) words.insert(words.end(), {"BLOCK", milliseconds(*block)});
  words.emplace_back("STREAMS");
  for (const auto i : streams) words.push_back(streams_[i].key);
  for (const auto i : streams) words.push_back(streams_[i].last_read.to_string());
  return words;
}

void PrivateReader::on_entries(std::size_t stream, std::span<const Value> entries, const Kept& reply) {
  EntryBatch batch(streams_[stream].key, reply.owner);
  if (const auto now = session_->clock->now(); now - streams_[stream].read_before_at >= replicated_after) {
    streams_[stream].read_before = streams_[stream].last_read;
    streams_[stream].read_before_at = now;
  }
  for (const auto& each : entries) {
    const auto entry = read_entry(each);
    if (!entry || entry->id <= streams_[stream].last_read) continue;
    streams_[stream].last_read = entry->id;
    if (!entry->fields->is_nil()) batch.add(*entry, {stream, static_cast<std::uint64_t>(entry->id.to_offset())}, 1);
  }
  add_ready(batch);
}

awaitable<void> PrivateReader::seek(std::string topic, EntryId last_read, bool to_end) {
  const auto self = shared_from_this();
  const auto stream = find_stream(topic);
  if (!stream) throw MessagingError(errc::invalid_argument, fmt::format("seek: \"{}\" is not subscribed to", topic));
  std::erase_if(ready_messages_, [&](const Message& message) { return message.tag().lane == *stream; });
  streams_[*stream].last_read = last_read;
  streams_[*stream].from_end = to_end;
  streams_[*stream].ready = false;
  begin_again();
  co_return;
}

awaitable<std::vector<PartitionLag>> PrivateReader::lag() { co_return std::vector<PartitionLag>{}; }

}  // namespace maestro::messaging::redis

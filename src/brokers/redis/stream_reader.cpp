#include "brokers/redis/stream_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>

namespace maestro::messaging::redis {

namespace asio = boost::asio;

namespace {

// The most that one read brings, so that the members of a group share what is there, and how long it waits at the server: shorter than
// the silence that is taken for a dead connection.
constexpr std::size_t few_at_once = 128;
constexpr std::size_t most_at_once = 512;  // of a backlog
constexpr Duration block = std::chrono::seconds(4);
// A pattern's topics are looked up so often.
constexpr Duration pattern_period = std::chrono::seconds(1);
// Where streams are read in turns, and none had anything.
constexpr Duration shortest_pause = std::chrono::milliseconds(5);
constexpr Duration longest_pause = std::chrono::milliseconds(100);

}  // namespace

StreamReader::StreamReader(std::shared_ptr<Session> session, SubscribeRequest request)
    : Reader(std::move(session), std::move(request)), tending_(*session_->clock, session_->executor) {
  if (!is_pattern_)
    streams_.push_back({.key = request_.topic, .from_end = request_.auto_offset_reset == OffsetReset::latest});
}

awaitable<void> StreamReader::start() {
  co_await Reader::start();
  asio::co_spawn(session_->executor, run_tending(std::static_pointer_cast<StreamReader>(shared_from_this())), asio::detached);
}

void StreamReader::stop() {
  Reader::stop();
  tending_.notify();
}

// Where a reader starts is decided now, and not when it first reads.
awaitable<void> StreamReader::prepare(Connection& connection) {
  if (is_pattern_) {
    co_await discover(connection);
  } else {
    co_await make_ready(connection, 0);
  }
  co_await begin();
}

void StreamReader::add_ready(EntryBatch& batch) {
  std::vector<Message> messages;
  batch.take(messages);
  Reader::add_ready(messages);
}

std::optional<std::size_t> StreamReader::find_stream(std::string_view key) const {
  const auto found = std::ranges::find(streams_, key, &Stream::key);
  if (found == streams_.end()) return std::nullopt;
  return static_cast<std::size_t>(found - streams_.begin());
}

awaitable<std::int64_t> StreamReader::offset_at(std::string topic, Timestamp time) {
  const auto self = shared_from_this();
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const auto found = co_await session_->ask(topic, {"XRANGE", topic, std::to_string(std::max<std::int64_t>(ms, 0)), "+", "COUNT", "1"},
                                            fmt::format("looking for a time in \"{}\"", topic));
  const auto first = found->count > 0 ? read_entry(found->items()[0]) : std::nullopt;
  constexpr std::int64_t end = -2;
  co_return first ? first->id.to_offset() : end;
}

awaitable<void> StreamReader::discover(Connection& connection) {
  const auto known = co_await connection.ask({"SMEMBERS", std::string(topic_index)});
  if (known->is_error()) fail(known->text, "looking for topics");
  const bool first = !connected_;
  // A topic that comes later is new to the group: everything in it is.
  for (const auto& each : known->items())
    if (!find_stream(each.text) && matches(request_.topic, each.text))
      streams_.push_back(
          {.key = std::string(each.text), .from_end = first && request_.auto_offset_reset == OffsetReset::latest});
  for (std::size_t i = 0; i < streams_.size(); ++i)
    if (!streams_[i].ready) co_await make_ready(connection, i);
}

awaitable<void> StreamReader::make_ready(Connection& connection, std::size_t stream) {
  const auto key = streams_[stream].key;
  if (is_pattern_) {
    const auto kind = co_await connection.ask({"TYPE", key});
    if (kind->text == "none") {
      // It was deleted, and is not made again by those who only look for it; when it comes back, everything in it is
      // new.
      streams_[stream].ready = false;
      streams_[stream].last_read = streams_[stream].read_before = {};
      streams_[stream].from_end = false;
      co_return;
    }
    if (!kind->is_error() && kind->text != "stream") {
      streams_[stream].ready = false;
      if (!std::exchange(streams_[stream].left_out, true))
        log(LogLevel::warning, "a key that the pattern matches is no stream; it is left out until it is one",
            {{"broker", "redis"}, {"topic", request_.topic}, {"key", key}, {"type", std::string(kind->text)}});
      co_return;
    }
    streams_[stream].left_out = false;
  }
  co_await prepare_stream(connection, stream);
}

awaitable<void> StreamReader::mend(std::string error) {
  const bool gone = is_error(error, "NOGROUP") || (is_error(error, "UNBLOCKED") && !is_from_replica(error));
  if (!gone && !(is_pattern_ && is_error(error, "WRONGTYPE"))) fail(error, fmt::format("reading \"{}\"", request_.topic));
  if (gone) {
    co_await make_again(*connection_, std::move(error));
  } else {
    co_await make_all_ready(*connection_);
  }
}

awaitable<void> StreamReader::make_again(Connection& connection, std::string cause) {
  log(LogLevel::warning,
      is_pattern_
          ? "a group or its stream is gone at the server; what is there, or comes back, is read from its beginning"
          : "the group or its stream is gone at the server; it is made again, and read from its beginning",
      {{"broker", "redis"}, {"topic", request_.topic}, {"group", request_.group.value_or("")}, {"cause", cause}});
  co_await make_all_ready(connection);
}

awaitable<void> StreamReader::make_all_ready(Connection& connection) {
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    streams_[i].from_end = false;
    co_await make_ready(connection, i);
  }
}

std::vector<std::size_t> StreamReader::ready_streams() const {
  std::vector<std::size_t> ready;
  ready.reserve(streams_.size());
  for (std::size_t i = 0; i < streams_.size(); ++i)
    if (streams_[i].ready) ready.push_back(i);
  return ready;
}

awaitable<void> StreamReader::read_until_broken() {
  auto looked = session_->clock->now();
  auto heard = looked;
  auto at_once = few_at_once;
  std::size_t in_vain = 0;  // streams that were read in turns and had nothing
  auto pause = shortest_pause;
  while (!closed_) {
    if (is_pattern_ && session_->clock->now() - looked >= pattern_period) {
      co_await discover(*connection_);
      looked = session_->clock->now();
    }
    const auto free = room();
    auto streams = ready_streams();
    if (paused_ || free == 0 || streams.empty()) {
      // Nothing is read ahead of a consumer that has enough.
      co_await wait_for_room(is_pattern_ ? pattern_period : block);
      continue;
    }
    // A read brings as many of each stream. With less room than streams they are read in turns, without blocking: what
    // comes to the others meanwhile would not end it.
    const auto all = streams.size();
    const bool in_turns = free < all;
    if (in_turns) {
      std::ranges::rotate(streams, std::ranges::lower_bound(streams, turn_));
      turn_ = streams[free];
      streams.resize(free);
    }
    const auto each_at_most = std::min(free / streams.size(), at_once);
    const auto wait = in_turns ? std::nullopt : std::optional(is_pattern_ ? pattern_period : block);
    const auto reply = co_await connection_->ask(read_command(streams, each_at_most, wait));
    if (closed_) co_return;
    if (reply->is_error()) {
      co_await mend(std::string(reply->text));
      continue;
    }
    if (reply->count > 0) {
      heard = session_->clock->now();
    } else if (session_->clock->now() - heard >= block) {
      co_await on_silence(*connection_);
      heard = session_->clock->now();
    }
    std::size_t entries = 0;
    for (const auto& each : reply->items()) {
      if (each.count != 2) continue;
      entries += each.items()[1].count;
      if (const auto stream = find_stream(each.items()[0].text)) on_entries(*stream, each.items()[1].items(), reply);
    }
    at_once = entries >= at_once ? std::min(2 * at_once, most_at_once) : few_at_once;
    in_vain = in_turns && entries == 0 ? in_vain + streams.size() : 0;
    if (in_vain == 0) {
      pause = shortest_pause;
    } else if (in_vain >= all) {
      in_vain = 0;
      co_await wait_for_room(pause);
      pause = std::min(2 * pause, longest_pause);
    }
  }
}

awaitable<void> StreamReader::run_tending(std::shared_ptr<StreamReader> self) {
  while (!self->closed_) {
    co_await self->tending_.wait_until(self->session_->clock->now() + self->tick());
    if (self->closed_) co_return;
    try {
      co_await self->tend();
    } catch (const MessagingError& failure) {
      // The next round tries again.
      log(LogLevel::debug, "tending a subscription failed", {{"broker", "redis"}, {"cause", failure.detail()}});
    }
  }
}

}  // namespace maestro::messaging::redis

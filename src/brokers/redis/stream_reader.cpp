#include "brokers/redis/stream_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>

namespace maestro::messaging::redis {

namespace asio = boost::asio;

namespace {

// The most that one read brings, so that the members of a group share what is there, and how long it waits at the server: shorter than
// the silence that is taken for a dead connection.
constexpr std::size_t most_at_once = 128;
constexpr Duration block = std::chrono::seconds(4);
// A pattern's topics are looked up so often.
constexpr Duration pattern_period = std::chrono::seconds(1);

}  // namespace

StreamReader::StreamReader(std::shared_ptr<Session> session, SubscribeRequest request)
    : session_(std::move(session)),
      request_(std::move(request)),
      is_pattern_(is_pattern(request_.topic)),
      ready_(*session_->clock, session_->executor),
      room_changed_(*session_->clock, session_->executor),
      tending_(*session_->clock, session_->executor) {
  if (!is_pattern_)
    streams_.push_back({request_.topic, {}, request_.auto_offset_reset == OffsetReset::latest, false});
}

StreamReader::~StreamReader() {
  if (connection_) connection_->close({errc::closed, "the subscription ended"});
}

awaitable<void> StreamReader::start() {
  const auto self = shared_from_this();
  connection_ = co_await session_->connect(session_->deadline());
  // Where a reader starts is decided now, and not when it first reads.
  if (is_pattern_) {
    co_await discover(*connection_);
  } else {
    co_await prepare(*connection_, 0);
  }
  connected_ = true;
  co_await begin();
  asio::co_spawn(session_->executor, run(self), asio::detached);
  asio::co_spawn(session_->executor, run_tending(self), asio::detached);
}

void StreamReader::require_open() const {
  if (closed_) throw MessagingError(errc::closed, fmt::format("the subscription to \"{}\" was closed", request_.topic));
}

std::optional<std::size_t> StreamReader::find_stream(std::string_view key) const {
  const auto found = std::ranges::find(streams_, key, &Stream::key);
  if (found == streams_.end()) return std::nullopt;
  return static_cast<std::size_t>(found - streams_.begin());
}

std::size_t StreamReader::take(std::vector<Message>& into, std::size_t at_most) {
  if (error_) std::rethrow_exception(error_);
  require_open();
  if (paused_) return 0;
  const auto count = std::min(at_most, ready_messages_.size());
  for (std::size_t i = 0; i < count; ++i) {
    into.push_back(std::move(ready_messages_.front()));
    ready_messages_.pop_front();
  }
  if (count > 0 && !request_.group) wake_reader();
  return count;
}

awaitable<void> StreamReader::wait() {
  // Messages may always be ready: others on this executor get their turn now and then.
  constexpr unsigned turns = 16;
  if (++immediate_ % turns == 0) co_await asio::post(session_->executor, asio::use_awaitable);
  for (;;) {
    if (error_) std::rethrow_exception(error_);
    require_open();
    if (!paused_ && !ready_messages_.empty()) co_return;
    co_await ready_.wait();
  }
}

void StreamReader::pause() { paused_ = true; }

void StreamReader::resume() {
  paused_ = false;
  ready_.notify();
  wake_reader();
}

void StreamReader::stop() {
  if (std::exchange(closed_, true)) return;
  ready_messages_.clear();
  if (connection_) connection_->close({errc::closed, "the subscription ended"});
  ready_.notify();
  room_changed_.notify();
  tending_.notify();
}

awaitable<void> StreamReader::close() {
  stop();
  co_return;
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

void StreamReader::begin_again() {
  restart_ = true;
  if (connection_) connection_->close({errc::connection_failed, "begins again from another place"});
  wake_reader();
}

void StreamReader::fail_for_good(std::exception_ptr error) {
  error_ = error;
  ready_.notify();
}

void StreamReader::add_ready(EntryBatch& batch) {
  std::vector<Message> messages;
  batch.take(messages);
  if (messages.empty()) return;
  for (auto& message : messages) ready_messages_.push_back(std::move(message));
  ready_.notify();
}

awaitable<void> StreamReader::discover(Connection& connection) {
  const auto known = co_await connection.ask({"SMEMBERS", std::string(topic_index)});
  if (known->is_error()) fail(known->text, "looking for topics");
  const bool first = !connected_;
  for (const auto& each : known->items()) {
    const auto found = find_stream(each.text);
    if (!found && !matches(request_.topic, each.text)) continue;
    // A topic that comes later is new to the group: everything in it is.
    if (!found)
      streams_.push_back({std::string(each.text), {}, first && request_.auto_offset_reset == OffsetReset::latest, false});
    const auto at = found ? *found : streams_.size() - 1;
    if (!streams_[at].ready) co_await prepare(connection, at);
  }
}

awaitable<void> StreamReader::read_until_broken() {
  auto looked = session_->clock->now();
  while (!closed_) {
    if (is_pattern_ && session_->clock->now() - looked >= pattern_period) {
      co_await discover(*connection_);
      looked = session_->clock->now();
    }
    const auto free = std::min(room(), most_at_once);
    if (paused_ || free == 0 || streams_.empty()) {
      // Nothing is read ahead of a consumer that has enough.
      co_await room_changed_.wait_until(session_->clock->now() + (is_pattern_ ? pattern_period : block));
      if (!connection_->is_open()) throw MessagingError(errc::connection_failed, "the connection to Redis broke");
      continue;
    }
    const auto reply = co_await connection_->ask(read_command(free, is_pattern_ ? pattern_period : block));
    if (closed_) co_return;
    if (reply->is_error()) {
      if (!is_error(reply->text, "NOGROUP")) fail(reply->text, fmt::format("reading \"{}\"", request_.topic));
      log(LogLevel::warning, "the group or its stream is gone at the server; it is made again, and read from its beginning",
          {{"broker", "redis"}, {"topic", request_.topic}, {"group", request_.group.value_or("")}, {"cause", std::string(reply->text)}});
      for (std::size_t i = 0; i < streams_.size(); ++i) {
        streams_[i].from_end = false;
        co_await prepare(*connection_, i);
      }
      continue;
    }
    for (const auto& each : reply->items()) {
      if (each.count != 2) continue;
      if (const auto stream = find_stream(each.items()[0].text)) on_entries(*stream, each.items()[1].items(), reply);
    }
  }
}

awaitable<void> StreamReader::run(std::shared_ptr<StreamReader> self) {
  const auto& clock = self->session_->clock;
  int failures = 0;
  while (!self->closed_) {
    try {
      if (!self->connection_ || !self->connection_->is_open()) {
        self->connection_ = co_await self->session_->connect(self->session_->deadline());
        if (self->closed_) break;
        co_await self->recover(*self->connection_);
        self->connected_ = true;
        if (failures > 0) {
          log(LogLevel::warning, "reconnected", {{"broker", "redis"}, {"topic", self->request_.topic}});
          self->session_->was_lost = true;
          self->session_->reconnected();
        }
      }
      failures = 0;
      co_await self->read_until_broken();
      co_return;
    } catch (const MessagingError& failure) {
      if (self->closed_) break;
      if (std::exchange(self->restart_, false)) continue;
      self->connected_ = false;
      if (self->connection_) self->connection_->close({errc::connection_failed, failure.detail()});
      if (failure.reason() == errc::authentication_failed || failure.reason() == errc::tls_failed ||
          failure.reason() == errc::unsupported || failure.reason() == errc::invalid_option) {
        self->fail_for_good(std::current_exception());
        co_return;
      }
      if (failures == 0)
        log(LogLevel::warning, "connection lost; reconnecting",
            {{"broker", "redis"}, {"topic", self->request_.topic}, {"cause", failure.detail()}});
    }
    // Up to twice as long each time, and not in step with others.
    const Duration longest = std::min<Duration>(std::chrono::milliseconds(50) * (1 << std::min(failures++, 6)), std::chrono::seconds(2));
    std::uniform_int_distribution<Duration::rep> pause(0, longest.count());
    co_await self->room_changed_.wait_until(clock->now() + Duration(pause(self->session_->random)));
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

#include "brokers/redis/reader.hpp"

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
// A connection that was used for so long was a good one: when it breaks, the next is made at once.
constexpr Duration lasting = std::chrono::seconds(5);
}  // namespace

Reader::Reader(std::shared_ptr<Session> session, SubscribeRequest request)
    : session_(std::move(session)),
      request_(std::move(request)),
      is_pattern_(is_pattern(request_.topic)),
      ready_(*session_->clock, session_->executor),
      room_changed_(*session_->clock, session_->executor) {}

Reader::~Reader() {
  if (connection_) connection_->close({errc::closed, "the subscription ended"});
}

awaitable<void> Reader::start() {
  const auto self = shared_from_this();
  connection_ = co_await session_->connect(session_->deadline());
  co_await prepare(*connection_);
  connected_ = true;
  asio::co_spawn(session_->executor, run(self), asio::detached);
}

void Reader::require_open() const {
  if (closed_) throw MessagingError(errc::closed, fmt::format("the subscription to \"{}\" was closed", request_.topic));
}

std::size_t Reader::take(std::vector<Message>& into, std::size_t at_most) {
  if (error_) std::rethrow_exception(error_);
  require_open();
  if (paused_) return 0;
  const auto count = std::min(at_most, ready_messages_.size());
  for (std::size_t i = 0; i < count; ++i) {
    into.push_back(std::move(ready_messages_.front()));
    ready_messages_.pop_front();
  }
  if (count > 0 && !request_.group) on_room();
  return count;
}

awaitable<void> Reader::wait() {
  // Messages may always be ready: others on this executor get their turn now and then.
  constexpr unsigned turns = 16;
  if (++immediate_ % turns == 0) co_await asio::post(session_->executor, asio::use_awaitable);
  for (;;) {
    if (error_) std::rethrow_exception(error_);
    require_open();
    if (std::exchange(resumed_, false) || (!paused_ && !ready_messages_.empty())) co_return;
    co_await ready_.wait();
  }
}

void Reader::resume() {
  paused_ = false;
  resumed_ = true;
  ready_.notify();
  on_room();
}

void Reader::stop() {
  if (std::exchange(closed_, true)) return;
  ready_messages_.clear();
  if (connection_) connection_->close({errc::closed, "the subscription ended"});
  ready_.notify();
  room_changed_.notify();
}

awaitable<void> Reader::close() {
  stop();
  co_return;
}

awaitable<void> Reader::wait_for_room(Duration at_most) {
  co_await room_changed_.wait_until(session_->clock->now() + at_most);
  if (!connection_->is_open()) throw MessagingError(errc::connection_failed, "the connection to Redis broke");
}

void Reader::begin_again() {
  restart_ = true;
  if (connection_) connection_->close({errc::connection_failed, "begins again from another place"});
  wake_reader();
}

void Reader::add_ready(std::vector<Message>& messages) {
  if (messages.empty()) return;
  for (auto& message : messages) ready_messages_.push_back(std::move(message));
  ready_.notify();
}

awaitable<void> Reader::run(std::shared_ptr<Reader> self) {
  const auto& clock = self->session_->clock;
  int failures = 0;
  bool lost = false;
  std::optional<TimePoint> began;
  errc said{};
  while (!self->closed_) {
    try {
      if (!self->connection_ || !self->connection_->is_open()) {
        self->connection_ = co_await self->session_->connect(self->session_->deadline());
        if (self->closed_) break;
        co_await self->recover(*self->connection_);
        self->connected_ = true;
        if (std::exchange(lost, false)) {
          log(LogLevel::warning, "reconnected", {{"broker", "redis"}, {"topic", self->request_.topic}});
          self->session_->reports.reconnected();
          self->session_->reports.whole();
        }
      }
      began = clock->now();
      co_await self->read_until_broken();
      co_return;
    } catch (const MessagingError& failure) {
      if (self->closed_) break;
      if (began && clock->now() - *began > lasting) failures = 0;
      began.reset();
      if (std::exchange(self->restart_, false)) continue;
      self->connected_ = false;
      if (!std::exchange(lost, true)) self->session_->reports.lost(failure.detail());
      if (self->connection_) self->connection_->close({errc::connection_failed, failure.detail()});
      if (failure.reason() == errc::authentication_failed || failure.reason() == errc::tls_failed ||
          failure.reason() == errc::unsupported || failure.reason() == errc::invalid_option) {
        self->error_ = std::current_exception();
        self->ready_.notify();
        co_return;
      }
      if (failures == 0 || failure.reason() != said)
        log(LogLevel::warning,
            failure.reason() == errc::connection_failed ? "connection lost; reconnecting"
                                                        : "reading failed; trying again",
            {{"broker", "redis"}, {"topic", self->request_.topic}, {"cause", failure.detail()}});
      said = failure.reason();
    }
    // Up to twice as long each time, and not in step with others.
    const Duration longest = std::min<Duration>(std::chrono::milliseconds(50) * (1 << std::min(failures++, 6)), std::chrono::seconds(2));
    std::uniform_int_distribution<Duration::rep> pause(0, longest.count());
    co_await self->room_changed_.wait_until(clock->now() + Duration(pause(self->session_->random)));
  }
}

}  // namespace maestro::messaging::redis

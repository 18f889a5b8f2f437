#include "brokers/redis/channel_reader.hpp"

#include <fmt/format.h>

#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>

namespace maestro::messaging::redis {

namespace {

// A connection on which nothing came for so long is asked whether it lives; one that says nothing to that for as long is taken for dead.
constexpr Duration silence = std::chrono::seconds(5);

MessagingError no_places() {
  return {errc::unsupported, "a channel (mode=pubsub) keeps nothing, and so has no places to go to; use mode=streams"};
}

}  // namespace

awaitable<void> ChannelReader::seek(std::string, EntryId, bool) {
  throw no_places();
  co_return;
}

awaitable<std::int64_t> ChannelReader::offset_at(std::string, Timestamp) {
  throw no_places();
  co_return 0;
}

awaitable<std::optional<std::int64_t>> ChannelReader::count_dropped(Connection& connection) {
  const auto stats = co_await connection.ask({"INFO", "stats"});
  co_return stats->is_error() ? std::nullopt : info_number(stats->text, "client_output_buffer_limit_disconnections");
}

awaitable<void> ChannelReader::prepare(Connection& connection) {
  dropped_ = co_await count_dropped(connection);
  co_await subscribe(connection);
}

awaitable<void> ChannelReader::recover(Connection& connection) {
  const auto before = std::exchange(dropped_, co_await count_dropped(connection));
  co_await subscribe(connection);
  const std::vector<std::pair<std::string, std::string>> fields{{"broker", "redis"}, {"topic", request_.topic}};
  const bool was_behind = std::exchange(behind_, false);
  if (before && dropped_ ? *dropped_ > *before : was_behind) {
    log(LogLevel::error, "the server dropped a subscriber that did not keep up (client-output-buffer-limit pubsub); messages were lost", fields);
    session_->reports.failed("subscribe", "messages_lost");
  } else {
    log(LogLevel::warning, "what was published to the channel while there was no connection is lost", fields);
  }
}

awaitable<void> ChannelReader::subscribe(Connection& connection) {
  subscribed_ = false;
  refused_.reset();
  const auto self = std::static_pointer_cast<ChannelReader>(shared_from_this());
  connection.on_close([weak = std::weak_ptr(self)](const Failure&) {
    if (const auto alive = weak.lock()) alive->wake_reader();
  });
  connection.listen(self);
  if (is_pattern_) {
    connection.say({"PSUBSCRIBE", glob_of(request_.topic)});
  } else {
    connection.say({"SUBSCRIBE", request_.topic});
  }
  const auto deadline = session_->deadline();
  while (!subscribed_ && !refused_ && session_->clock->now() < deadline) co_await wait_for_room(deadline - session_->clock->now());
  if (refused_) throw MessagingError(refused_->code, refused_->detail);
  if (!subscribed_) throw MessagingError(errc::connection_failed, "Redis did not confirm the subscription within connect_timeout");
}

void ChannelReader::on_push(const Value& push) {
  if (push.is_error()) {
    refused_ = describe(push.text, fmt::format("subscribing to \"{}\"", request_.topic));
    wake_reader();
    return;
  }
  const auto parts = push.items();
  if (parts.empty()) return;
  if (parts[0].text == "message" && parts.size() == 3) {
    batch_.add(parts[1].text, parts[2].text);
  } else if (parts[0].text == "pmessage" && parts.size() == 4) {
    if (matches(request_.topic, parts[2].text)) batch_.add(parts[2].text, parts[3].text);
  } else if (parts[0].text == "subscribe" || parts[0].text == "psubscribe") {
    subscribed_ = true;
    wake_reader();
  }
}

void ChannelReader::on_burst(bool full) {
  if (full) behind_ = true;
  if (closed_ || batch_.size() == 0) return;
  std::vector<Message> messages;
  batch_.take(messages, number_, session_->clock->wall());
  add_ready(messages);
  if (ready_messages_.size() < request_.prefetch || !connection_) return;
  connection_->hold();
  behind_ = true;
}

void ChannelReader::on_room() {
  if (connection_ && !paused_ && ready_messages_.size() <= request_.prefetch / 2) connection_->go_on();
}

awaitable<void> ChannelReader::read_until_broken() {
  std::optional<TimePoint> asked;
  while (!closed_) {
    co_await wait_for_room(silence);
    if (closed_) co_return;
    if (connection_->is_held()) continue;  // it is we that do not listen
    behind_ = false;
    const auto now = session_->clock->now();
    if (asked && connection_->last_heard() >= *asked) asked.reset();
    if (now - connection_->last_heard() < silence) continue;
    if (asked && now - *asked >= silence) throw MessagingError(errc::connection_failed, "Redis said nothing to a PING");
    if (asked) continue;
    asked = now;
    connection_->say({"PING"});
  }
}

}  // namespace maestro::messaging::redis

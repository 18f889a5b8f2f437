#include "serialization/event_envelope.hpp"

#include <algorithm>

#include "core/hex.hpp"

namespace maestro::messaging {
namespace {

constexpr std::size_t id_size = 36;
constexpr std::size_t milliseconds_at = std::string_view("2026-01-01T00:00:00.").size();

}  // namespace

EventEnvelope::EventEnvelope(std::string_view source, std::string_view content_type, std::mt19937_64& traces) {
  Headers headers;
  // Where the value that was added last begins.
  const auto add = [&headers](std::string_view name, std::string_view value) {
    headers.add(name, value);
    return headers.block().size() - value.size();
  };
  std::string epoch;
  append_rfc3339(epoch, Timestamp{});
  second_ = 0;
  add("ce_specversion", "1.0");
  id_at_ = add("ce_id", std::string(id_size, '0'));
  add("ce_source", source);
  time_at_ = add("ce_time", epoch);
  add("content-type", content_type);
  const auto trace = make_traceparent(traces);
  trace_at_ = add("traceparent", {trace.data(), trace.size()});
  type_at_ = add("ce_type", "");
  block_ = headers.block();
}

void EventEnvelope::set_time(Timestamp time) {
  const auto since = std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const auto second = since >= 0 ? since / 1000 : (since - 999) / 1000;
  if (second != second_) {
    std::string text;
    append_rfc3339(text, time);
    std::ranges::copy(text, block_.begin() + static_cast<std::ptrdiff_t>(time_at_));
    second_ = second;
    return;
  }
  const auto ms = static_cast<unsigned>(since - second * 1000);
  auto* digits = block_.data() + time_at_ + milliseconds_at;
  digits[0] = static_cast<char>('0' + ms / 100);
  digits[1] = static_cast<char>('0' + ms / 10 % 10);
  digits[2] = static_cast<char>('0' + ms % 10);
}

void EventEnvelope::set_type(std::string_view type) {
  constexpr std::size_t header = 2 * sizeof(std::uint32_t) + std::string_view("ce_type").size();
  if (std::string_view(block_).substr(type_at_) == type) return;
  block_.resize(type_at_ - header);
  auto headers = Headers::from_block(std::move(block_));
  headers.add("ce_type", type);
  block_ = headers.block();
}

Headers EventEnvelope::make(std::string_view type, Timestamp time, IdGenerator& ids, std::mt19937_64& traces) {
  set_type(type);
  set_time(time);
  ids.write(block_.data() + id_at_, time);
  // The first half of the trace id is the publisher's.
  auto* trace = block_.data() + trace_at_;
  write_hex(trace + std::string_view("00-0123456789abcdef").size(), traces() | 1U, 16);
  write_hex(trace + std::string_view("00-0123456789abcdef0123456789abcdef-").size(), traces() | 1U, 16);
  return Headers::from_block(block_);
}

}  // namespace maestro::messaging

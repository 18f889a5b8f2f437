#include "brokers/redis/entry.hpp"

#include <fmt/format.h>

#include <array>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <charconv>
#include <cstring>
#include <maestro/messaging/utf8.hpp>

#include "brokers/redis/base64.hpp"
#include "core/message_batch.hpp"

namespace maestro::messaging::redis {

namespace {

constexpr std::string_view payload_field = "payload";
constexpr std::string_view key_field = "key";
constexpr std::string_view time_field = "timestamp";
constexpr std::string_view escape = "header:";  // no header's own name has a colon

bool is_reserved(std::string_view name) {
  return name == payload_field || name == key_field || name == time_field;
}

constexpr unsigned number_bits = 22;
constexpr std::uint64_t most_number = (std::uint64_t{1} << number_bits) - 1;
constexpr std::uint64_t most_ms = std::uint64_t{1} << (63 - number_bits);

}  // namespace

std::string EntryId::to_string() const { return fmt::format("{}-{}", ms, number); }

std::int64_t EntryId::to_offset() const noexcept {
  return static_cast<std::int64_t>(std::min(ms, most_ms - 1) << number_bits | std::min(number, most_number));
}

EntryId EntryId::from_offset(std::int64_t offset) noexcept {
  const auto bits = static_cast<std::uint64_t>(std::max<std::int64_t>(offset, 0));
  return {bits >> number_bits, bits & most_number};
}

std::optional<EntryId> EntryId::parse(std::string_view text) noexcept {
  EntryId id;
  const auto* const end = text.data() + text.size();
  const auto [dash, error] = std::from_chars(text.data(), end, id.ms);
  if (error != std::errc{} || dash == end || *dash != '-') return std::nullopt;
  const auto [rest, second_error] = std::from_chars(dash + 1, end, id.number);
  if (second_error != std::errc{} || rest != end) return std::nullopt;
  return id;
}

std::optional<Entry> read_entry(const Value& value) noexcept {
  if (value.type != Value::Type::array || value.count != 2) return std::nullopt;
  const auto id = EntryId::parse(value.items()[0].text);
  if (!id) return std::nullopt;
  return Entry{*id, value.items()[0].text, &value.items()[1]};
}

namespace {

std::size_t words_of_fields(const OutgoingMessage& message) {
  return 2 + (message.key ? 2 : 0) + (message.timestamp ? 2 : 0) + 2 * message.headers.view().count();
}

void append_fields(std::string& to, const OutgoingMessage& message) {
  to += "$7\r\npayload\r\n";
  append_word(to, message.payload.view());
  if (message.key) {
    append_word(to, key_field);
    append_word(to, *message.key);
  }
  if (message.timestamp) {
    const auto ms = std::chrono::floor<std::chrono::milliseconds>(message.timestamp->time_since_epoch()).count();
    append_word(to, time_field);
    std::array<char, 24> digits{};
    append_word(to, {digits.data(), std::to_chars(digits.begin(), digits.end(), ms).ptr});
  }
  for (const auto& [name, value] : message.headers.view()) {
    append_word(to, is_reserved(name) ? std::string(escape).append(name) : name);
    append_word(to, value);
  }
}

}  // namespace

void append_add(std::string& to, const OutgoingMessage& message) {
  append_count(to, 3 + words_of_fields(message));
  to += "$4\r\nXADD\r\n";
  append_word(to, message.topic);
  to += "$1\r\n*\r\n";
  append_fields(to, message);
}

// The braces keep both keys on one node of a cluster.
std::string published_key(std::string_view topic, std::string_view id) {
  return fmt::format("maestro:published:{{{}}}:{}", topic, id);
}

void append_add_once(std::string& to, const OutgoingMessage& message, std::string_view id, std::string_view window_ms) {
  constexpr std::string_view script =
      "local there = redis.call('GET', KEYS[2]) if there then return there end "
      "local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2)) "
      "redis.call('SET', KEYS[2], id, 'PX', ARGV[1]) return id";
  append_count(to, 6 + words_of_fields(message));
  append_word(to, "EVAL");
  append_word(to, script);
  append_word(to, "2");
  append_word(to, message.topic);
  append_word(to, published_key(message.topic, id));
  append_word(to, window_ms);
  append_fields(to, message);
}

EntryBatch::EntryBatch(std::string_view topic, std::shared_ptr<const void> reply) : memory_(std::make_shared<Memory>()) {
  memory_->reply = std::move(reply);
  memory_->topic = topic;
}

void EntryBatch::add_header(std::string_view name, std::string_view value) {
  // What is no header's name (another program's, with a colon or a control character) is left out: nothing here could say it.
  Headers one;
  try {
    one.add(name, value);
  } catch (const MessagingError&) {
    return;
  }
  memory_->text += one.block();
}

void EntryBatch::add_foreign(Item& item, std::span<const Value> fields) {
  boost::json::object object;
  for (std::size_t i = 0; i + 1 < fields.size(); i += 2) {
    if (fields[i].type != Value::Type::text || fields[i + 1].type != Value::Type::text) continue;
    std::string name =
        is_utf8(fields[i].text) ? std::string(fields[i].text) : to_base64(fields[i].text) + "_name_base64";
    const bool is_text = is_utf8(fields[i + 1].text);
    if (!is_text) name += "_base64";
    const boost::json::string value(is_text ? fields[i + 1].text : to_base64(fields[i + 1].text));
    auto& there = object[name];
    if (there.is_null()) {
      there = value;
    } else if (auto* several = there.if_array()) {
      several->push_back(value);
    } else {
      there = boost::json::array{std::move(there), value};
    }
  }
  const auto text = boost::json::serialize(object);
  item.payload = Range{memory_->text.size(), text.size()};
  memory_->text += text;
}

void EntryBatch::add(const Entry& entry, DeliveryTag tag, std::uint32_t delivery_count) {
  auto& item = items_.emplace_back();
  auto& parts = item.parts;
  const auto fields = entry.fields->items();
  parts.timestamp = Timestamp(std::chrono::milliseconds(entry.id.ms));
  parts.position = {-1, entry.id.to_offset(), entry.id_text};
  parts.tag = tag;
  parts.delivery_count = delivery_count;
  bool has_payload = false;
  for (std::size_t i = 0; i + 1 < fields.size() && !has_payload; i += 2) has_payload = fields[i].text == payload_field;
  if (!has_payload) {
    add_foreign(item, fields);
    return;
  }
  item.headers.at = memory_->text.size();
  for (std::size_t i = 0; i + 1 < fields.size(); i += 2) {
    const auto name = fields[i].text;
    const auto value = fields[i + 1].text;
    if (name == payload_field) {
      parts.payload = value;
    } else if (name == key_field) {
      parts.key = value;
    } else if (name == time_field) {
      std::int64_t ms = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), ms);
      constexpr std::int64_t most = 9'000'000'000'000;  // beyond it nanoseconds do not fit
      if (error == std::errc{} && end == value.data() + value.size() && ms >= -most && ms <= most)
        parts.timestamp = Timestamp(std::chrono::milliseconds(ms));
    } else {
      add_header(name.starts_with(escape) ? name.substr(escape.size()) : name, value);
    }
  }
  item.headers.size = memory_->text.size() - item.headers.at;
}

void EntryBatch::take(std::vector<Message>& into) {
  const std::string_view text = memory_->text;
  std::vector<Message::Parts> batch;
  batch.reserve(items_.size());
  for (auto& item : items_) {
    item.parts.topic = memory_->topic;
    item.parts.headers = HeadersView(text.substr(item.headers.at, item.headers.size));
    if (item.payload) item.parts.payload = text.substr(item.payload->at, item.payload->size);
    item.parts.owner = memory_;
    batch.push_back(std::move(item.parts));
  }
  items_.clear();
  append_batch(into, std::move(batch));
}

}  // namespace maestro::messaging::redis

#include "brokers/redis/channel.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <maestro/messaging/utf8.hpp>

#include "brokers/redis/base64.hpp"
#include "brokers/redis/resp.hpp"
#include "core/message_batch.hpp"

namespace maestro::messaging::redis {

namespace json = boost::json;
namespace base64 = boost::beast::detail::base64;

namespace {

constexpr std::string_view beginning = R"({"maestro":1,)";

std::string in_envelope(const OutgoingMessage& message) {
  json::object fields;
  fields["maestro"] = 1;
  if (message.key) fields["key"] = *message.key;
  if (!message.headers.empty()) {
    json::array headers;
    for (const auto [name, value] : message.headers) headers.push_back(json::array{name, value});
    fields["headers"] = std::move(headers);
  }
  const auto payload = message.payload.view();
  if (is_utf8(payload)) {
    fields["payload"] = payload;
  } else {
    fields["payload_base64"] = to_base64(payload);
  }
  return json::serialize(fields);
}

std::string from_base64(std::string_view text) {
  std::string bytes(base64::decoded_size(text.size()), '\0');
  const auto [written, read] = base64::decode(bytes.data(), text.data(), text.size());
  const auto rest = text.substr(read);
  if (!std::ranges::all_of(rest, [](char c) { return c == '='; })) throw MessagingError(errc::undecodable, "payload_base64");
  bytes.resize(written);
  return bytes;
}

/// What the library puts into the headers of each event by itself; without them a message is what any other client's
/// is.
bool is_of_each_event(std::string_view header) {
  constexpr std::array names{"ce_specversion", "ce_id",        "ce_source",  "ce_type",
                             "ce_time",        "content-type", "traceparent"};
  return std::ranges::find(names, header) != names.end();
}

}  // namespace

std::string publish_to(std::string_view topic) {
  std::string command = "*3\r\n$7\r\nPUBLISH\r\n";
  append_word(command, topic);
  return command;
}

void append_publish(std::string& to, std::string_view beginning_of_command, const OutgoingMessage& message, bool envelope) {
  to += beginning_of_command;
  append_word(to, envelope ? in_envelope(message) : message.payload.view());
}

std::optional<std::string> lost_without_envelope(const OutgoingMessage& message) {
  if (message.key) return fmt::format("key \"{}\"", *message.key);
  const bool is_event = message.headers.find("ce_specversion").has_value();
  for (const auto [name, value] : message.headers)
    if (!is_event || !is_of_each_event(name)) return fmt::format("header \"{}\"", name);
  return std::nullopt;
}

std::string glob_of(std::string_view pattern) {
  std::string glob;
  for (const auto c : pattern) {
    if (c == '[' || c == ']' || c == '?' || c == '\\' || c == '^') glob += '\\';
    glob += c == '>' || c == '#' ? '*' : c;
  }
  return glob;
}

void ChannelBatch::add(std::string_view channel, std::string_view payload) {
  if (!text_) text_ = std::make_shared<std::string>();
  auto& item = items_.emplace_back(Item{text_->size(), channel.size(), payload.size(), nullptr});
  *text_ += channel;
  if (payload.starts_with(beginning)) item.envelope = open(payload);
  if (item.envelope) {
    item.payload_size = 0;
  } else {
    *text_ += payload;
  }
}

std::shared_ptr<const ChannelBatch::Envelope> ChannelBatch::open(std::string_view text) {
  try {
    const auto value = json::parse(text);
    const auto& fields = value.as_object();
    auto opened = std::make_shared<Envelope>();
    if (const auto* key = fields.if_contains("key")) opened->key = key->as_string();
    if (const auto* headers = fields.if_contains("headers"))
      for (const auto& each : headers->as_array())
        opened->headers.add(each.as_array().at(0).as_string(), each.as_array().at(1).as_string());
    if (const auto* payload = fields.if_contains("payload")) {
      opened->payload = payload->as_string();
    } else {
      opened->payload = from_base64(fields.at("payload_base64").as_string());
    }
    return opened;
  } catch (const std::exception&) {
    return nullptr;  // a payload that only looks like one
  }
}

void ChannelBatch::take(std::vector<Message>& into, std::uint64_t& number, Timestamp now) {
  const std::shared_ptr<const std::string> text = std::move(text_);
  std::vector<Message::Parts> batch;
  batch.reserve(items_.size());
  for (auto& item : items_) {
    auto& parts = batch.emplace_back();
    parts.topic = std::string_view(*text).substr(item.channel, item.channel_size);
    parts.payload = std::string_view(*text).substr(item.channel + item.channel_size, item.payload_size);
    parts.timestamp = now;
    parts.position.offset = static_cast<std::int64_t>(number++);
    parts.owner = text;
    if (item.envelope) {
      const auto owner = std::make_shared<std::pair<std::shared_ptr<const std::string>, std::shared_ptr<const Envelope>>>(text, item.envelope);
      parts.key = item.envelope->key;
      parts.headers = item.envelope->headers.view();
      parts.payload = item.envelope->payload;
      parts.owner = owner;
    }
  }
  items_.clear();
  append_batch(into, std::move(batch));
}

}  // namespace maestro::messaging::redis

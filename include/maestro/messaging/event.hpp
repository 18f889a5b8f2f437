#pragma once

#include <fmt/format.h>

#include <array>
#include <boost/json/serialize.hpp>
#include <maestro/messaging/message.hpp>
#include <optional>
#include <random>
#include <string>
#include <string_view>

namespace maestro::messaging {

/// What a handler gets: decoded data with its CloudEvents 1.0 attributes (binary content mode), read from the message's headers
/// on demand. A message without them is an event all the same: its id is the message's, its type and source are empty.
class Event {
 public:
  Event(Message&& message, Value&& data, int attempt = 1)
      : message_(std::move(message)), data_(std::move(data)), attempt_(attempt) {}

  [[nodiscard]] const Value& data() const noexcept { return data_; }
  /// A field of the data. Throws `MessagingError(invalid_event)` when the data is no object or lacks it.
  [[nodiscard]] const Value& operator[](std::string_view field) const;

  [[nodiscard]] std::string id() const { return message_.id(); }
  [[nodiscard]] std::string_view source() const noexcept { return text("ce_source"); }
  [[nodiscard]] std::string_view type() const noexcept { return text("ce_type"); }
  [[nodiscard]] std::string_view subject() const noexcept { return text("ce_subject"); }
  /// None where it is missing or not RFC 3339.
  [[nodiscard]] std::optional<Timestamp> time() const noexcept;
  [[nodiscard]] std::string_view content_type() const noexcept { return text("content-type"); }
  [[nodiscard]] std::string_view traceparent() const noexcept { return text("traceparent"); }
  [[nodiscard]] std::string_view tracestate() const noexcept { return text("tracestate"); }

  [[nodiscard]] const Message& message() const noexcept { return message_; }
  [[nodiscard]] std::string_view topic() const noexcept { return message_.topic(); }
  [[nodiscard]] std::optional<std::string_view> key() const noexcept { return message_.key(); }
  /// Which try of the handler this is, from 1.
  [[nodiscard]] int attempt() const noexcept { return attempt_; }

 private:
  [[nodiscard]] std::string_view text(std::string_view name) const noexcept { return message_.header(name).value_or(""); }

  Message message_;
  Value data_;
  int attempt_;
};

struct EventAttributes {
  std::optional<std::string> id = std::nullopt;
  std::optional<std::string> source = std::nullopt;
  std::optional<std::string> type = std::nullopt;
  std::optional<std::string> subject = std::nullopt;
  std::optional<Timestamp> time = std::nullopt;
};

/// Adds `ce_specversion` 1.0, the attributes that are set, and `content-type`.
void write_event_headers(Headers& headers, const EventAttributes& attributes, std::string_view content_type);

/// The type of an event whose publisher names none: the data's text field `event_type` or `type`, else the topic.
[[nodiscard]] std::string_view event_type_of(const Value& data, std::string_view topic) noexcept;

/// Ids that sort by time: UUID version 7 (RFC 9562), from a seed.
class IdGenerator {
 public:
  explicit IdGenerator(std::uint64_t seed) : random_(seed) {}
  std::string next(Timestamp now);
  /// The same into 36 characters at `to`.
  void write(char* to, Timestamp now);

 private:
  std::mt19937_64 random_;
  std::int64_t last_ms_ = -1;
  std::uint32_t counter_ = 0;
};

/// A new root of a trace, sampled (W3C Trace Context, `traceparent` version 00).
[[nodiscard]] std::array<char, 55> make_traceparent(std::mt19937_64& random);
/// Whether it is a well-formed `traceparent`: version 00, lower-case hex, ids that are not all zero.
[[nodiscard]] bool is_traceparent(std::string_view text) noexcept;

}  // namespace maestro::messaging

template <>
struct fmt::formatter<maestro::messaging::Event> : fmt::formatter<std::string> {
  template <class Context>
  auto format(const maestro::messaging::Event& event, Context& context) const {
    return fmt::formatter<std::string>::format(boost::json::serialize(event.data()), context);
  }
};

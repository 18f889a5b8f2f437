#pragma once

#include <boost/json/value.hpp>
#include <boost/system/error_code.hpp>
#include <cstdint>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/headers.hpp>
#include <maestro/messaging/payload.hpp>
#include <maestro/messaging/time.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace maestro::messaging {

using Value = boost::json::value;

/// Where a message stands on its broker. `partition` is -1 on brokers that have none; `offset` is -1 where positions
/// are not numbers, and `text` then has the broker's own form (a Redis id such as `1700000000000-0`).
struct Position {
  std::int32_t partition = -1;
  std::int64_t offset = -1;
  std::string_view text;

  [[nodiscard]] std::string to_string() const;
  /// `partition/offset`, or an offset alone, which is one of partition 0; none for anything else.
  [[nodiscard]] static std::optional<Position> parse(std::string_view text);
  friend bool operator==(const Position&, const Position&) = default;
};

/// What a transport needs to settle a delivery. Only the transport that made it can read it; within one `lane`
/// (a partition or a queue) `sequence` grows in the order of delivery.
struct DeliveryTag {
  std::uint64_t lane = 0;
  std::uint64_t sequence = 0;
  friend bool operator==(const DeliveryTag&, const DeliveryTag&) = default;
};

/// A message to be published.
struct OutgoingMessage {
  std::string topic;
  Payload payload;
  std::optional<std::string> key;
  Headers headers;
  /// Chosen by the key's hash when it is absent.
  std::optional<std::int32_t> partition;
  /// The broker's own time when it is absent.
  std::optional<Timestamp> timestamp;
};

/// What the broker said to a message that it took.
struct Receipt {
  std::string topic;
  std::int32_t partition = -1;
  std::int64_t offset = -1;
  /// The position in the broker's own form, where that is not a number.
  std::optional<std::string> position;
  std::optional<Timestamp> timestamp;
  /// False where the broker had nobody to give it to: no queue (RabbitMQ), no subscriber (Redis Pub/Sub).
  bool routed = true;
  /// False for a message that was only accepted into the buffer (`confirm = false`); the receipt says nothing else then.
  bool confirmed = true;
};

/// The outcome of one message of a batch: a receipt, or why there is none.
struct PublishResult {
  Receipt receipt;
  boost::system::error_code error;
  std::string detail;
  /// It failed of its topic alone, as far as the broker says: other topics need not suffer.
  bool is_of_topic = false;

  [[nodiscard]] bool ok() const noexcept { return !error; }
  /// The receipt. Throws `MessagingError` with `error` and `detail` where there is none.
  const Receipt& value() const;
};

/// A message that arrived. All text in it is a view into memory that the message keeps alive; copying it shares
/// that memory. Everything that came with its batch stays alive as long as any message of the batch. One that was moved from has
/// nothing in it.
class Message {
 public:
  struct Parts {
    std::string_view topic;
    std::optional<std::string_view> key;
    std::string_view payload;
    HeadersView headers;
    /// In place of `headers`, from a transport for which reading them costs something: asked with `headers_source` whenever they
    /// are wanted, from any thread. What it returns lives as long as the message.
    HeadersView (*read_headers)(const void* source) = nullptr;
    const void* headers_source = nullptr;
    Timestamp timestamp{};
    Position position;
    DeliveryTag tag;
    /// How often this message was handed out, this time included, where the broker counts; else 1.
    std::uint32_t delivery_count = 1;
    /// Of what the views look at; none where that is the owner of the parts too.
    std::shared_ptr<const void> owner;
  };

  Message() = default;
  /// One by itself.
  explicit Message(Parts&& parts) : parts_(std::make_shared<const Parts>(std::move(parts))) {}
  /// One of many that have their owner in common: two words, whatever is in it.
  explicit Message(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

  [[nodiscard]] std::string_view topic() const noexcept { return parts().topic; }
  [[nodiscard]] const std::optional<std::string_view>& key() const noexcept { return parts().key; }
  [[nodiscard]] HeadersView headers() const {
    return parts().read_headers ? parts().read_headers(parts().headers_source) : parts().headers;
  }
  [[nodiscard]] std::optional<std::string_view> header(std::string_view name) const { return headers().find(name); }
  [[nodiscard]] std::string_view body() const noexcept { return parts().payload; }
  /// The bytes, to be kept longer than the message.
  [[nodiscard]] Payload payload() const { return {parts().payload, parts_}; }
  [[nodiscard]] Timestamp timestamp() const noexcept { return parts().timestamp; }
  [[nodiscard]] const Position& position() const noexcept { return parts().position; }
  [[nodiscard]] DeliveryTag tag() const noexcept { return parts().tag; }
  [[nodiscard]] std::uint32_t delivery_count() const noexcept { return parts().delivery_count; }
  [[nodiscard]] bool redelivered() const noexcept { return parts().delivery_count > 1; }

  /// The message's identity: the header `ce_id`, else `message-id`, else `topic/partition/offset`, which stays the
  /// same when the message is delivered again.
  [[nodiscard]] std::string id() const;

  /// The payload as a JSON value. Throws `MessagingError(undecodable)` with the place of the first mistake.
  [[nodiscard]] Value value() const;

 private:
  static const Parts nothing;
  [[nodiscard]] const Parts& parts() const noexcept { return parts_ ? *parts_ : nothing; }

  std::shared_ptr<const Parts> parts_;
};

}  // namespace maestro::messaging

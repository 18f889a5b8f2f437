#pragma once

#include <maestro/messaging/message.hpp>
#include <string>

namespace maestro::messaging {

/// Turns data into the payload of an event and back. Used from one executor at a time.
class Serializer {
 public:
  virtual ~Serializer() = default;
  /// The header `content-type`.
  [[nodiscard]] virtual std::string content_type() const = 0;
  /// Throws `MessagingError(invalid_event)` when the data does not fit the format.
  [[nodiscard]] virtual Payload serialize(const Value& data) const = 0;
  /// Throws `MessagingError(undecodable)` that says where and why.
  [[nodiscard]] virtual Value deserialize(const Message& message) const = 0;
};

struct JsonLimits {
  std::size_t max_depth = 32;
  std::size_t max_bytes = 16 * 1024 * 1024;
};

/// JSON (RFC 8259), UTF-8 only, bounded in depth and size.
class JsonSerializer final : public Serializer {
 public:
  explicit JsonSerializer(JsonLimits limits = {}) : limits_(limits) {}

  [[nodiscard]] std::string content_type() const override { return "application/json"; }
  [[nodiscard]] Payload serialize(const Value& data) const override;
  [[nodiscard]] Value deserialize(const Message& message) const override;

 private:
  JsonLimits limits_;
};

}  // namespace maestro::messaging

#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace maestro::messaging {

/// The bytes of a message, and whoever owns them: the sender's text, a client library's message, a socket buffer.
/// Copying shares the bytes; they are never copied or changed.
class Payload {
 public:
  /// None at all, which is another than an empty one where the broker knows the difference: a tombstone on Kafka, that has a compacted
  /// topic forget the key.
  Payload() = default;

  /// Takes over the text.
  explicit Payload(std::string text) {
    auto kept = std::make_shared<const std::string>(std::move(text));
    bytes_ = *kept;
    owner_ = std::move(kept);
  }
  explicit Payload(const char* text) : Payload(std::string(text)) {}

  /// Refers to bytes that `owner` keeps alive.
  Payload(std::string_view bytes, std::shared_ptr<const void> owner) : bytes_(bytes), owner_(std::move(owner)) {}

  [[nodiscard]] std::string_view view() const noexcept { return bytes_; }
  [[nodiscard]] const char* data() const noexcept { return bytes_.data(); }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }
  [[nodiscard]] std::string to_string() const { return std::string(bytes_); }

  friend bool operator==(const Payload& a, const Payload& b) noexcept { return a.bytes_ == b.bytes_; }

 private:
  std::string_view bytes_;
  std::shared_ptr<const void> owner_;
};

}  // namespace maestro::messaging

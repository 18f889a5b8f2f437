#pragma once

#include <maestro/messaging/message.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace maestro::messaging::memory {

/// A stored message: views into its segment, or into a payload that is too large to be copied. Never moves and never
/// changes once it is in its segment.
struct Record {
  std::optional<std::string_view> key;
  std::string_view payload;
  HeadersView headers;
  Timestamp timestamp;
  Payload kept;
};

/// A run of consecutive records with the bytes that they refer to; deliveries keep their segment alive.
class Segment {
 public:
  static constexpr std::size_t capacity = 128;
  /// Payloads up to this size are copied, so that what a publisher allocated for one message is free at once; larger ones are
  /// kept by their owner.
  static constexpr std::size_t copied_bytes = 4096;

  Segment() { records.reserve(capacity); }

  [[nodiscard]] bool full() const noexcept { return records.size() == capacity; }
  void append(const OutgoingMessage& message, Timestamp timestamp);
  /// As new, but for the memory that it has.
  void clear() noexcept;

  std::int64_t base = 0;
  std::shared_ptr<const std::string> topic;
  std::vector<Record> records;
  std::int64_t bytes = 0;

 private:
  static constexpr std::size_t block_bytes = 16 * 1024;

  /// Room for so many bytes.
  char* room(std::size_t size);

  std::vector<std::unique_ptr<char[]>> blocks_;
  std::size_t block_ = 0;  ///< The one that is being filled,
  std::size_t used_ = 0;   ///< up to here.
};

/// Segments that nobody refers to any more, for whoever needs one next. Any thread.
class SegmentPool : public std::enable_shared_from_this<SegmentPool> {
 public:
  SegmentPool() { spare_.reserve(most_spare); }
  std::shared_ptr<Segment> make();

 private:
  static constexpr std::size_t most_spare = 64;

  void give_back(std::unique_ptr<Segment> segment) noexcept;

  std::mutex mutex_;
  std::vector<std::unique_ptr<Segment>> spare_;
};

}  // namespace maestro::messaging::memory

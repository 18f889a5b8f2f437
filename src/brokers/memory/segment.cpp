#include "brokers/memory/segment.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace maestro::messaging::memory {

void Segment::append(const OutgoingMessage& message, Timestamp timestamp) {
  auto& record = records.emplace_back();
  const std::string_view key = message.key ? std::string_view(*message.key) : std::string_view();
  const std::string_view headers = message.headers.block();
  const bool copies_payload = message.payload.size() <= copied_bytes;
  auto* to = room(key.size() + headers.size() + (copies_payload ? message.payload.size() : 0));
  const auto copy = [&to](std::string_view text) {
    if (!text.empty()) std::memcpy(to, text.data(), text.size());
    return std::string_view(std::exchange(to, to + text.size()), text.size());
  };
  if (message.key) record.key = copy(key);
  if (!headers.empty()) record.headers = HeadersView(copy(headers));
  record.timestamp = timestamp;
  if (copies_payload) {
    record.payload = copy(message.payload.view());
  } else {
    record.kept = message.payload;
    record.payload = record.kept.view();
  }
}

char* Segment::room(std::size_t size) {
  if (block_ == blocks_.size() || used_ + size > block_bytes) {
    if (block_ < blocks_.size()) ++block_;
    // More than a block holds (headers may be of any size) gets a block of its own.
    if (block_ == blocks_.size() || size > block_bytes)
      blocks_.insert(blocks_.begin() + static_cast<std::ptrdiff_t>(block_),
                     std::make_unique_for_overwrite<char[]>(std::max(block_bytes, size)));
    used_ = 0;
  }
  return blocks_[block_].get() + std::exchange(used_, used_ + size);
}

void Segment::clear() noexcept {
  records.clear();
  topic.reset();
  bytes = 0;
  block_ = used_ = 0;
  constexpr std::size_t most_blocks = 8;
  if (blocks_.size() > most_blocks) blocks_.resize(most_blocks);
}

std::shared_ptr<Segment> SegmentPool::make() {
  std::unique_ptr<Segment> segment;
  if (const std::lock_guard lock(mutex_); !spare_.empty()) {
    segment = std::move(spare_.back());
    spare_.pop_back();
  }
  if (!segment) segment = std::make_unique<Segment>();
  return {segment.release(), [pool = shared_from_this()](Segment* done) { pool->give_back(std::unique_ptr<Segment>(done)); }};
}

void SegmentPool::give_back(std::unique_ptr<Segment> segment) noexcept {
  segment->clear();
  const std::lock_guard lock(mutex_);
  if (spare_.size() < most_spare) spare_.push_back(std::move(segment));
}

}  // namespace maestro::messaging::memory

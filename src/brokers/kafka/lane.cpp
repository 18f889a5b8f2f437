#include "brokers/kafka/lane.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

namespace maestro::messaging::kafka {
namespace {

// The block of `HeadersView`, put together here because other programs may use names that `Headers::add` refuses.
std::string block_of(const rd_kafka_headers_t* headers) {
  std::string block;
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  for (std::size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; ++i) {
    if (!value) size = 0;
    const std::uint32_t lengths[2] = {static_cast<std::uint32_t>(std::strlen(name)), static_cast<std::uint32_t>(size)};
    block.append(reinterpret_cast<const char*>(lengths), sizeof lengths).append(name, lengths[0]);
    if (size > 0) block.append(static_cast<const char*>(value), size);
  }
  return block;
}

}  // namespace

Chunk::Chunk(std::shared_ptr<Client> from, std::deque<Fetched>& ready, std::uint64_t lane, std::size_t at_most,
             std::size_t at_most_bytes)
    : client_(std::move(from)), slots_(std::make_unique<Slot[]>(std::min(at_most, ready.size()))) {
  const std::string_view topic = rd_kafka_topic_name(ready.front()->rkt);
  const auto begin = ready.begin();
  auto end = begin;
  for (; size_ < at_most && end != ready.end(); ++end) {
    const auto& message = **end;
    const auto bytes = bytes_of(message);
    if (size_ > 0 && bytes_ + bytes > at_most_bytes) break;
    auto& slot = slots_[size_++];
    slot.message = *end;
    slot.chunk = this;
    auto& parts = slot.parts;
    parts.topic = topic;
    if (message.key) parts.key.emplace(static_cast<const char*>(message.key), message.key_len);
    parts.payload = {static_cast<const char*>(message.payload), message.len};
    parts.read_headers = headers_of;
    parts.headers_source = &slot;
    rd_kafka_timestamp_type_t kind = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    if (const auto at = rd_kafka_message_timestamp(&message, &kind); kind != RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
      parts.timestamp = Timestamp(std::chrono::milliseconds(at));
    parts.position = {message.partition, message.offset, {}};
    parts.tag = {lane, static_cast<std::uint64_t>(message.offset)};
    bytes_ += bytes;
  }
  ready.erase(begin, end);
  client_->handed_out() += bytes_;
}

Chunk::~Chunk() {
  client_->handed_out() -= bytes_;
  std::array<Fetched, capacity> messages;
  for (std::size_t i = 0; i < size_; ++i) {
    delete slots_[i].headers.load(std::memory_order_relaxed);
    messages[i] = slots_[i].message;
  }
  client_->give_back(std::span(messages).first(size_), bytes_);
}

std::optional<std::size_t> Chunk::find(std::int64_t offset) const {
  const std::span slots(slots_.get(), size_);
  const auto at = std::ranges::lower_bound(slots, offset, {}, [](const Slot& slot) { return slot.message->offset; });
  if (at == slots.end() || at->message->offset != offset) return std::nullopt;
  return static_cast<std::size_t>(at - slots.begin());
}

HeadersView Chunk::headers_of(const void* source) {
  auto& slot = *const_cast<Slot*>(static_cast<const Slot*>(source));
  auto* block = slot.headers.load(std::memory_order_acquire);
  if (block) return HeadersView(*block);
  const std::lock_guard lock(slot.chunk->reading_);
  block = slot.headers.load(std::memory_order_relaxed);
  if (!block) {
    rd_kafka_headers_t* headers = nullptr;
    const bool any = rd_kafka_message_headers(slot.message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR;
    block = new std::string(any ? block_of(headers) : std::string());
    slot.headers.store(block, std::memory_order_release);
  }
  return HeadersView(*block);
}

void Chunk::append_to(std::vector<Message>& into, const std::shared_ptr<Chunk>& chunk) {
  for (const auto& slot : std::span(chunk->slots_.get(), chunk->size_))
    into.emplace_back(std::shared_ptr<const Message::Parts>(chunk, &slot.parts));
}

Message Chunk::again(const std::shared_ptr<Chunk>& chunk, std::size_t index, std::uint32_t delivery_count) {
  auto parts = chunk->slots_[index].parts;
  parts.delivery_count = delivery_count;
  parts.owner = chunk;
  return Message(std::move(parts));
}

}  // namespace maestro::messaging::kafka

#pragma once

#include <atomic>
#include <deque>
#include <maestro/messaging/message.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "brokers/kafka/client.hpp"
#include "brokers/kafka/landmark.hpp"
#include "brokers/kafka/offsets.hpp"

namespace maestro::messaging::kafka {

using Fetched = rd_kafka_message_t*;

/// What librdkafka keeps beside each message.
constexpr std::size_t librdkafkas_own = 384;

/// The memory that it holds, with what librdkafka keeps beside it.
[[nodiscard]] inline std::size_t bytes_of(const rd_kafka_message_t& message) {
  return message.len + message.key_len + librdkafkas_own;
}

/// Messages that were handed out together; the owner of their bytes. Their headers are read when they are wanted: librdkafka
/// allocates for that, also where there are none.
class Chunk {
 public:
  static constexpr std::size_t capacity = 128;
  /// They are freed together, so that they are no more than this where one is not more by itself.
  static constexpr std::size_t most_bytes = 1'048'576;

  /// Takes the first messages of the queue: one, and more of them while they are within both limits.
  Chunk(std::shared_ptr<Client> from, std::deque<Fetched>& ready, std::uint64_t lane, std::size_t at_most, std::size_t at_most_bytes);
  ~Chunk();
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] const rd_kafka_message_t& last() const { return *slots_[size_ - 1].message; }
  /// The index of the message with this offset.
  [[nodiscard]] std::optional<std::size_t> find(std::int64_t offset) const;
  /// All of them as the library's own, each of which keeps the chunk.
  static void append_to(std::vector<Message>& into, const std::shared_ptr<Chunk>& chunk);
  /// One of them, handed out anew.
  [[nodiscard]] static Message again(const std::shared_ptr<Chunk>& chunk, std::size_t index, std::uint32_t delivery_count);

 private:
  struct Slot {
    Message::Parts parts;
    Fetched message = nullptr;
    Chunk* chunk = nullptr;
    std::atomic<const std::string*> headers = nullptr;
  };
  static HeadersView headers_of(const void* slot);

  std::shared_ptr<Client> client_;  // outlives its messages
  std::unique_ptr<Slot[]> slots_;
  std::size_t size_ = 0;
  std::size_t bytes_ = 0;
  std::mutex reading_;  // librdkafka reads the headers of a message once, and keeps them
};

/// One partition for as long as it is assigned to us (or until its place is moved). Its id is the `lane` of delivery tags, so that
/// an acknowledgement from an earlier assignment finds nothing.
struct Lane {
  Lane(std::uint64_t number, std::string name, std::int32_t index, Offsets begin)
      : id(number), topic(std::move(name)), partition(index), offsets(begin) {}
  ~Lane() { drop_ready(); }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  void drop_ready() {
    for (auto* each : ready) rd_kafka_message_destroy(each);
    ready.clear();
    offsets.drop_ready();
  }

  std::uint64_t id;
  std::string topic;
  std::int32_t partition;
  Offsets offsets;
  std::deque<Fetched> ready;
  struct HandedOut {
    std::weak_ptr<Chunk> chunk;  // whoever gives a message back has it
    std::size_t messages;
    Landmark last;
  };
  std::deque<HandedOut> handed_out;  // until settled, for `release`
  std::size_t unsettled = 0;         // messages in `handed_out`
  void forget_first() {
    unsettled -= handed_out.front().messages;
    handed_out.pop_front();
  }
  std::map<std::int64_t, std::uint32_t> redeliveries;
  Landmark landmark;    // of the last chunk that is settled, or what the group had with its place
  Landmark last_taken;  // at first the landmark: reading begins there
  /// The last one that came.
  [[nodiscard]] Landmark last() const { return ready.empty() ? last_taken : Landmark(*ready.back()); }
  /// Whether the partition's log is the one that `last` came from. While that is not known, what comes is not kept, and
  /// no place is committed without a landmark.
  enum class Log : char { known, doubted, other };
  Log log = Log::known;
  TimePoint doubted_until{};
  std::uint64_t doubted_in = 0;  // the batch of messages that was in hand
  bool goes_back = false;                                // its place is before the one that the group has committed
  std::int64_t stored = -1;                              // the place that librdkafka will commit
  bool in_transactions = false;                          // its places are committed by transactions alone
  /// There is a place to commit.
  [[nodiscard]] bool is_dirty() const {
    if (log == Log::other || (log == Log::doubted && !landmark.known())) return false;
    return in_transactions ? offsets.has_settled_more() : offsets.is_dirty();
  }
  bool draining = false;                                 // it goes to another member when all is settled
};

}  // namespace maestro::messaging::kafka

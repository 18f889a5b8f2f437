#pragma once

#include <librdkafka/rdkafka.h>

#include <cstdint>
#include <vector>

namespace maestro::messaging::kafka {

/// Which partition of a topic the messages without a key go to: those that are given together to one, the one with the fewest of
/// them under way (KIP-480, KIP-794). A partition with nothing under way takes a request at once; behind a request the client would
/// look again and again whether the next may go (`max.in.flight` of an idempotent producer is one a partition). Keys go where Java's
/// clients send them.
class Spread {
 public:
  /// Has a client's topics ask whoever is `Asking`.
  static void install(rd_kafka_conf_t* properties);

  /// While it lives, a message without a key that this thread gives to no partition in particular makes the choice.
  class Asking {
   public:
    explicit Asking(Spread* spread) noexcept;
    ~Asking();
    Asking(const Asking&) = delete;
    Asking& operator=(const Asking&) = delete;
  };

  /// The next message chooses.
  void choose_again() noexcept { choice_ = RD_KAFKA_PARTITION_UA; }
  /// `RD_KAFKA_PARTITION_UA` until one was chosen; also as long as the client does not know the topic's partitions.
  [[nodiscard]] std::int32_t choice() const noexcept { return choice_; }
  /// A message was given to the choice.
  void add() noexcept { ++under_way_[static_cast<std::size_t>(choice_)]; }
  /// One was answered.
  void remove(std::int32_t partition) noexcept;

 private:
  static std::int32_t partition_of(const rd_kafka_topic_t* topic, const void* key, std::size_t key_size, std::int32_t partitions,
                                   void* topic_opaque, void* opaque);
  std::int32_t choose(const rd_kafka_topic_t* topic, std::int32_t partitions);

  std::vector<std::uint32_t> under_way_;  // of each partition
  std::int32_t choice_ = RD_KAFKA_PARTITION_UA;
  std::int32_t last_ = -1;
};

}  // namespace maestro::messaging::kafka

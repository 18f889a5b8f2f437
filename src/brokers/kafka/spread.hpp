#pragma once

#include <librdkafka/rdkafka.h>

#include <cstdint>
#include <maestro/messaging/time.hpp>
#include <random>
#include <vector>

#include "brokers/kafka/openings.hpp"

namespace maestro::messaging::kafka {

/// Which partition of a topic the messages without a key go to: those that are given together to one, any of those with the fewest of
/// them under way (KIP-480, KIP-794). A partition with nothing under way takes a request at once; behind a request the client would
/// look again and again whether the next may go (`max.in.flight` of an idempotent producer is one a partition). Keys go where Java's
/// clients send them.
class Spread {
 public:
  /// Has a client's topics ask whoever is `Asking`.
  static void install(rd_kafka_conf_t* properties);

  /// While it lives, a message that this thread gives to no partition in particular tells how many there are, and one without a
  /// key makes the choice, unless `spread` is null.
  class Asking {
   public:
    Asking(Spread* spread, Openings& openings) noexcept;
    ~Asking();
    Asking(const Asking&) = delete;
    Asking& operator=(const Asking&) = delete;
  };

  /// Chooses for what is given next. Which partitions are available only the client's partitioner learns: now and then, and as long as
  /// the client does not know the topic, the choice is left to the next message.
  void choose(TimePoint now);
  /// `RD_KAFKA_PARTITION_UA` when that is so.
  [[nodiscard]] std::int32_t choice() const noexcept { return choice_; }
  /// What comes next belongs to what was given before.
  void stay() noexcept { stays_ = true; }
  /// What was learnt about the topic may be wrong.
  void forget() noexcept {
    available_.clear();
    stays_ = false;
  }
  /// A message of so many bytes was given to the choice.
  void add(std::size_t bytes) noexcept {
    ++under_way_[static_cast<std::size_t>(choice_)];
    ++messages_since_choice_;
    bytes_since_choice_ += bytes;
  }
  /// The choice has been given as much as makes a request, and the next messages are for another one.
  [[nodiscard]] bool has_given_enough() const noexcept {
    constexpr std::size_t enough_messages = 4096;
    return messages_since_choice_ >= enough_messages || bytes_since_choice_ >= enough_bytes;
  }
  static constexpr std::size_t enough_bytes = 1'000'000;
  /// One was answered.
  void remove(std::int32_t partition) noexcept;

 private:
  static std::int32_t partition_of(const rd_kafka_topic_t* topic, const void* key, std::size_t key_size, std::int32_t partitions,
                                   void* topic_opaque, void* opaque);
  std::int32_t learn(const rd_kafka_topic_t* topic, std::int32_t partitions, const Openings& openings);
  [[nodiscard]] std::int32_t least_busy();

  std::vector<bool> available_;  // each partition; empty: not known
  std::vector<std::uint32_t> under_way_;
  TimePoint learnt_;
  std::minstd_rand random_{std::random_device{}()};
  std::int32_t choice_ = RD_KAFKA_PARTITION_UA;
  bool stays_ = false;
  std::size_t messages_since_choice_ = 0;
  std::size_t bytes_since_choice_ = 0;
};

}  // namespace maestro::messaging::kafka

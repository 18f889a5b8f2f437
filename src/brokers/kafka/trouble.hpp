#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brokers/kafka/handles.hpp"

namespace maestro::messaging::kafka {

/// What befell a partition, and librdkafka deals with by itself: no event tells of it, only a line of its log.
struct Trouble {
  enum class Kind {
    out_of_range,  ///< the position is not in the partition's log; librdkafka has chosen another one
    unknown_topic  ///< the broker does not know the topic, or knows another one by its name: it may have been deleted
  };
  std::string topic;
  std::optional<std::int32_t> partition;  ///< none: all of them
  Kind kind = Kind::out_of_range;
};

/// Reads a line of librdkafka's log. Most lines tell of no trouble.
[[nodiscard]] std::optional<Trouble> trouble_of(std::string_view facility, std::string_view text);

/// How many partitions this member has given out as the leader of its group, where a line of the log tells.
[[nodiscard]] std::optional<std::int32_t> given_out(std::string_view facility, std::string_view text);

/// Whether this member waits to join its group, where a line of the log tells that this has changed.
[[nodiscard]] std::optional<bool> joining(std::string_view facility, std::string_view text);

/// What each broker offers when a connection to it is made, gathered from the lines of the log: nothing else tells how
/// old a broker is.
class Offers {
 public:
  /// The address of a broker that is older than 2.8, with the line that ends what it offers.
  [[nodiscard]] std::optional<std::string> read(std::string_view text);

 private:
  struct Offer {
    bool leader_and_isr = false;
    bool describe_cluster = false;
  };
  std::map<std::string, Offer, std::less<>> open_;
};

/// What OpenSSL has against a certificate, by its number, and what to do about it.
[[nodiscard]] std::string_view certificate_trouble(int x509_error);

/// Where the threads of librdkafka leave it for the executor.
class Troubles {
 public:
  void note(Trouble trouble);
  [[nodiscard]] bool any() const { return any_.load(std::memory_order_acquire); }
  [[nodiscard]] std::vector<Trouble> take();

  void note_offer(std::string_view text);
  /// The address of a broker that is older than 2.8; empty when none was met.
  [[nodiscard]] std::string too_old();

  void note_given_out(std::int32_t partitions) { given_out_.store(partitions, std::memory_order_release); }
  /// The last time, if there was one since it was asked.
  [[nodiscard]] std::optional<std::int32_t> take_given_out() {
    const auto partitions = given_out_.exchange(none, std::memory_order_acquire);
    return partitions == none ? std::nullopt : std::optional(partitions);
  }

  void note_joining(bool is_joining) { joining_.store(is_joining, std::memory_order_release); }
  /// A broker answers one request after another, and the one to join when all members have made theirs: what the member asks of its
  /// coordinator meanwhile is answered after that, by another generation of the group.
  [[nodiscard]] bool is_joining() const { return joining_.load(std::memory_order_acquire); }

  /// A message that was not delivered, of a client whose messages stand and fall together.
  struct Undelivered {
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
    std::string topic;
    bool has_partition = false;  ///< That the sender chose.
  };
  void note_undelivered(Undelivered undelivered);
  /// The first since it was asked: the others may have failed with it.
  [[nodiscard]] std::optional<Undelivered> take_undelivered();

  void note_certificate(int x509_error) { certificate_.store(x509_error, std::memory_order_relaxed); }
  /// What was against the last certificate that was refused; 0 when none was.
  [[nodiscard]] int certificate() const { return certificate_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> any_ = false;
  static constexpr std::int32_t none = -1;
  std::atomic<std::int32_t> given_out_ = none;
  std::atomic<bool> joining_ = false;
  std::atomic<int> certificate_ = 0;
  std::mutex mutex_;
  std::vector<Trouble> noted_;
  Offers offers_;
  std::optional<Undelivered> undelivered_;
  std::string too_old_;
};

}  // namespace maestro::messaging::kafka

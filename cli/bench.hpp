#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <maestro/messaging/broker.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace maestro::cli {

struct BenchArguments {
  std::uint64_t messages = 100'000;
  std::size_t size = 256;
  std::string mode = "throughput";
  double rate = 1000;
  std::int64_t work_ns = 0;
  std::string topic = "bench";
  std::optional<int> partitions;
  std::size_t batch = 500;
  std::size_t in_flight = 4;
  double timeout = 10;
};

/// What became of each sequence number, and how long things took.
class BenchRecord {
 public:
  explicit BenchRecord(std::uint64_t messages)
      : confirmed_(messages), given_up_(messages), received_(messages), messages_(messages) {}

  void confirm(std::uint64_t sequence) { confirmed_[sequence] = true; }
  /// Surely not published, or with `outcome_unknown` perhaps.
  void fail(std::uint64_t sequence, const boost::system::error_code& error, const std::string& detail);
  /// False for what is none of this run's.
  bool receive(std::string_view payload);

  [[nodiscard]] std::uint64_t messages() const noexcept { return messages_; }
  [[nodiscard]] std::uint64_t distinct() const noexcept { return distinct_; }
  [[nodiscard]] std::uint64_t failed() const noexcept { return failed_; }
  /// Published perhaps: the broker never said so.
  [[nodiscard]] std::uint64_t unknown() const noexcept { return unknown_; }
  /// Whether all has come that is still to be waited for.
  [[nodiscard]] bool complete() const noexcept { return accounted_ == messages_; }
  [[nodiscard]] std::uint64_t duplicated() const noexcept { return duplicated_; }
  /// Confirmed by the broker, and never received.
  [[nodiscard]] std::uint64_t lost() const;
  [[nodiscard]] const std::string& first_failure() const noexcept { return first_failure_; }
  [[nodiscard]] const std::string& first_doubt() const noexcept { return first_doubt_; }
  void add_latency(messaging::Duration latency) { latencies_.push_back(latency.count()); }
  /// In milliseconds; none when nothing was measured. `part` 0.5 is the median.
  [[nodiscard]] std::optional<double> percentile_ms(double part);

  double publish_seconds = 0;
  double consume_seconds = 0;
  std::optional<double> first_delivery_ms;
  std::string latency_of;

 private:
  std::vector<bool> confirmed_;
  std::vector<bool> given_up_;
  std::vector<bool> received_;
  std::vector<std::int64_t> latencies_;
  std::uint64_t messages_;
  std::uint64_t distinct_ = 0;
  std::uint64_t duplicated_ = 0;
  std::uint64_t failed_ = 0;
  std::uint64_t unknown_ = 0;
  std::uint64_t accounted_ = 0;  ///< Received, or not to be waited for.
  std::string first_failure_;
  std::string first_doubt_;
};

/// What a payload begins with; the rest, up to its size, is filling. All of it is in this machine's byte order.
struct BenchStamp {
  std::uint64_t sequence = 0;
  std::int64_t sent_ns = 0;
};
inline constexpr std::size_t least_bench_size = sizeof(BenchStamp);

/// `count` messages from `first` on, in one block of memory that they share.
[[nodiscard]] std::vector<messaging::OutgoingMessage> bench_messages(const std::string& topic, std::uint64_t first,
                                                                     std::size_t count, std::size_t size,
                                                                     messaging::TimePoint now);
[[nodiscard]] BenchStamp read_stamp(std::string_view payload);

[[nodiscard]] boost::json::object bench_report(const BenchArguments& arguments, const std::string& broker,
                                               BenchRecord& record);

}  // namespace maestro::cli

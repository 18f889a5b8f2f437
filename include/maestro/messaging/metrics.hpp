#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <maestro/messaging/time.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace maestro::messaging {

/// Counts up. Any thread, a few nanoseconds.
class Counter {
 public:
  void add(std::uint64_t n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

class Gauge {
 public:
  void set(double value) noexcept { value_.store(value, std::memory_order_relaxed); }
  void add(double n) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  [[nodiscard]] double value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

/// Durations in buckets of 50 µs to 60 s.
class Histogram {
 public:
  static constexpr std::array<double, 19> bounds{0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                 0.1,     0.25,   0.5,     1,      2.5,   5,      10,    30,   60};

  void observe(Duration duration) noexcept;
  /// Observations in bucket `i` alone; the last one is what is over every bound.
  [[nodiscard]] std::uint64_t bucket(std::size_t i) const noexcept { return buckets_[i].load(std::memory_order_relaxed); }
  [[nodiscard]] double sum_seconds() const noexcept {
    return static_cast<double>(nanoseconds_.load(std::memory_order_relaxed)) / 1e9;
  }

 private:
  std::array<std::atomic<std::uint64_t>, bounds.size() + 1> buckets_{};
  std::atomic<std::int64_t> nanoseconds_{0};
};

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

/// The library's metrics. Look a cell up once and keep it: it stays valid as long as the registry. Each family has a bounded
/// number of series; what comes after counts into one whose labels are all `other`, and a warning says so once.
class MetricsRegistry {
 public:
  static constexpr std::size_t series_limit = 10'000;

  MetricsRegistry();
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  /// Throws `MessagingError(invalid_argument)` for a family that is not the library's, of another kind, or with other labels.
  Counter& counter(const std::string& family, const MetricLabels& labels);
  Gauge& gauge(const std::string& family, const MetricLabels& labels);
  Histogram& histogram(const std::string& family, const MetricLabels& labels);

  /// Everything in the text format that Prometheus scrapes (version 0.0.4).
  [[nodiscard]] std::string expose() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Where brokers with `enable_monitoring` count: one for the process.
const std::shared_ptr<MetricsRegistry>& metrics_registry();

}  // namespace maestro::messaging

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <maestro/messaging/time.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace maestro::messaging {

/// Counts up. Any thread, a few nanoseconds, no lock.
class Counter {
 public:
  void add(std::uint64_t n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  /// The same for a cell into which nobody else counts at the same time (`MetricsRegistry::own_counter`), in a fraction of the time.
  void add_alone(std::uint64_t n = 1) noexcept { value_.store(value() + n, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// Goes up and down. Any thread, a few nanoseconds, no lock.
class Gauge {
 public:
  void set(double value) noexcept { value_.store(value, std::memory_order_relaxed); }
  void add(double n) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  /// As `Counter::add_alone`.
  void add_alone(double n) noexcept { value_.store(value() + n, std::memory_order_relaxed); }
  [[nodiscard]] double value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

/// Counts durations in buckets of 50 µs to 60 s. Any thread, a few nanoseconds, no lock.
class Histogram {
 public:
  /// A bucket holds what is at most its bound, and more than the bound before.
  static constexpr std::array<Duration, 19> bounds{
      std::chrono::microseconds(50),  std::chrono::microseconds(100), std::chrono::microseconds(250),
      std::chrono::microseconds(500), std::chrono::milliseconds(1),   std::chrono::microseconds(2500),
      std::chrono::milliseconds(5),   std::chrono::milliseconds(10),  std::chrono::milliseconds(25),
      std::chrono::milliseconds(50),  std::chrono::milliseconds(100), std::chrono::milliseconds(250),
      std::chrono::milliseconds(500), std::chrono::seconds(1),        std::chrono::milliseconds(2500),
      std::chrono::seconds(5),        std::chrono::seconds(10),       std::chrono::seconds(30),
      std::chrono::seconds(60)};

  /// A negative duration counts as zero.
  void observe(Duration duration) noexcept;
  /// As `Counter::add_alone`; `times` observations of the same duration.
  void observe_alone(Duration duration, std::uint64_t times = 1) noexcept;
  /// Adds all that another one has observed.
  void add(const Histogram& other) noexcept;
  /// Observations in bucket `i` alone (not those below it); `i == bounds.size()` is what is over every bound.
  [[nodiscard]] std::uint64_t bucket(std::size_t i) const noexcept {
    return buckets_[i].load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t count() const noexcept;
  /// Starts again from zero after 584 years of observed time, which Prometheus takes for a restart.
  [[nodiscard]] double sum_seconds() const noexcept;

 private:
  [[nodiscard]] static std::size_t bucket_of(Duration duration) noexcept;

  std::array<std::atomic<std::uint64_t>, bounds.size() + 1> buckets_{};
  std::atomic<std::uint64_t> nanoseconds_{0};
};

/// Label names and their values, in the order of the family.
using MetricLabels = std::vector<std::pair<std::string, std::string>>;

/// The library's metrics, for Prometheus. Looking a cell up by name and labels takes a lock: do it once and keep the
/// reference, which stays valid as long as the registry. All functions may be called from any thread.
///
/// The families are fixed (`messaging_messages_published_total` and so on; `docs/metrics.md` lists them). Each has a
/// bounded number of series: what comes after the limit counts into one series whose label values are all `other`, and
/// one warning a family is logged. Label values that are not UTF-8 have the malformed bytes replaced by U+FFFD.
class MetricsRegistry {
 public:
  static constexpr std::size_t series_limit = 10'000;

  /// `limit`: the most series that a family may have, `other` not counted.
  explicit MetricsRegistry(std::size_t limit = series_limit);
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  /// Throw `MessagingError(invalid_argument)` for a family that does not exist or is of another kind, and for labels
  /// that are not exactly the family's.
  Counter& counter(const std::string& family, const MetricLabels& labels);
  Gauge& gauge(const std::string& family, const MetricLabels& labels);
  Histogram& histogram(const std::string& family, const MetricLabels& labels);

  /// A cell of the caller's own, for one thread at a time (`add_alone`, `observe_alone`). `expose()` adds it to its series, which keeps
  /// what it counted when it is let go.
  std::shared_ptr<Counter> own_counter(const std::string& family, const MetricLabels& labels);
  std::shared_ptr<Gauge> own_gauge(const std::string& family, const MetricLabels& labels);
  std::shared_ptr<Histogram> own_histogram(const std::string& family, const MetricLabels& labels);

  /// Every family that has a series, in Prometheus' text format 0.0.4.
  [[nodiscard]] std::string expose() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The process's registry, into which brokers with `enable_monitoring` count.
std::shared_ptr<MetricsRegistry> metrics_registry();

}  // namespace maestro::messaging

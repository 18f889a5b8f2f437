#include <fmt/format.h>
#include <fmt/ranges.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/metrics.hpp>
#include <maestro/messaging/utf8.hpp>
#include <map>
#include <mutex>
#include <string_view>
#include <variant>

#include "observability/metric_families.hpp"

namespace maestro::messaging {
namespace {

using Values = std::vector<std::string>;

void add_to(Counter& total, const Counter& part) { total.add(part.value()); }
void add_to(Gauge& total, const Gauge& part) { total.add(part.value()); }
void add_to(Histogram& total, const Histogram& part) { total.add(part); }

// Lines of its own for each: threads that count into two of them do not slow each other down.
template <class Cell>
struct alignas(64) Lines {
  Cell cell;
};

template <class Cell>
struct Cells {
  Lines<Cell> shared;
  std::vector<std::shared_ptr<Cell>> own;  // of those who count alone

  std::shared_ptr<Cell> add_own() {
    fold();
    auto lines = std::make_shared<Lines<Cell>>();
    auto* cell = &lines->cell;
    return own.emplace_back(std::move(lines), cell);
  }
  /// What was let go is added for good.
  void fold() {
    std::erase_if(own, [this](const auto& cell) {
      if (cell.use_count() > 1) return false;
      std::atomic_thread_fence(std::memory_order_acquire);
      add_to(shared.cell, *cell);
      return true;
    });
  }
  void sum_into(Cell& sum) const {
    add_to(sum, shared.cell);
    for (const auto& cell : own) add_to(sum, *cell);
  }
};

struct Series {
  Values values;
  std::variant<std::monostate, Cells<Counter>, Cells<Gauge>, Cells<Histogram>> cells;
};

/// A series as it stands at one moment.
struct Reading {
  const Values* values;
  std::uint64_t count = 0;
  double gauge = 0;
  std::unique_ptr<Histogram> histogram;
};

Reading read(const Series& series) {
  Reading reading{&series.values};
  if (const auto* counter = std::get_if<Cells<Counter>>(&series.cells)) {
    Counter sum;
    counter->sum_into(sum);
    reading.count = sum.value();
  } else if (const auto* gauge = std::get_if<Cells<Gauge>>(&series.cells)) {
    Gauge sum;
    gauge->sum_into(sum);
    reading.gauge = sum.value();
  } else if (const auto* histogram = std::get_if<Cells<Histogram>>(&series.cells)) {
    reading.histogram = std::make_unique<Histogram>();
    histogram->sum_into(*reading.histogram);
  }
  return reading;
}

struct Family {
  const MetricFamilySpec* spec = nullptr;
  std::deque<Series> series;  // a deque, because cells may never move
  std::map<Values, Series*> by_values;
  bool full = false;
};

prometheus::MetricType prometheus_type(MetricKind kind) {
  switch (kind) {
    case MetricKind::counter:
      return prometheus::MetricType::Counter;
    case MetricKind::gauge:
      return prometheus::MetricType::Gauge;
    case MetricKind::histogram:
      break;
  }
  return prometheus::MetricType::Histogram;
}

double seconds(Duration duration) {
  return static_cast<double>(duration.count()) / 1e9;
}

prometheus::ClientMetric collect(const MetricFamilySpec& spec, const Reading& reading) {
  prometheus::ClientMetric metric;
  for (std::size_t i = 0; i < reading.values->size(); ++i)
    metric.label.push_back({std::string(spec.labels[i]), (*reading.values)[i]});
  metric.counter.value = static_cast<double>(reading.count);
  metric.gauge.value = reading.gauge;
  if (reading.histogram) {
    std::uint64_t total = 0;
    for (std::size_t i = 0; i <= Histogram::bounds.size(); ++i) {
      total += reading.histogram->bucket(i);
      const bool bounded = i < Histogram::bounds.size();
      metric.histogram.bucket.push_back(
          {total, bounded ? seconds(Histogram::bounds[i]) : std::numeric_limits<double>::infinity()});
    }
    metric.histogram.sample_count = total;
    metric.histogram.sample_sum = reading.histogram->sum_seconds();
  }
  return metric;
}

std::string label_value(std::string_view raw) {
  auto text = to_utf8(raw);
  // Prometheus' own parser takes a NUL for the end of the whole exposition.
  for (auto at = text.find('\0'); at != std::string::npos; at = text.find('\0', at))
    text.replace(at, 1, "\xEF\xBF\xBD");
  return text;
}

Values values_of(const MetricFamilySpec& spec, const MetricLabels& labels) {
  if (std::ranges::equal(labels, spec.labels, {}, &MetricLabels::value_type::first)) {
    Values values;
    values.reserve(labels.size());
    for (const auto& label : labels) values.push_back(label_value(label.second));
    return values;
  }
  std::vector<std::string_view> given;
  for (const auto& label : labels) given.emplace_back(label.first);
  throw MessagingError(errc::invalid_argument,
                       fmt::format("metric \"{}\": its labels are {}; given were [{}]", spec.name,
                                   fmt::join(spec.labels, ", "), fmt::join(given, ", ")));
}

}  // namespace

std::size_t Histogram::bucket_of(Duration duration) noexcept {
  if (duration <= bounds[0]) return 0;
  return static_cast<std::size_t>(std::ranges::lower_bound(bounds, duration) - bounds.begin());
}

void Histogram::observe(Duration duration) noexcept {
  duration = std::max(duration, Duration::zero());
  buckets_[bucket_of(duration)].fetch_add(1, std::memory_order_relaxed);
  nanoseconds_.fetch_add(static_cast<std::uint64_t>(duration.count()), std::memory_order_relaxed);
}

void Histogram::observe_alone(Duration duration, std::uint64_t times) noexcept {
  duration = std::max(duration, Duration::zero());
  const auto add = [](std::atomic<std::uint64_t>& to, std::uint64_t n) {
    to.store(to.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  };
  add(buckets_[bucket_of(duration)], times);
  add(nanoseconds_, times * static_cast<std::uint64_t>(duration.count()));
}

void Histogram::add(const Histogram& other) noexcept {
  for (std::size_t i = 0; i < buckets_.size(); ++i)
    if (const auto n = other.bucket(i)) buckets_[i].fetch_add(n, std::memory_order_relaxed);
  nanoseconds_.fetch_add(other.nanoseconds_.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

std::uint64_t Histogram::count() const noexcept {
  std::uint64_t total = 0;
  for (const auto& bucket : buckets_) total += bucket.load(std::memory_order_relaxed);
  return total;
}

double Histogram::sum_seconds() const noexcept {
  return static_cast<double>(nanoseconds_.load(std::memory_order_relaxed)) / 1e9;
}

struct MetricsRegistry::State {
  explicit State(std::size_t most) : limit(most) {
    for (const auto& spec : metric_families()) families[spec.name].spec = &spec;
  }

  Family& family(const std::string& name, MetricKind kind) {
    const auto found = families.find(name);
    if (found == families.end()) {
      std::vector<std::string_view> known;
      for (const auto& entry : families) known.push_back(entry.first);
      throw MessagingError(errc::invalid_argument,
                           fmt::format("metric \"{}\" does not exist; there are {}", name, fmt::join(known, ", ")));
    }
    const auto actual = found->second.spec->kind;
    if (actual != kind)
      throw MessagingError(errc::invalid_argument, fmt::format("metric \"{}\" is a {}; it was asked for as a {}", name,
                                                               metric_kind_name(actual), metric_kind_name(kind)));
    return found->second;
  }

  /// What `take` takes of the series' cells, under the lock.
  template <class Cell, class Take>
  auto find(const std::string& name, MetricKind kind, const MetricLabels& labels, Take take) {
    auto& asked = family(name, kind);  // the table never changes: no lock
    auto values = values_of(*asked.spec, labels);
    bool warn = false;
    std::invoke_result_t<Take, Cells<Cell>&> taken;
    {
      const std::lock_guard lock(mutex);
      auto known = asked.by_values.find(values);
      if (known == asked.by_values.end() && asked.by_values.size() >= limit) {
        warn = !std::exchange(asked.full, true);
        values.assign(values.size(), "other");
        known = asked.by_values.find(values);
      }
      if (known == asked.by_values.end()) {
        auto& series = asked.series.emplace_back();
        series.values = values;
        series.cells.template emplace<Cells<Cell>>();
        known = asked.by_values.emplace(std::move(values), &series).first;
      }
      taken = take(std::get<Cells<Cell>>(known->second->cells));
    }
    // Without the lock: the sink may itself count.
    if (warn)
      log(LogLevel::warning, "a metric has too many series; further ones are counted as \"other\"",
          {{"metric", name}, {"series_limit", std::to_string(limit)}});
    return taken;
  }

  template <class Cell>
  Cell& shared(const std::string& name, MetricKind kind, const MetricLabels& labels) {
    return *find<Cell>(name, kind, labels, [](Cells<Cell>& cells) { return &cells.shared.cell; });
  }
  template <class Cell>
  std::shared_ptr<Cell> own(const std::string& name, MetricKind kind, const MetricLabels& labels) {
    return find<Cell>(name, kind, labels, [](Cells<Cell>& cells) { return cells.add_own(); });
  }

  const std::size_t limit;
  std::mutex mutex;  // for what is inside the families
  std::map<std::string_view, Family> families;
};

MetricsRegistry::MetricsRegistry(std::size_t limit) : state_(std::make_unique<State>(limit)) {}
MetricsRegistry::~MetricsRegistry() = default;

Counter& MetricsRegistry::counter(const std::string& family, const MetricLabels& labels) {
  return state_->shared<Counter>(family, MetricKind::counter, labels);
}

Gauge& MetricsRegistry::gauge(const std::string& family, const MetricLabels& labels) {
  return state_->shared<Gauge>(family, MetricKind::gauge, labels);
}

Histogram& MetricsRegistry::histogram(const std::string& family, const MetricLabels& labels) {
  return state_->shared<Histogram>(family, MetricKind::histogram, labels);
}

std::shared_ptr<Counter> MetricsRegistry::own_counter(const std::string& family, const MetricLabels& labels) {
  return state_->own<Counter>(family, MetricKind::counter, labels);
}

std::shared_ptr<Gauge> MetricsRegistry::own_gauge(const std::string& family, const MetricLabels& labels) {
  return state_->own<Gauge>(family, MetricKind::gauge, labels);
}

std::shared_ptr<Histogram> MetricsRegistry::own_histogram(const std::string& family, const MetricLabels& labels) {
  return state_->own<Histogram>(family, MetricKind::histogram, labels);
}

std::string MetricsRegistry::expose() const {
  // Only the numbers are taken under the lock: a long exposition must not hold up who looks a cell up.
  std::vector<std::pair<const MetricFamilySpec*, std::vector<Reading>>> found;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& [name, family] : state_->families) {
      if (family.series.empty()) continue;
      auto& readings = found.emplace_back(family.spec, std::vector<Reading>()).second;
      readings.reserve(family.series.size());
      for (const auto& series : family.series) readings.push_back(read(series));
    }
  }
  std::vector<prometheus::MetricFamily> collected;
  for (const auto& [spec, readings] : found) {
    auto& family = collected.emplace_back();
    family.name = spec->name;
    family.help = spec->help;
    family.type = prometheus_type(spec->kind);
    family.metric.reserve(readings.size());
    for (const auto& reading : readings) family.metric.push_back(collect(*spec, reading));
  }
  return prometheus::TextSerializer().Serialize(collected);
}

std::shared_ptr<MetricsRegistry> metrics_registry() {
  // Never destroyed: whoever counts while the process ends finds it.
  static const auto* registry = new std::shared_ptr<MetricsRegistry>(std::make_shared<MetricsRegistry>());
  return *registry;
}

}  // namespace maestro::messaging

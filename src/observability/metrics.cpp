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
#include <variant>

namespace maestro::messaging {
namespace {

struct FamilySpec {
  std::string_view name;
  prometheus::MetricType type;
  std::string_view help;
  std::vector<std::string_view> labels;
};

const std::vector<FamilySpec>& families() {
  using prometheus::MetricType;
  static const std::vector<FamilySpec> table{
      {"messaging_messages_published_total", MetricType::Counter, "Messages published, by outcome.", {"broker", "topic", "status"}},
      {"messaging_messages_consumed_total", MetricType::Counter, "Messages consumed, by what became of them.",
       {"broker", "topic", "group", "status"}},
      {"messaging_message_processing_duration_seconds", MetricType::Histogram, "Time in handlers.", {"broker", "topic", "group"}},
      {"messaging_errors_total", MetricType::Counter, "Errors, by what was attempted.", {"broker", "operation", "error"}},
      {"messaging_broker_health", MetricType::Gauge, "1 when the broker answers and subscriptions make progress.", {"broker"}},
      {"messaging_publish_duration_seconds", MetricType::Histogram, "Time from publish to the broker's answer.",
       {"broker", "topic"}},
      {"messaging_consumer_lag", MetricType::Gauge, "Messages that a group has not settled.",
       {"broker", "topic", "group", "partition"}},
      {"messaging_in_flight", MetricType::Gauge, "Messages in handlers now.", {"broker", "topic", "group"}},
      {"messaging_retries_total", MetricType::Counter, "Tries after the first.", {"broker", "topic", "group"}},
      {"messaging_dead_letters_total", MetricType::Counter, "Messages dead-lettered, by reason.",
       {"broker", "topic", "group", "reason"}},
      {"messaging_circuit_state", MetricType::Gauge, "0 closed, 1 open, 2 half open.", {"broker", "operation"}},
      {"messaging_reconnects_total", MetricType::Counter, "Connections made anew.", {"broker"}},
      {"messaging_duplicates_total", MetricType::Counter, "Messages settled without the handler, for their id was done.",
       {"broker", "topic", "group"}},
  };
  return table;
}

using Cell = std::variant<std::monostate, Counter, Gauge, Histogram>;

struct Series {
  std::vector<std::string> values;
  Cell cell;
};

struct Family {
  const FamilySpec* spec = nullptr;
  std::deque<Series> series;  // cells never move
  std::map<std::vector<std::string>, Series*> by_values;
};

prometheus::ClientMetric collect(const FamilySpec& spec, const Series& series) {
  prometheus::ClientMetric metric;
  for (std::size_t i = 0; i < series.values.size(); ++i)
    metric.label.push_back({std::string(spec.labels[i]), series.values[i]});
  if (const auto* counter = std::get_if<Counter>(&series.cell)) metric.counter.value = static_cast<double>(counter->value());
  if (const auto* gauge = std::get_if<Gauge>(&series.cell)) metric.gauge.value = gauge->value();
  if (const auto* histogram = std::get_if<Histogram>(&series.cell)) {
    std::uint64_t total = 0;
    for (std::size_t i = 0; i <= Histogram::bounds.size(); ++i) {
      total += histogram->bucket(i);
      const auto bound = i < Histogram::bounds.size() ? Histogram::bounds[i] : std::numeric_limits<double>::infinity();
      metric.histogram.bucket.push_back({total, bound});
    }
    metric.histogram.sample_count = total;
    metric.histogram.sample_sum = histogram->sum_seconds();
  }
  return metric;
}

}  // namespace

void Histogram::observe(Duration duration) noexcept {
  const auto seconds = static_cast<double>(duration.count()) / 1e9;
  const auto index = static_cast<std::size_t>(std::ranges::lower_bound(bounds, seconds) - bounds.begin());
  buckets_[index].fetch_add(1, std::memory_order_relaxed);
  nanoseconds_.fetch_add(duration.count(), std::memory_order_relaxed);
}

struct MetricsRegistry::State {
  mutable std::mutex mutex;
  std::map<std::string, Family, std::less<>> families;

  template <class Kind>
  Kind& find(const std::string& name, prometheus::MetricType type, const MetricLabels& labels) {
    const std::lock_guard lock(mutex);
    const auto found = families.find(name);
    if (found == families.end() || found->second.spec->type != type)
      throw MessagingError(errc::invalid_argument, fmt::format("metric \"{}\": no such family of this kind", name));
    auto& family = found->second;
    std::vector<std::string> values;
    bool same = labels.size() == family.spec->labels.size();
    for (std::size_t i = 0; same && i < labels.size(); ++i) {
      same = labels[i].first == family.spec->labels[i];
      values.push_back(to_utf8(labels[i].second));
    }
    if (!same)
      throw MessagingError(errc::invalid_argument,
                           fmt::format("metric \"{}\": its labels are {}", name, fmt::join(family.spec->labels, ", ")));
    if (const auto known = family.by_values.find(values); known != family.by_values.end())
      return std::get<Kind>(known->second->cell);
    if (family.series.size() >= series_limit) {
      values.assign(values.size(), "other");
      if (const auto other = family.by_values.find(values); other != family.by_values.end())
        return std::get<Kind>(other->second->cell);
      log(LogLevel::warning, "too many series; further ones count as \"other\"", {{"metric", name}});
    }
    auto& series = family.series.emplace_back();
    series.values = values;
    series.cell.template emplace<Kind>();
    family.by_values.emplace(std::move(values), &series);
    return std::get<Kind>(series.cell);
  }
};

MetricsRegistry::MetricsRegistry() : state_(std::make_unique<State>()) {
  for (const auto& spec : families()) state_->families[std::string(spec.name)].spec = &spec;
}

MetricsRegistry::~MetricsRegistry() = default;

Counter& MetricsRegistry::counter(const std::string& family, const MetricLabels& labels) {
  return state_->find<Counter>(family, prometheus::MetricType::Counter, labels);
}

Gauge& MetricsRegistry::gauge(const std::string& family, const MetricLabels& labels) {
  return state_->find<Gauge>(family, prometheus::MetricType::Gauge, labels);
}

Histogram& MetricsRegistry::histogram(const std::string& family, const MetricLabels& labels) {
  return state_->find<Histogram>(family, prometheus::MetricType::Histogram, labels);
}

std::string MetricsRegistry::expose() const {
  std::vector<prometheus::MetricFamily> collected;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& [name, family] : state_->families) {
      if (family.series.empty()) continue;
      prometheus::MetricFamily out{name, std::string(family.spec->help), family.spec->type, {}};
      for (const auto& series : family.series) out.metric.push_back(collect(*family.spec, series));
      collected.push_back(std::move(out));
    }
  }
  return prometheus::TextSerializer().Serialize(collected);
}

const std::shared_ptr<MetricsRegistry>& metrics_registry() {
  static const auto registry = std::make_shared<MetricsRegistry>();
  return registry;
}

}  // namespace maestro::messaging

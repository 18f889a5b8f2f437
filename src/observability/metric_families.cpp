#include "observability/metric_families.hpp"

namespace maestro::messaging {

std::span<const MetricFamilySpec> metric_families() {
  using enum MetricKind;
  static const std::vector<MetricFamilySpec> table{
      {"messaging_messages_published_total", counter, "Messages published, by outcome.", {"broker", "topic", "status"}},
      {"messaging_messages_consumed_total",
       counter,
       "Messages consumed, by what became of them.",
       {"broker", "topic", "group", "status"}},
      {"messaging_message_processing_duration_seconds",
       histogram,
       "Time that handlers took.",
       {"broker", "topic", "group"}},
      {"messaging_errors_total", counter, "Errors, by what was attempted.", {"broker", "operation", "error"}},
      {"messaging_broker_health", gauge, "1 when the broker answers and subscriptions make progress.", {"broker"}},
      {"messaging_publish_duration_seconds",
       histogram,
       "Time from a publish to the broker's answer.",
       {"broker", "topic"}},
      {"messaging_consumer_lag",
       gauge,
       "Messages that the group has not settled.",
       {"broker", "topic", "group", "partition"}},
      {"messaging_in_flight", gauge, "Messages in handlers now.", {"broker", "topic", "group"}},
      {"messaging_retries_total", counter, "Tries after the first.", {"broker", "topic", "group"}},
      {"messaging_dead_letters_total",
       counter,
       "Messages dead-lettered, by reason.",
       {"broker", "topic", "group", "reason"}},
      {"messaging_circuit_state", gauge, "0 closed, 1 open, 2 half open.", {"broker", "operation"}},
      {"messaging_reconnects_total", counter, "Connections made anew.", {"broker"}},
      {"messaging_pool_connections", gauge, "Connections of the pool that are open.", {"broker"}},
      {"messaging_pool_size", gauge, "Connections that the pool may open.", {"broker"}},
      {"messaging_pool_outstanding", gauge, "Commands on the pool's connections without an answer.", {"broker"}},
      {"messaging_pool_closed_total", counter, "Connections of the pool that were closed, by reason.", {"broker", "reason"}},
      {"messaging_duplicates_total",
       counter,
       "Messages settled without the handler, because their id was done.",
       {"broker", "topic", "group"}},
  };
  return table;
}

std::string_view metric_kind_name(MetricKind kind) noexcept {
  switch (kind) {
    case MetricKind::counter:
      return "counter";
    case MetricKind::gauge:
      return "gauge";
    case MetricKind::histogram:
      break;
  }
  return "histogram";
}

}  // namespace maestro::messaging

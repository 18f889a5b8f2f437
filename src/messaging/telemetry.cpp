#include "messaging/telemetry.hpp"

namespace maestro::messaging {

Telemetry::Telemetry(std::shared_ptr<MetricsRegistry> registry, std::string broker)
    : registry_(std::move(registry)), broker_(std::move(broker)) {
  // There from the beginning, with 0, and as they are where another broker counts into the same.
  reconnects();
  circuit_gauge("publish");
}

MetricLabels Telemetry::published_labels(const std::string& topic, const char* status) const {
  return {{"broker", broker_}, {"topic", topic}, {"status", status}};
}

Counter& Telemetry::published(const std::string& topic, const char* status) {
  return registry_->counter("messaging_messages_published_total", published_labels(topic, status));
}

TopicTelemetry Telemetry::topic(const std::string& name) {
  TopicTelemetry cells;
  cells.published = registry_->own_counter("messaging_messages_published_total", published_labels(name, "ok"));
  cells.failed = &published(name, "failed");
  cells.unknown = &published(name, "unknown");
  cells.publish_duration =
      registry_->own_histogram("messaging_publish_duration_seconds", {{"broker", broker_}, {"topic", name}});
  return cells;
}

ConsumeTelemetry Telemetry::consumer(const std::string& topic, const std::string& group) {
  const auto consumed = "messaging_messages_consumed_total";
  const auto with = [&](const char* status) -> MetricLabels {
    return {{"broker", broker_}, {"topic", topic}, {"group", group}, {"status", status}};
  };
  const MetricLabels labels{{"broker", broker_}, {"topic", topic}, {"group", group}};
  ConsumeTelemetry cells;
  cells.received = registry_->own_counter(consumed, with("received"));
  cells.handled = registry_->own_counter(consumed, with("handled"));
  cells.failed = &registry_->counter(consumed, with("failed"));
  cells.dead_lettered = &registry_->counter(consumed, with("dead_lettered"));
  cells.duplicate = &registry_->counter("messaging_duplicates_total", labels);
  cells.retries = &registry_->counter("messaging_retries_total", labels);
  cells.processing = registry_->own_histogram("messaging_message_processing_duration_seconds", labels);
  cells.in_flight = registry_->own_gauge("messaging_in_flight", labels);
  return cells;
}

void Telemetry::error(const std::string& operation, const boost::system::error_code& code) {
  error(operation, std::string(code.category() == messaging_category() ? errc_name(static_cast<errc>(code.value())) : "other"));
}

void Telemetry::error(const std::string& operation, const std::string& name) {
  registry_->counter("messaging_errors_total", {{"broker", broker_}, {"operation", operation}, {"error", name}}).add();
}

void Telemetry::dead_letter(const std::string& topic, const std::string& group, const std::string& reason) {
  registry_
      ->counter("messaging_dead_letters_total",
                {{"broker", broker_}, {"topic", topic}, {"group", group}, {"reason", reason}})
      .add();
}

void Telemetry::health(bool healthy) {
  registry_->gauge("messaging_broker_health", {{"broker", broker_}}).set(healthy ? 1 : 0);
}

TransportReports Telemetry::reports(std::shared_ptr<Telemetry> telemetry) {
  TransportReports reports;
  reports.reconnected = [telemetry] { telemetry->reconnects().add(); };
  reports.failed = [telemetry](const std::string& operation, const std::string& error) { telemetry->error(operation, error); };
  reports.pool = [telemetry](const PoolFigures& figures) {
    const auto set = [&](const char* family, std::size_t value) {
      telemetry->registry_->gauge(family, {{"broker", telemetry->broker_}}).set(static_cast<double>(value));
    };
    set("messaging_pool_connections", figures.open);
    set("messaging_pool_size", figures.size);
    set("messaging_pool_outstanding", figures.outstanding);
  };
  reports.pool_closed = [telemetry](const std::string& reason) {
    telemetry->registry_->counter("messaging_pool_closed_total", {{"broker", telemetry->broker_}, {"reason", reason}}).add();
  };
  return reports;
}

Counter& Telemetry::reconnects() {
  return registry_->counter("messaging_reconnects_total", {{"broker", broker_}});
}

Gauge& Telemetry::circuit_gauge(const std::string& operation) {
  return registry_->gauge("messaging_circuit_state", {{"broker", broker_}, {"operation", operation}});
}

void Telemetry::lag(const std::string& topic, const std::string& group, int partition, double value) {
  registry_
      ->gauge("messaging_consumer_lag",
              {{"broker", broker_}, {"topic", topic}, {"group", group}, {"partition", std::to_string(partition)}})
      .set(value);
}

}  // namespace maestro::messaging

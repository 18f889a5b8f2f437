#pragma once

#include <maestro/messaging/error.hpp>
#include <maestro/messaging/metrics.hpp>
#include <maestro/messaging/transport.hpp>
#include <memory>
#include <string>

namespace maestro::messaging {

/// The cells of one topic on the publishing side; null without monitoring. Looked up once. Those that each message counts into are the
/// broker's own.
struct TopicTelemetry {
  std::shared_ptr<Counter> published;
  Counter* failed = nullptr;
  Counter* unknown = nullptr;
  Counter* unrouted = nullptr;  // looked up when there is one, for most brokers keep every message
  bool unrouted_logged = false;
  std::shared_ptr<Histogram> publish_duration;
};

/// The cells of one subscription on the consuming side.
struct ConsumeTelemetry {
  std::shared_ptr<Counter> handled;
  Counter* failed = nullptr;
  Counter* dead_lettered = nullptr;
  Counter* duplicate = nullptr;
  std::shared_ptr<Counter> received;
  Counter* retries = nullptr;
  std::shared_ptr<Histogram> processing;
  std::shared_ptr<Gauge> in_flight;
};

/// One broker's share of the process's metrics.
class Telemetry {
 public:
  Telemetry(std::shared_ptr<MetricsRegistry> registry, std::string broker);

  [[nodiscard]] TopicTelemetry topic(const std::string& name);
  [[nodiscard]] Counter& published(const std::string& topic, const char* status);
  [[nodiscard]] ConsumeTelemetry consumer(const std::string& topic, const std::string& group);
  void error(const std::string& operation, const boost::system::error_code& code);
  void error(const std::string& operation, const std::string& name);
  void dead_letter(const std::string& topic, const std::string& group, const std::string& reason);
  void health(bool healthy);
  /// What a transport is to report.
  [[nodiscard]] static TransportReports reports(std::shared_ptr<Telemetry> telemetry);
  void circuit(const std::string& operation, int state) { circuit_gauge(operation).set(state); }
  /// Made with 0 where they are not there yet.
  Counter& reconnects();
  Gauge& circuit_gauge(const std::string& operation);
  void lag(const std::string& topic, const std::string& group, int partition, double value);

 private:
  [[nodiscard]] MetricLabels published_labels(const std::string& topic, const char* status) const;

  std::shared_ptr<MetricsRegistry> registry_;
  std::string broker_;
};

}  // namespace maestro::messaging

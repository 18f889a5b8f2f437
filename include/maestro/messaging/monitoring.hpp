#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <maestro/messaging/metrics.hpp>
#include <memory>
#include <string>
#include <vector>

namespace maestro::messaging {

struct ReadinessReport {
  /// What is not ready, in words; empty when all is.
  std::vector<std::string> not_ready;
};

struct MonitoringOptions {
  std::string address = "127.0.0.1";  ///< Loopback unless told otherwise.
  std::uint16_t port = 9464;          ///< 0: any free one.
  std::shared_ptr<MetricsRegistry> metrics = nullptr;  ///< Default: the process's.
  std::size_t max_connections = 64;   ///< Further ones are closed at once.
  Duration request_timeout = std::chrono::seconds(10);  ///< For a whole request, and between two on one connection.
};

/// An HTTP endpoint: `/metrics` for Prometheus; `/livez` (and `/healthz`), that this process turns its loop; `/readyz`, that
/// everything which was registered is ready, or else what is not. A sick broker never makes a healthy process look dead.
class MonitoringServer {
 public:
  MonitoringServer(boost::asio::any_io_executor executor, MonitoringOptions options = {});
  ~MonitoringServer();

  /// Binds the port. Throws `MessagingError(connection_failed)` that names address and port.
  void listen();
  [[nodiscard]] std::uint16_t port() const;
  /// Serves until it is cancelled or `stop()` is called; listens first if need be.
  boost::asio::awaitable<void> run();
  void stop();

  /// Asked at each `/readyz`. One that throws is not ready, under its name.
  void add_readiness(std::string name, std::function<boost::asio::awaitable<ReadinessReport>()> check);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace maestro::messaging

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <maestro/messaging/metrics.hpp>
#include <maestro/messaging/time.hpp>
#include <memory>
#include <string>
#include <vector>

namespace maestro::messaging {

struct ReadinessReport {
  /// What is not ready, one sentence each; anything in here counts as not ready, whatever `ready` says.
  std::vector<std::string> not_ready = {};
  bool ready = true;
};

struct MonitoringOptions {
  /// An IP address. Loopback unless told otherwise: there is no authentication.
  std::string address = "127.0.0.1";
  std::uint16_t port = 9464;                           ///< 0: any free one; `port()` says which.
  std::shared_ptr<MetricsRegistry> metrics = nullptr;  ///< Null: the process's, `metrics_registry()`.
  std::size_t max_connections = 64;                    ///< Further ones are closed at once. At least 1.
  Duration request_timeout =
      std::chrono::seconds(10);            ///< To send a whole request, to take a whole answer, and to idle.
  std::shared_ptr<Clock> clock = nullptr;  ///< For readiness checks. Null: the machine's.
};

/// An HTTP endpoint for Prometheus and for orchestrators:
///
/// * `/metrics`: the registry in text format 0.0.4.
/// * `/livez` and `/healthz`: 200 as long as this process turns its loop. A sick broker never makes it look dead.
/// * `/readyz`: 200 when every readiness check says so, else 503 with
/// `{"ready":false,"not_ready":[{"name","reason"}…]}`.
///
/// GET and HEAD, without a body, with a header of at most 8 KiB; connections are kept alive. Everything of it runs on a
/// strand of the executor, which must outlive it. A scrape of thousands of series takes milliseconds of that executor:
/// where that matters, give the server one with a thread of its own.
class MonitoringServer {
 public:
  /// How long a readiness check may take; one that takes longer counts as not ready.
  static constexpr Duration readiness_timeout = std::chrono::seconds(2);

  /// Throws `MessagingError(invalid_argument)` for options that are out of range.
  explicit MonitoringServer(boost::asio::any_io_executor executor, MonitoringOptions options = {});
  /// Stops it.
  ~MonitoringServer();
  MonitoringServer(const MonitoringServer&) = delete;
  MonitoringServer& operator=(const MonitoringServer&) = delete;

  /// Binds the port; does nothing when it is bound already. To be called before `run()`, which does it by itself
  /// otherwise. Throws `MessagingError` naming address, port and what to change: `cannot_listen` when the port is
  /// in use, needs more rights, or the address is not one of this machine; `closed` after `stop()`.
  void listen();
  /// The port that is bound; 0 before `listen()`. Any thread.
  [[nodiscard]] std::uint16_t port() const noexcept;

  /// Serves until `stop()` is called or it is cancelled, and returns normally in both cases, with every connection
  /// closed; after that it does not run again. Throws what `listen()` throws, and `already_started` when it is running.
  boost::asio::awaitable<void> run();
  /// For good: closes the port and every connection. Any thread; takes effect when the executor comes to it.
  void stop();

  /// Called for `/readyz`, at most once at a time, on the server's strand; several requests share one call. A check
  /// that throws, or does not answer within `readiness_timeout`, is not ready under its name; in the latter case it is
  /// cancelled. It must own what it uses: it may be running still when it is removed or the server stops (both cancel
  /// it). A check of the same name is replaced. Any thread. Throws `MessagingError(invalid_argument)` when name or
  /// check is empty.
  void add_readiness(std::string name, std::function<boost::asio::awaitable<ReadinessReport>()> check);
  /// Does nothing when there is none of this name. Any thread.
  void remove_readiness(const std::string& name);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace maestro::messaging

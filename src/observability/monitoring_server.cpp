#include <fmt/format.h>

#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/monitoring.hpp>
#include <set>

#include "observability/http_endpoint.hpp"
#include "observability/readiness.hpp"

namespace maestro::messaging {

namespace asio = boost::asio;
namespace beast = boost::beast;
using asio::ip::tcp;

namespace {

constexpr Duration accept_pause = std::chrono::seconds(1);

MonitoringOptions checked(MonitoringOptions options) {
  if (options.max_connections == 0)
    throw MessagingError(errc::invalid_argument,
                         "the monitoring endpoint's max_connections is 0; at least 1 is needed");
  if (options.request_timeout <= Duration::zero())
    throw MessagingError(errc::invalid_argument,
                         fmt::format("the monitoring endpoint's request_timeout is {} ms; it must be over 0",
                                     std::chrono::duration<double, std::milli>(options.request_timeout).count()));
  if (!options.metrics) options.metrics = metrics_registry();
  if (!options.clock) options.clock = Clock::real();
  return options;
}

[[noreturn]] void fail_to_listen(const MonitoringOptions& options, const boost::system::error_code& error) {
  const bool v6 = options.address.find(':') != std::string::npos;
  auto text = fmt::format("the monitoring endpoint cannot listen on {}:{}: {}",
                          v6 ? '[' + options.address + ']' : options.address, options.port, error.message());
  if (error == asio::error::address_in_use) {
    text += "; stop what uses the port, choose another one, or 0 for any free one";
  } else if (error == asio::error::access_denied) {
    text += "; ports below 1024 need more rights, choose a higher one";
  } else if (error == boost::system::errc::address_not_available || error == asio::error::invalid_argument ||
             error == asio::error::address_family_not_supported) {
    text += "; an IP address of this machine is allowed, as 127.0.0.1 or 0.0.0.0";
  }
  throw MessagingError(errc::cannot_listen, text);
}

}  // namespace

struct MonitoringServer::State : std::enable_shared_from_this<MonitoringServer::State> {
  State(asio::any_io_executor executor, MonitoringOptions given)
      : options(checked(std::move(given))),
        strand(asio::make_strand(std::move(executor))),
        acceptor(strand),
        readiness(std::make_shared<Readiness>(strand, options.clock, readiness_timeout)) {}

  void listen() {
    if (stopped) throw MessagingError(errc::closed, "the monitoring endpoint was stopped; make a new one");
    if (acceptor.is_open()) return;
    boost::system::error_code error;
    const auto address = asio::ip::make_address(options.address, error);
    if (error) fail_to_listen(options, error);
    const tcp::endpoint endpoint(address, options.port);
    tcp::acceptor opened(strand);
    opened.open(endpoint.protocol(), error);
    if (!error) opened.set_option(tcp::acceptor::reuse_address(true), error);  // restart beside the old one's TIME_WAIT
    if (!error) opened.bind(endpoint, error);
    if (!error) opened.listen(asio::socket_base::max_listen_connections, error);
    if (error) fail_to_listen(options, error);
    port = opened.local_endpoint().port();
    acceptor = std::move(opened);
  }

  static asio::awaitable<void> run(std::shared_ptr<State> self) {
    if (self->stopped) co_return;
    if (self->running.exchange(true))
      throw MessagingError(errc::already_started, fmt::format("the monitoring endpoint on port {}", self->port.load()));
    const std::shared_ptr<void> ended(nullptr, [self](void*) { self->running = false; });
    self->listen();
    co_await asio::co_spawn(self->strand, serve_all(self), asio::use_awaitable);
  }

  static asio::awaitable<void> serve_all(std::shared_ptr<State> self) {
    std::exception_ptr failure;
    try {
      co_await accept_all(self);
    } catch (...) {
      failure = std::current_exception();
    }
    // Not by a guard: when the whole context is destroyed, nothing of it may be touched any more.
    self->close();
    if (failure) std::rethrow_exception(failure);
  }

  static asio::awaitable<void> accept_all(std::shared_ptr<State> self) {
    const auto timer = self->options.clock->make_timer(self->strand);
    while (!self->stopped) {
      auto [error, socket] = co_await self->acceptor.async_accept(asio::as_tuple(asio::use_awaitable));
      if (!error) {
        self->admit(std::move(socket));
        continue;
      }
      if (error == asio::error::operation_aborted || !self->acceptor.is_open()) co_return;
      if (error == asio::error::connection_aborted) continue;  // the client's trouble, not ours
      log(LogLevel::warning, "the monitoring endpoint cannot accept a connection",
          {{"port", std::to_string(self->port)}, {"error", error.message()}});
      // Out of descriptors or memory: it would fail again at once.
      timer->expires_at(self->options.clock->now() + accept_pause);
      auto initiate = [&timer](auto handler) { timer->async_wait(std::move(handler)); };
      auto token = asio::as_tuple(asio::use_awaitable);
      auto waited =
          co_await asio::async_initiate<decltype(token), void(boost::system::error_code)>(std::move(initiate), token);
      if (std::get<0>(waited)) co_return;
    }
  }

  void admit(tcp::socket socket) {
    if (connections.size() >= options.max_connections) {
      if (!std::exchange(full, true))
        log(LogLevel::warning, "the monitoring endpoint closes connections over its limit",
            {{"port", std::to_string(port)}, {"max_connections", std::to_string(options.max_connections)}});
      return;
    }
    full = false;
    auto stream = std::make_shared<beast::tcp_stream>(std::move(socket));
    connections.insert(stream);
    asio::co_spawn(strand, serve({options.metrics, readiness, options.request_timeout}, stream),
                   [self = shared_from_this(), stream](const std::exception_ptr& failure) {
                     self->connections.erase(stream);
                     stream->close();
                     if (failure) report(failure);
                   });
  }

  static void report(const std::exception_ptr& failure) {
    std::string text = "not a std::exception";
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      text = error.what();
    } catch (...) {  // NOLINT(bugprone-empty-catch): said already
    }
    log(LogLevel::warning, "a connection to the monitoring endpoint failed", {{"error", text}});
  }

  /// On the strand.
  void close() {
    stopped = true;
    boost::system::error_code ignored;
    acceptor.close(ignored);
    for (const auto& stream : connections) stream->close();
    readiness->cancel_all();
  }

  const MonitoringOptions options;
  const asio::any_io_executor strand;
  tcp::acceptor acceptor;
  const std::shared_ptr<Readiness> readiness;
  std::set<std::shared_ptr<beast::tcp_stream>> connections;
  bool full = false;
  std::atomic<bool> running{false};
  std::atomic<bool> stopped{false};
  std::atomic<std::uint16_t> port{0};
};

MonitoringServer::MonitoringServer(asio::any_io_executor executor, MonitoringOptions options)
    : state_(std::make_shared<State>(std::move(executor), std::move(options))) {}

MonitoringServer::~MonitoringServer() {
  stop();
}

void MonitoringServer::listen() {
  state_->listen();
}
std::uint16_t MonitoringServer::port() const noexcept {
  return state_->port;
}
asio::awaitable<void> MonitoringServer::run() {
  return State::run(state_);
}

void MonitoringServer::stop() {
  if (state_->stopped.exchange(true) || state_->port == 0) return;
  asio::dispatch(state_->strand, [state = state_] { state->close(); });
}

void MonitoringServer::add_readiness(std::string name, std::function<asio::awaitable<ReadinessReport>()> check) {
  if (name.empty()) throw MessagingError(errc::invalid_argument, "a readiness check needs a name; it was empty");
  if (!check) throw MessagingError(errc::invalid_argument, fmt::format("the readiness check \"{}\" is empty", name));
  state_->readiness->add(std::move(name), std::move(check));
}

void MonitoringServer::remove_readiness(const std::string& name) {
  state_->readiness->remove(name);
}

}  // namespace maestro::messaging

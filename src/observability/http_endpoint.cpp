#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/monitoring.hpp>
#include <maestro/messaging/utf8.hpp>
#include <map>
#include <optional>

namespace maestro::messaging {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;

namespace {
constexpr std::uint32_t header_limit = 8192;
using Request = http::request<http::empty_body>;
using Response = http::response<http::string_body>;
}  // namespace

struct MonitoringServer::State : std::enable_shared_from_this<MonitoringServer::State> {
  State(asio::any_io_executor ex, MonitoringOptions given)
      : executor(std::move(ex)), options(std::move(given)), acceptor(executor) {
    if (!options.metrics) options.metrics = metrics_registry();
  }

  void listen() {
    boost::system::error_code error;
    const auto address = asio::ip::make_address(options.address, error);
    const auto attempt = [&](auto&& step) {
      if (!error) step();
    };
    const tcp::endpoint endpoint(address, options.port);
    attempt([&] { acceptor.open(endpoint.protocol(), error); });
    attempt([&] { acceptor.set_option(tcp::acceptor::reuse_address(true), error); });
    attempt([&] { acceptor.bind(endpoint, error); });
    attempt([&] { acceptor.listen(asio::socket_base::max_listen_connections, error); });
    if (error)
      throw MessagingError(errc::connection_failed,
                           fmt::format("the monitoring endpoint cannot listen on {}:{}: {}", options.address, options.port,
                                       error.message()));
  }

  asio::awaitable<void> run() {
    if (!acceptor.is_open()) listen();
    while (acceptor.is_open()) {
      auto [error, socket] = co_await acceptor.async_accept(asio::as_tuple(asio::use_awaitable));
      if (error == asio::error::operation_aborted) {
        acceptor.close();
        co_return;
      }
      if (error) continue;  // one connection's trouble is not the endpoint's
      if (connections >= options.max_connections) continue;
      ++connections;
      auto self = shared_from_this();
      auto served = serve(self, beast::tcp_stream(std::move(socket)));
      asio::co_spawn(executor, std::move(served), [self](const std::exception_ptr&) { --self->connections; });
    }
  }

  static asio::awaitable<void> serve(std::shared_ptr<State> self, beast::tcp_stream stream) {
    beast::flat_buffer buffer(2 * header_limit);
    for (;;) {
      // Beast's own time limit is on the stream itself: it closes a slow client's socket without a coroutine of ours.
      stream.expires_after(self->options.request_timeout);
      http::request_parser<http::empty_body> parser;
      parser.header_limit(header_limit);
      parser.body_limit(std::uint64_t{0});
      auto [error, bytes] = co_await http::async_read(stream, buffer, parser, asio::as_tuple(asio::use_awaitable));
      Response response;
      bool keep_alive = false;
      if (error == http::error::header_limit) {
        response = text(http::status::request_header_fields_too_large, "the header has more than 8192 bytes\n");
      } else if (error == http::error::body_limit || error == http::error::unexpected_body) {
        response = text(http::status::payload_too_large, "no body is taken here\n");
      } else if (error && error.category() == http::make_error_code(http::error::bad_method).category() &&
                 error != http::error::end_of_stream && error != http::error::partial_message) {
        response = text(http::status::bad_request, fmt::format("not HTTP: {}\n", error.message()));
      } else if (error) {
        break;
      } else {
        keep_alive = parser.get().keep_alive();
        response = co_await self->answer(parser.get());
        if (parser.get().method() == http::verb::head) {
          response.body().clear();
        }
      }
      response.keep_alive(keep_alive);
      stream.expires_after(self->options.request_timeout);
      auto [write_error, written] = co_await http::async_write(stream, response, asio::as_tuple(asio::use_awaitable));
      if (write_error || !keep_alive) break;
    }
    boost::system::error_code ignored;
    stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
  }

  static Response text(http::status status, std::string body, std::string_view type = "text/plain; charset=utf-8") {
    Response response(status, 11);
    response.set(http::field::content_type, type);
    response.set(http::field::cache_control, "no-store");
    response.content_length(body.size());
    response.body() = std::move(body);
    return response;
  }

  asio::awaitable<Response> answer(const Request& request) {
    const auto target = request.target().substr(0, request.target().find('?'));
    const bool known = target == "/metrics" || target == "/livez" || target == "/healthz" || target == "/readyz";
    if (!known)
      co_return text(http::status::not_found, "not found; there are /metrics, /livez, /healthz and /readyz\n");
    if (request.method() != http::verb::get && request.method() != http::verb::head) {
      auto response = text(http::status::method_not_allowed, "only GET and HEAD\n");
      response.set(http::field::allow, "GET, HEAD");
      co_return response;
    }
    if (target == "/metrics")
      co_return text(http::status::ok, options.metrics->expose(), "text/plain; version=0.0.4; charset=utf-8");
    if (target != "/readyz") co_return text(http::status::ok, "ok\n");
    co_return co_await readiness();
  }

  asio::awaitable<Response> readiness() {
    boost::json::array not_ready;
    const auto asked = checks;  // one may be added while another is asked
    for (const auto& [name, check] : asked) {
      std::vector<std::string> reasons;
      try {
        reasons = (co_await check()).not_ready;
      } catch (const std::exception& failure) {
        reasons = {failure.what()};
      }
      for (const auto& reason : reasons) not_ready.push_back({{"name", name}, {"reason", to_utf8(reason)}});
    }
    const bool ready = not_ready.empty();
    const boost::json::value body{{"ready", ready}, {"not_ready", std::move(not_ready)}};
    co_return text(ready ? http::status::ok : http::status::service_unavailable, boost::json::serialize(body) + "\n",
                   "application/json");
  }

  asio::any_io_executor executor;
  MonitoringOptions options;
  tcp::acceptor acceptor;
  std::size_t connections = 0;
  std::map<std::string, std::function<asio::awaitable<ReadinessReport>()>> checks;
};

MonitoringServer::MonitoringServer(asio::any_io_executor executor, MonitoringOptions options)
    : state_(std::make_shared<State>(std::move(executor), std::move(options))) {}

MonitoringServer::~MonitoringServer() { stop(); }

void MonitoringServer::listen() { state_->listen(); }
std::uint16_t MonitoringServer::port() const { return state_->acceptor.local_endpoint().port(); }
asio::awaitable<void> MonitoringServer::run() { return state_->run(); }

void MonitoringServer::stop() {
  boost::system::error_code ignored;
  state_->acceptor.close(ignored);
}

void MonitoringServer::add_readiness(std::string name, std::function<asio::awaitable<ReadinessReport>()> check) {
  state_->checks.insert_or_assign(std::move(name), std::move(check));
}

}  // namespace maestro::messaging

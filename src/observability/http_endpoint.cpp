#include "observability/http_endpoint.hpp"

#include <fmt/format.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <boost/none.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace maestro::messaging {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

namespace {

constexpr std::uint32_t header_limit = 8192;
constexpr std::size_t discard_limit = 1024 * 1024;
constexpr Duration discard_time = std::chrono::seconds(1);

using Request = http::request_header<>;
using RequestParser = http::request_parser<http::empty_body>;
using Response = http::response<http::string_body>;

Response page(http::status status, std::string body, std::string_view type = "text/plain; charset=utf-8") {
  Response response(status, 11);
  response.set(http::field::content_type, type);
  response.set(http::field::cache_control, "no-store");
  response.body() = std::move(body);
  return response;
}

asio::awaitable<Response> readiness(std::shared_ptr<Readiness> checks) {
  boost::json::array reasons;
  const auto not_ready = co_await checks->ask();
  for (const auto& one : not_ready) reasons.push_back({{"name", one.name}, {"reason", one.reason}});
  const boost::json::object body{{"ready", not_ready.empty()}, {"not_ready", std::move(reasons)}};
  co_return page(not_ready.empty() ? http::status::ok : http::status::service_unavailable,
                 boost::json::serialize(body) + "\n", "application/json");
}

asio::awaitable<Response> answer(const MonitoringPages& pages, const Request& request, bool has_body) {
  const auto target = request.target().substr(0, request.target().find('?'));
  const bool live = target == "/livez" || target == "/healthz";
  if (!live && target != "/metrics" && target != "/readyz")
    co_return page(http::status::not_found, "no such page; there are /metrics, /livez, /healthz and /readyz\n");
  if (has_body) co_return page(http::status::payload_too_large, "no body is taken here\n");
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    auto refused = page(http::status::method_not_allowed,
                        fmt::format("{} is not allowed here, only GET and HEAD\n",
                                    std::string_view(request.method_string().data(), request.method_string().size())));
    refused.set(http::field::allow, "GET, HEAD");
    co_return refused;
  }
  if (live) co_return page(http::status::ok, "ok\n");
  if (target == "/metrics")
    co_return page(http::status::ok, pages.metrics->expose(), "text/plain; version=0.0.4; charset=utf-8");
  co_return co_await readiness(pages.readiness);
}

/// What to say to bytes that are no request; nothing when there is nobody to say it to.
std::optional<Response> refusal(const boost::system::error_code& error) {
  static const auto& protocol = http::make_error_code(http::error::bad_method).category();
  if (error == http::error::header_limit || error == http::error::buffer_overflow)
    return page(http::status::request_header_fields_too_large,
                fmt::format("the header has more than {} bytes\n", header_limit));
  if (error.category() != protocol || error == http::error::end_of_stream || error == http::error::partial_message)
    return std::nullopt;
  return page(http::status::bad_request, fmt::format("not HTTP/1.1: {}\n", error.message()));
}

/// Takes what the client is still sending: closing a socket with unread bytes resets the connection, and the client
/// would never see why it was refused.
asio::awaitable<void> discard_rest(beast::tcp_stream& stream) {
  std::array<char, 4096> bytes;
  stream.expires_after(discard_time);
  for (std::size_t taken = 0; taken < discard_limit;) {
    auto [error, count] = co_await stream.async_read_some(asio::buffer(bytes), asio::as_tuple(asio::use_awaitable));
    if (error) co_return;
    taken += count;
  }
}

}  // namespace

asio::awaitable<void> serve(MonitoringPages pages, std::shared_ptr<beast::tcp_stream> stream) {
  beast::flat_buffer buffer(2 * header_limit);
  bool keep_alive = true;
  bool unread = false;
  while (keep_alive) {
    RequestParser parser;
    parser.header_limit(header_limit);
    parser.body_limit(boost::none);  // a body is refused by its announcement, and never read
    // The stream's own time limit rather than one of the Clock: it is about a peer's real time, covers a whole request
    // however its bytes trickle in, and costs no coroutine beside the read.
    stream->expires_after(pages.request_timeout);
    auto [read_error, bytes] =
        co_await http::async_read_header(*stream, buffer, parser, asio::as_tuple(asio::use_awaitable));
    // Beast's limit lets a header pass that is a little longer and arrives in one piece.
    if (!read_error && bytes > header_limit) read_error = http::error::header_limit;
    std::optional<Response> response;
    if (read_error) {
      response = refusal(read_error);
      if (!response) break;
      keep_alive = false;
      unread = true;
    } else {
      const auto& request = parser.get();
      unread = parser.chunked() || parser.content_length().value_or(0) > 0;
      keep_alive = request.keep_alive() && !unread;
      response = co_await answer(pages, request, unread);
      response->version(request.version());
    }
    response->keep_alive(keep_alive);
    response->prepare_payload();
    if (!read_error && parser.get().method() == http::verb::head) response->body().clear();  // its length stays
    stream->expires_after(pages.request_timeout);
    auto [write_error, written] = co_await http::async_write(*stream, *response, asio::as_tuple(asio::use_awaitable));
    if (write_error) co_return;
  }
  boost::system::error_code ignored;
  stream->socket().shutdown(asio::socket_base::shutdown_send, ignored);
  if (unread) co_await discard_rest(*stream);
}

}  // namespace maestro::messaging

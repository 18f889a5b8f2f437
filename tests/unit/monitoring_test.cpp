#include <sys/resource.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/json/parse.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/monitoring.hpp>
#include <maestro/messaging/virtual_clock.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using testing::HasSubstr;
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using Response = http::response<http::string_body>;

class Monitoring : public testing::Test {
 protected:
  void SetUp() override { start({}); }

  void start(MonitoringOptions options) {
    options.port = 0;
    registry = std::make_shared<MetricsRegistry>();
    options.metrics = registry;
    server = std::make_unique<MonitoringServer>(context.get_executor(), options);
    server->listen();
    asio::co_spawn(context, server->run(), asio::detached);
  }

  /// Runs the client's coroutine to its end beside the server.
  template <class Work>
  void run(Work work) {
    std::exception_ptr failure;
    bool finished = false;
    asio::co_spawn(context, work(), [&](std::exception_ptr error) {
      failure = error;
      finished = true;
    });
    context.restart();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!finished && std::chrono::steady_clock::now() < deadline) context.run_one_for(std::chrono::seconds(1));
    ASSERT_TRUE(finished) << "no answer";
    if (failure) std::rethrow_exception(failure);
  }

  asio::awaitable<beast::tcp_stream> connect() {
    beast::tcp_stream stream(context);
    const tcp::endpoint endpoint(asio::ip::make_address("127.0.0.1"), server->port());
    co_await stream.async_connect(endpoint, asio::use_awaitable);
    co_return stream;
  }

  static asio::awaitable<Response> read(beast::tcp_stream& stream, bool head = false) {
    beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.skip(head);
    co_await http::async_read(stream, buffer, parser, asio::use_awaitable);
    co_return parser.release();
  }

  /// What the server says to these bytes.
  Response raw(std::string bytes, bool head = false) {
    Response response;
    run([&]() -> asio::awaitable<void> {
      auto stream = co_await connect();
      co_await asio::async_write(stream, asio::buffer(bytes), asio::use_awaitable);
      response = co_await read(stream, head);
    });
    return response;
  }

  Response request(std::string_view method, std::string_view target) {
    return raw(std::string(method) + " " + std::string(target) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
               method == "HEAD");
  }
  Response get(std::string_view target) { return request("GET", target); }

  asio::io_context context;
  std::shared_ptr<MetricsRegistry> registry;
  std::unique_ptr<MonitoringServer> server;
};

TEST_F(Monitoring, MetricsAreThoseOfTheRegistry) {
  registry->counter("messaging_reconnects_total", {{"broker", "memory"}}).add(2);
  const auto response = get("/metrics");
  EXPECT_EQ(response.result_int(), 200U);
  EXPECT_EQ(response[http::field::content_type], "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_EQ(response.body(), registry->expose());
  EXPECT_THAT(response.body(), HasSubstr("messaging_reconnects_total{broker=\"memory\"} 2\n"));
}

TEST_F(Monitoring, LivenessAsksNobody) {
  server->add_readiness("sick", []() -> asio::awaitable<ReadinessReport> { co_return ReadinessReport{{"down"}}; });
  for (const auto* target : {"/livez", "/healthz", "/livez?verbose"}) {
    const auto response = get(target);
    EXPECT_EQ(response.result_int(), 200U) << target;
    EXPECT_EQ(response.body(), "ok\n");
  }
}

TEST_F(Monitoring, ReadyWhenNothingIsAmiss) {
  server->add_readiness("fine", []() -> asio::awaitable<ReadinessReport> { co_return ReadinessReport{}; });
  const auto response = get("/readyz");
  EXPECT_EQ(response.result_int(), 200U);
  EXPECT_EQ(response[http::field::content_type], "application/json");
  EXPECT_EQ(response.body(), "{\"ready\":true,\"not_ready\":[]}\n");
}

TEST_F(Monitoring, NotReadySaysWhoAndWhy) {
  server->add_readiness("orders", []() -> asio::awaitable<ReadinessReport> {
    co_return ReadinessReport{{"not connected", "lags \xff"}};
  });
  const auto response = get("/readyz");
  EXPECT_EQ(response.result_int(), 503U);
  EXPECT_EQ(boost::json::parse(response.body()),
            boost::json::value({{"ready", false},
                                {"not_ready", boost::json::array{{{"name", "orders"}, {"reason", "not connected"}},
                                                                 {{"name", "orders"}, {"reason", "lags \uFFFD"}}}}}));
}

TEST_F(Monitoring, ACheckThatThrowsIsNotReady) {
  server->add_readiness("throws", []() -> asio::awaitable<ReadinessReport> {
    throw std::runtime_error("boom");
    co_return ReadinessReport{};
  });
  server->add_readiness("throws strangely", []() -> asio::awaitable<ReadinessReport> {
    throw 42;
    co_return ReadinessReport{};
  });
  const auto response = get("/readyz");
  EXPECT_EQ(response.result_int(), 503U);
  EXPECT_THAT(response.body(), HasSubstr("{\"name\":\"throws\",\"reason\":\"boom\"}"));
  EXPECT_THAT(response.body(), HasSubstr("\"throws strangely\""));
}

TEST_F(Monitoring, OtherPathsAndMethodsAreRefused) {
  const auto missing = get("/");
  EXPECT_EQ(missing.result_int(), 404U);
  EXPECT_THAT(missing.body(), HasSubstr("/metrics, /livez, /healthz and /readyz"));
  EXPECT_EQ(get("/metrics/").result_int(), 404U);
  const auto post = request("POST", "/metrics");
  EXPECT_EQ(post.result_int(), 405U);
  EXPECT_EQ(post[http::field::allow], "GET, HEAD");
  EXPECT_EQ(request("DELETE", "/readyz").result_int(), 405U);
}

TEST_F(Monitoring, HeadHasNoBody) {
  const auto response = request("HEAD", "/livez");
  EXPECT_EQ(response.result_int(), 200U);
  EXPECT_EQ(response[http::field::content_length], "3");
  EXPECT_EQ(response.body(), "");
}

TEST_F(Monitoring, AHeaderThatIsTooLargeIsRefused) {
  const auto response = raw("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(9000, 'x') + "\r\n\r\n");
  EXPECT_EQ(response.result_int(), 431U);
  EXPECT_FALSE(response.keep_alive());
}

TEST_F(Monitoring, ABodyIsRefused) {
  EXPECT_EQ(raw("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc").result_int(), 413U);
}

TEST_F(Monitoring, WhatIsNotHttpIsRefused) {
  const auto response = raw("\x16\x03\x01 hello\r\n\r\n");
  EXPECT_EQ(response.result_int(), 400U);
  EXPECT_THAT(response.body(), HasSubstr("not HTTP"));
}

TEST_F(Monitoring, AConnectionServesManyRequests) {
  run([&]() -> asio::awaitable<void> {
    auto stream = co_await connect();
    for (int i = 0; i < 3; ++i) {
      co_await asio::async_write(stream, asio::buffer(std::string_view("GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")),
                                 asio::use_awaitable);
      const auto response = co_await read(stream);
      EXPECT_EQ(response.result_int(), 200U);
      EXPECT_TRUE(response.keep_alive());
    }
  });
}

TEST_F(Monitoring, ConnectionsAreBounded) {
  start({.max_connections = 1});
  run([&]() -> asio::awaitable<void> {
    auto first = co_await connect();
    co_await asio::async_write(first, asio::buffer(std::string_view("GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")),
                               asio::use_awaitable);
    EXPECT_EQ((co_await read(first)).result_int(), 200U);
    auto second = co_await connect();
    char byte = 0;
    boost::system::error_code closed;
    co_await second.async_read_some(asio::buffer(&byte, 1), asio::redirect_error(asio::use_awaitable, closed));
    EXPECT_EQ(closed, boost::system::error_code(asio::error::eof));
  });
}

TEST_F(Monitoring, APortThatIsTakenIsNamed) {
  MonitoringServer second(context.get_executor(), {.port = server->port(), .metrics = registry});
  EXPECT_THAT(unit::refusal(errc::cannot_listen, [&] { second.listen(); }),
              HasSubstr("127.0.0.1:" + std::to_string(server->port())));
  MonitoringServer nowhere(context.get_executor(), {.address = "localhost?", .metrics = registry});
  EXPECT_THAT(unit::refusal(errc::cannot_listen, [&] { nowhere.listen(); }), HasSubstr("localhost?:9464"));
}

// Not under clang's undefined sanitizer, which needs descriptors itself to look at a type.
#ifdef __has_feature
#if __has_feature(undefined_behavior_sanitizer)
#define MAESTRO_NEEDS_DESCRIPTORS
#endif
#endif
#ifndef MAESTRO_NEEDS_DESCRIPTORS
TEST_F(Monitoring, WithoutDescriptorsItWaitsAndThenGoesOn) {
  std::size_t warnings = 0;
  set_log_sink([&](const LogRecord&) { ++warnings; });
  const auto clock = std::make_shared<VirtualClock>();
  start({.clock = clock});
  context.restart();
  context.poll();
  tcp::socket client(context);
  client.open(tcp::v4());
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  auto none = before;
  none.rlim_cur = 0;  // what is open stays open, nothing new is
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  client.connect({asio::ip::make_address("127.0.0.1"), server->port()});
  for (int i = 0; i < 1000; ++i) {
    context.restart();
    context.poll();
  }
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(warnings, 1U) << "it does not try again at once";
  clock->run_for(context, std::chrono::seconds(2));
  set_log_sink(make_log_sink(LogFormat::text));
  run([&]() -> asio::awaitable<void> {
    beast::tcp_stream stream(std::move(client));
    co_await asio::async_write(stream, asio::buffer(std::string_view("GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")),
                               asio::use_awaitable);
    EXPECT_EQ((co_await read(stream)).result_int(), 200U);
  });
}
#endif

TEST_F(Monitoring, StopEndsRun) {
  MonitoringServer other(context.get_executor(), {.port = 0, .metrics = registry});
  other.listen();
  bool ended = false;
  asio::co_spawn(context, other.run(), [&](std::exception_ptr error) { ended = !error; });
  context.poll();
  EXPECT_FALSE(ended);
  other.stop();
  context.restart();
  context.poll();
  EXPECT_TRUE(ended);
}

TEST_F(Monitoring, MayEndWhileItRuns) {
  bool ended = false;
  {
    MonitoringServer other(context.get_executor(), {.port = 0, .metrics = registry});
    other.listen();
    asio::co_spawn(context, other.run(), [&](std::exception_ptr error) { ended = !error; });
    context.poll();
  }
  context.restart();
  context.poll();
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace maestro::messaging

#include "faults/tcp_gate.hpp"

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/system/system_error.hpp>

namespace maestro::messaging::testing {

namespace asio = boost::asio;

struct TcpGate::Pair {
  tcp::socket client;
  tcp::socket server;

  void end() {
    boost::system::error_code ignored;
    client.close(ignored);
    server.close(ignored);
  }
};

TcpGate::TcpGate(std::uint16_t listens, std::uint16_t forwards_to)
    : acceptor_(context_, {asio::ip::address_v4::loopback(), listens}),
      server_(asio::ip::address_v4::loopback(), forwards_to) {
  asio::co_spawn(context_, accept(), asio::detached);
  thread_ = std::thread([this] { context_.run(); });
}

TcpGate::~TcpGate() {
  context_.stop();
  thread_.join();
}

void TcpGate::cut() {
  asio::post(context_, [this] {
    for (const auto& each : std::exchange(pairs_, {}))
      if (const auto pair = each.lock()) pair->end();
  });
}

asio::awaitable<void> TcpGate::accept() {
  for (;;) {
    auto pair = std::make_shared<Pair>(co_await acceptor_.async_accept(asio::use_awaitable), tcp::socket(context_));
    ++connections_;
    if (mode_ == Mode::closed) continue;
    pairs_.push_back(pair);
    asio::co_spawn(context_, connect(std::move(pair)), asio::detached);
  }
}

asio::awaitable<void> TcpGate::connect(std::shared_ptr<Pair> pair) {
  try {
    co_await pair->server.async_connect(server_, asio::use_awaitable);
  } catch (const boost::system::system_error&) {
    pair->end();
    co_return;
  }
  pair->client.set_option(tcp::no_delay(true));
  pair->server.set_option(tcp::no_delay(true));
  asio::co_spawn(context_, forward(pair, pair->client, pair->server), asio::detached);
  co_await forward(pair, pair->server, pair->client);
}

asio::awaitable<void> TcpGate::forward(std::shared_ptr<Pair> pair, tcp::socket& from, tcp::socket& to) {
  std::vector<char> buffer(256 * 1024);
  constexpr std::array<std::size_t, 5> slices{1, 3, 17, 128, 1400};
  std::size_t turn = 0;
  try {
    for (;;) {
      const auto most = mode_ == Mode::sliced ? slices[turn++ % slices.size()] : buffer.size();
      const auto size = co_await from.async_read_some(asio::buffer(buffer.data(), most), asio::use_awaitable);
      if (mode_ == Mode::swallowed) continue;
      if (mode_ == Mode::slow) {
        asio::steady_timer pause(context_, std::chrono::milliseconds(200));
        co_await pause.async_wait(asio::use_awaitable);
      }
      co_await asio::async_write(to, asio::buffer(buffer.data(), size), asio::use_awaitable);
    }
  } catch (const boost::system::system_error&) {
    pair->end();
  }
}

}  // namespace maestro::messaging::testing

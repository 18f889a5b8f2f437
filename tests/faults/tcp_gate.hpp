#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace maestro::messaging::testing {

/// Stands between client and server on loopback, forwards, and mistreats what passes. Runs on a thread of its own, so
/// that it holds up nobody.
class TcpGate {
 public:
  enum class Mode {
    open,       ///< forwards at once
    slow,       ///< 200 ms later, 256 KiB at a time
    sliced,     ///< a few bytes at a time
    swallowed,  ///< takes everything, and nothing arrives
    closed,     ///< takes connections and ends them at once
  };

  TcpGate(std::uint16_t listens, std::uint16_t forwards_to);
  ~TcpGate();
  TcpGate(const TcpGate&) = delete;
  TcpGate& operator=(const TcpGate&) = delete;

  void set(Mode mode) { mode_ = mode; }
  /// Ends every connection that is open now.
  void cut();
  [[nodiscard]] std::size_t connections() const { return connections_; }

 private:
  using tcp = boost::asio::ip::tcp;
  struct Pair;

  boost::asio::awaitable<void> accept();
  boost::asio::awaitable<void> connect(std::shared_ptr<Pair> pair);
  boost::asio::awaitable<void> forward(std::shared_ptr<Pair> pair, tcp::socket& from, tcp::socket& to);

  boost::asio::io_context context_{1};
  tcp::acceptor acceptor_;
  tcp::endpoint server_;
  std::atomic<Mode> mode_ = Mode::open;
  std::atomic<std::size_t> connections_ = 0;
  std::vector<std::weak_ptr<Pair>> pairs_;
  std::thread thread_;
};

}  // namespace maestro::messaging::testing

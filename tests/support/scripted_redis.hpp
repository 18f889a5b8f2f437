#pragma once

#include <fmt/format.h>

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "brokers/redis/resp.hpp"

namespace maestro::messaging::testing {

/// Stands for a Redis server that answers as the test says, command by command, on the test's own loop: for what a real
/// one does only at its own time.
class ScriptedRedis {
 public:
  using Words = std::vector<std::string>;
  using Answer = std::function<std::string(const Words&)>;

  explicit ScriptedRedis(
      boost::asio::io_context& context, Answer answer = [](const Words&) { return "+OK\r\n"; })
      : acceptor_(context, {boost::asio::ip::address_v4::loopback(), 0}), answer_(std::move(answer)) {
    accept();
  }

  [[nodiscard]] std::string url() const { return fmt::format("redis://127.0.0.1:{}", port()); }
  [[nodiscard]] std::uint16_t port() const { return acceptor_.local_endpoint().port(); }
  void answer(Answer as) { answer_ = std::move(as); }
  /// Commands that were answered.
  [[nodiscard]] std::size_t answered() const { return answered_; }
  /// Closes all connections.
  void hang_up() {
    for (const auto& each : clients_) each->socket.close();
  }

 private:
  struct Client {
    explicit Client(boost::asio::ip::tcp::socket accepted) : socket(std::move(accepted)) {}
    boost::asio::ip::tcp::socket socket;
    redis::ReplyReader reader;  // a command is an array of texts, as a reply may be
    std::array<char, 65536> in{};
  };

  void accept() {
    acceptor_.async_accept([this](boost::system::error_code error, boost::asio::ip::tcp::socket accepted) {
      if (error) return;
      accepted.set_option(boost::asio::ip::tcp::no_delay(true));
      clients_.push_back(std::make_shared<Client>(std::move(accepted)));
      read(clients_.back());
      accept();
    });
  }
  void read(const std::shared_ptr<Client>& client) {
    client->socket.async_read_some(boost::asio::buffer(client->in),
                                   [this, client](boost::system::error_code error, std::size_t bytes) {
                                     if (error) return;
                                     client->reader.feed({client->in.data(), bytes});
                                     std::string answers;
                                     while (const auto* command = client->reader.next()) {
                                       Words words;
                                       for (const auto& word : command->items()) words.emplace_back(word.text);
                                       answers += answer_(words);
                                       ++answered_;
                                     }
                                     boost::asio::write(client->socket, boost::asio::buffer(answers), error);
                                     if (!error) read(client);
                                   });
  }

  boost::asio::ip::tcp::acceptor acceptor_;
  Answer answer_;
  std::vector<std::shared_ptr<Client>> clients_;
  std::size_t answered_ = 0;
};

}  // namespace maestro::messaging::testing

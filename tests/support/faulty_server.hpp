#pragma once

#include <boost/asio/thread_pool.hpp>
#include <filesystem>
#include <maestro/messaging.hpp>
#include <string>

#include "support/server.hpp"

namespace maestro::messaging::testing {

/// A real server that nobody else uses, to be mistreated. Runs `scripts/brokers`, off the executor's thread but for the
/// start. Throws `std::runtime_error` with what the script said when it fails.
class FaultyServer {
 public:
  explicit FaultyServer(std::string kind, std::string variant = "single");
  ~FaultyServer();
  FaultyServer(const FaultyServer&) = delete;
  FaultyServer& operator=(const FaultyServer&) = delete;

  [[nodiscard]] const std::string& url() const { return server_.url; }
  /// What else the script said about it, such as a port.
  [[nodiscard]] const std::string& environment(const std::string& name) const { return server_.environment.at(name); }
  [[nodiscard]] std::uint16_t port(const std::string& name) const {
    return static_cast<std::uint16_t>(std::stoi(environment(name)));
  }

  awaitable<void> kill(int node = 1);
  awaitable<void> revive(int node = 1);
  awaitable<void> freeze(int node = 1);
  awaitable<void> thaw(int node = 1);

 private:
  void call(const std::string& verb, int node = 1) const;
  [[nodiscard]] std::string arguments() const;
  awaitable<void> call_beside(std::string verb, int node);

  std::string kind_;
  std::string variant_;
  std::filesystem::path folder_;
  Server server_;
  boost::asio::thread_pool beside_{1};
};

}  // namespace maestro::messaging::testing

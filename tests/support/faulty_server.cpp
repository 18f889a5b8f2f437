#include "support/faulty_server.hpp"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdlib>
#include <stdexcept>

namespace maestro::messaging::testing {

FaultyServer::FaultyServer(std::string kind, std::string variant)
    : kind_(std::move(kind)), variant_(std::move(variant)) {
  std::string name = (std::filesystem::temp_directory_path() / "maestro-faults-XXXXXX").string();
  if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp failed");
  folder_ = name;
  server_ = server(arguments());
}

FaultyServer::~FaultyServer() {
  beside_.join();
  try {
    call("stop");
  } catch (const std::runtime_error&) {  // a server that is left running is the lesser evil
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::string FaultyServer::arguments() const {
  return fmt::format("{} --variant {} --dir {}", kind_, variant_, folder_.string());
}

void FaultyServer::call(const std::string& verb, int node) const {
  const auto command = fmt::format("{} {} {} --node {} 2>/dev/null", MAESTRO_BROKERS, verb, arguments(), node);
  if (const int status = std::system(command.c_str()); status != 0)
    throw std::runtime_error(fmt::format("{}: status {}", command, status));
}

awaitable<void> FaultyServer::call_beside(std::string verb, int node) {
  const auto work = [this, &verb, node]() -> awaitable<void> {
    call(verb, node);
    co_return;
  };
  co_await boost::asio::co_spawn(beside_, work, boost::asio::use_awaitable);
}

awaitable<void> FaultyServer::kill(int node) {
  return call_beside("kill", node);
}
awaitable<void> FaultyServer::revive(int node) {
  return call_beside("revive", node);
}
awaitable<void> FaultyServer::freeze(int node) {
  return call_beside("freeze", node);
}
awaitable<void> FaultyServer::thaw(int node) {
  return call_beside("thaw", node);
}

}  // namespace maestro::messaging::testing

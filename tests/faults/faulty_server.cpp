#include "faults/faulty_server.hpp"

#include <fmt/format.h>

#include <array>
#include <boost/algorithm/string/classification.hpp>
#include <boost/algorithm/string/split.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <memory>
#include <stdexcept>

namespace maestro::messaging::testing {

FaultyServer::FaultyServer(std::string kind, std::string variant) : kind_(std::move(kind)), variant_(std::move(variant)) {
  std::string name = (std::filesystem::temp_directory_path() / "maestro-faults-XXXXXX").string();
  if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp failed");
  folder_ = name;
  std::vector<std::string> lines;
  const auto said = call("start");
  boost::split(lines, said, boost::is_any_of("\n"), boost::token_compress_on);
  for (const auto& line : lines) {
    if (line.find("://") != std::string::npos && line.find(' ') == std::string::npos) url_ = line;
    if (const auto equals = line.find('='); equals != std::string::npos) environment_[line.substr(0, equals)] = line.substr(equals + 1);
  }
  if (url_.empty()) throw std::runtime_error("no connection string in: " + said);
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

std::string FaultyServer::call(const std::string& verb, int node) const {
  const auto command = fmt::format("{} {} {} --variant {} --node {} --dir {} 2>&1", MAESTRO_BROKERS, verb, kind_, variant_, node,
                                   folder_.string());
  int status = -1;
  std::string said;
  if (auto* pipe = ::popen(command.c_str(), "r")) {
    std::array<char, 512> part{};
    while (std::fgets(part.data(), part.size(), pipe)) said += part.data();
    status = ::pclose(pipe);
  }
  if (status != 0) throw std::runtime_error(command + ": " + said);
  return said;
}

awaitable<void> FaultyServer::call_beside(std::string verb, int node) {
  const auto work = [this, &verb, node]() -> awaitable<void> {
    call(verb, node);
    co_return;
  };
  co_await boost::asio::co_spawn(beside_, work, boost::asio::use_awaitable);
}

awaitable<void> FaultyServer::kill(int node) { return call_beside("kill", node); }
awaitable<void> FaultyServer::revive(int node) { return call_beside("revive", node); }
awaitable<void> FaultyServer::freeze(int node) { return call_beside("freeze", node); }
awaitable<void> FaultyServer::thaw(int node) { return call_beside("thaw", node); }

}  // namespace maestro::messaging::testing

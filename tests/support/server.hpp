#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>

namespace maestro::messaging::testing {

/// A real server: where it is, and what else its script says about it.
struct Server {
  std::string url;
  std::map<std::string, std::string> environment;
};

/// The server, started by `scripts/brokers` unless it runs already. Throws, and so fails the test, when it cannot be
/// started.
inline Server server(const std::string& arguments) {
  const auto command = std::string(MAESTRO_BROKERS) + " start " + arguments + " 2>&1";
  Server found;
  std::string said;
  int status = -1;
  if (auto* pipe = ::popen(command.c_str(), "r")) {
    char part[512];
    while (std::fgets(part, sizeof part, pipe)) {
      std::string line(part);
      said += line;
      while (line.ends_with('\n')) line.pop_back();
      if (line.find("://") != std::string::npos && line.find(' ') == std::string::npos) found.url = line;
      if (const auto equals = line.find('='); equals != std::string::npos)
        found.environment[line.substr(0, equals)] = line.substr(equals + 1);
    }
    status = ::pclose(pipe);
  }
  if (status != 0 || found.url.empty()) throw std::runtime_error(command + " failed: " + said);
  return found;
}

}  // namespace maestro::messaging::testing

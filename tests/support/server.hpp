#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>

namespace maestro::messaging::testing {

/// The connection string of a real server, started by `scripts/brokers` unless it runs already. Throws, and so fails the test,
/// when it cannot be started.
inline std::string server(const std::string& arguments) {
  const auto command = std::string(MAESTRO_BROKERS) + " start " + arguments;
  struct Close {
    void operator()(std::FILE* pipe) const { static_cast<void>(::pclose(pipe)); }
  };
  const std::unique_ptr<std::FILE, Close> pipe(::popen(command.c_str(), "r"));
  std::string last;
  char line[512];
  while (pipe && std::fgets(line, sizeof line, pipe.get())) last = line;
  while (!last.empty() && last.back() == '\n') last.pop_back();
  if (last.find("://") == std::string::npos) throw std::runtime_error(command + " failed: " + last);
  return last;
}

}  // namespace maestro::messaging::testing

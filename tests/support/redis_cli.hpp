#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <string>

namespace maestro::messaging::testing {

/// The port of a URL without a path.
inline std::uint16_t port_of(const std::string& url) { return static_cast<std::uint16_t>(std::stoi(url.substr(url.rfind(':') + 1))); }

/// What another client says to a Redis, and its answer.
inline std::string redis_cli(const std::string& url, const std::string& words) {
  const auto command = fmt::format("redis-cli -p {} {}", port_of(url), words);
  std::string said;
  auto* pipe = ::popen(command.c_str(), "r");
  if (!pipe) throw std::runtime_error(command);
  char part[512];
  while (std::fgets(part, sizeof part, pipe)) said += part;
  if (::pclose(pipe) != 0) throw std::runtime_error(command + ": " + said);
  return said;
}

}  // namespace maestro::messaging::testing

#pragma once

#include <cstdint>
#include <maestro/messaging/config.hpp>
#include <optional>
#include <string>

namespace maestro::messaging::redis {

/// Where a Redis is, and who asks: `redis://[user[:password]@]host[:port][/database]`, `rediss://` with TLS,
/// `unix:///path[?db=database]`.
struct Address {
  std::string host = "127.0.0.1";
  std::uint16_t port = 6379;
  std::string socket;  ///< A unix socket, instead of host and port.
  bool tls = false;
  std::string user;
  std::optional<std::string> password;
  std::int64_t database = 0;

  /// `host:port`, for errors and logs.
  [[nodiscard]] std::string shown() const;
};

/// Throws `MessagingError(invalid_option)` that says what is allowed. The options' `database`, `username` and `password` are for what
/// the connection string leaves open.
[[nodiscard]] Address parse_address(const std::string& connection_string, const Options& options);

}  // namespace maestro::messaging::redis

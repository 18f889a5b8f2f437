#pragma once

#include <boost/asio/awaitable.hpp>
#include <maestro/messaging/time.hpp>
#include <optional>
#include <string>

namespace maestro::messaging {

/// Keys that are changed atomically and end by themselves: an ability that only some brokers have; a transport that has it inherits it
/// too. Throws `connection_failed` and so on, like everything of a transport.
class AtomicKeys {
 public:
  virtual ~AtomicKeys() = default;
  /// Stores the value for `life` if there is none. None when it was stored, else the value that is there.
  virtual boost::asio::awaitable<std::optional<std::string>> put_if_absent(std::string key, std::string value, Duration life) = 0;
  /// Replaces the value if it is `expected`; false when it is another, or none.
  virtual boost::asio::awaitable<bool> replace_if(std::string key, std::string expected, std::string value, Duration life) = 0;
  /// Removes the key if its value is `expected`.
  virtual boost::asio::awaitable<bool> remove_if(std::string key, std::string expected) = 0;
};

}  // namespace maestro::messaging

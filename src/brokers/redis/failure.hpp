#pragma once

#include <maestro/messaging/error.hpp>
#include <string>
#include <string_view>

namespace maestro::messaging::redis {

struct Failure {
  errc code = errc::broker_error;
  std::string detail;
  bool is_of_topic = false;  // nothing is wrong but with the topic
};

/// What an error reply means: `connection_failed` for what will pass and was surely not done (a server that loads, that is no master
/// any more), `authentication_failed`, `queue_full` for a server without memory, else the server's own verdict.
[[nodiscard]] Failure describe(std::string_view error, std::string_view what);

/// Whether the same command may be done later: the server loads, is full, is no master, or cannot write.
[[nodiscard]] bool passes(std::string_view error) noexcept;

/// Whether the server is no master, or no longer one: its address may lead to another by now.
[[nodiscard]] bool is_from_replica(std::string_view error) noexcept;

[[noreturn]] void fail(std::string_view error, std::string_view what);

[[nodiscard]] inline bool is_error(std::string_view error, std::string_view kind) { return error.starts_with(kind); }

}  // namespace maestro::messaging::redis

#include "brokers/redis/failure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace maestro::messaging::redis {

namespace {

struct Known {
  std::string_view begins;
  errc code;
  std::string_view advice;
};

constexpr std::array known{
    Known{"LOADING", errc::connection_failed, "the server is loading its data"},
    Known{"READONLY", errc::connection_failed, "this server is a replica; the master is elsewhere since a failover"},
    Known{"UNBLOCKED", errc::connection_failed,
          "what the command waited for is gone, or the server is a replica by now"},
    Known{"MASTERDOWN", errc::connection_failed, "this replica has lost its master"},
    Known{"CLUSTERDOWN", errc::connection_failed, "the cluster does not serve at the moment"},
    Known{"TRYAGAIN", errc::connection_failed, "the cluster moves these keys at the moment"},
    Known{"BUSY ", errc::connection_failed, "the server is busy with a script"},
    Known{"NOREPLICAS", errc::connection_failed, "fewer replicas are connected than min-replicas-to-write asks for"},
    Known{"MOVED", errc::unsupported, "this is a Redis Cluster, which is not supported yet"},
    Known{"ASK", errc::unsupported, "this is a Redis Cluster, which is not supported yet"},
    Known{"NOAUTH", errc::authentication_failed,
          "the server wants a password; put it into the connection string or into password"},
    Known{"WRONGPASS", errc::authentication_failed, "user or password are wrong"},
    Known{"NOPERM", errc::authentication_failed, "the user may not do this (ACL)"},
    Known{"OOM", errc::queue_full, "the server has reached maxmemory"},
    Known{"MISCONF", errc::broker_error, "the server cannot write its data to disk"},
    Known{"WRONGTYPE", errc::broker_error, "a key of this name holds something else than a stream"},
};

constexpr std::string_view aborted = "EXECABORT Transaction discarded because of: ";

}  // namespace

Failure describe(std::string_view error, std::string_view what) {
  if (error.starts_with(aborted)) return describe(error.substr(aborted.size()), what);
  for (const auto& each : known)
    if (error.starts_with(each.begins))
      return {each.code, fmt::format("{}: {} ({})", what, each.advice, error), is_error(error, "WRONGTYPE")};
  return {errc::broker_error, fmt::format("{}: {}", what, error)};
}

bool passes(std::string_view error) noexcept {
  if (error.starts_with(aborted)) return passes(error.substr(aborted.size()));
  constexpr std::array passing{"OOM", "MISCONF"};
  return std::ranges::any_of(passing, [error](std::string_view kind) { return is_error(error, kind); }) ||
         std::ranges::any_of(known, [error](const Known& each) {
           return each.code == errc::connection_failed && is_error(error, each.begins);
         });
}

bool is_from_replica(std::string_view error) noexcept {
  return is_error(error, "READONLY") || is_error(error, "MASTERDOWN") ||
         (is_error(error, "UNBLOCKED") && error.find("instance state changed") != std::string_view::npos);
}

void fail(std::string_view error, std::string_view what) {
  const auto failure = describe(error, what);
  throw MessagingError(failure.code, failure.detail);
}

}  // namespace maestro::messaging::redis

#pragma once

#include <string>

#include "faults/load.hpp"
#include "faults/tcp_gate.hpp"
#include "support/faulty_server.hpp"

namespace maestro::messaging::testing {

// What is done to any broker while a load runs.

/// Killed and started again, three times; each time until messages flow again.
awaitable<void> kill_and_revive(Load& load, FaultyServer& server);
/// Stopped as it stands for twenty seconds.
awaitable<void> freeze(Load& load, FaultyServer& server);
/// Every connection cut, twenty times.
awaitable<void> cut(Load& load, TcpGate& gate);
/// Connections slowed, sliced, swallowed for 8 s, refused for 3 s.
awaitable<void> mistreat(Load& load, TcpGate& gate);
/// A member in a process of its own that gets `option`, killed with messages in its hands, three times.
awaitable<void> kill_members(Load& load, std::string url, std::string option);
/// Members added and removed, six times each.
awaitable<void> come_and_go(Load& load);

}  // namespace maestro::messaging::testing

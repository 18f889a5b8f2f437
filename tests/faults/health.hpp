#pragma once

#include <string>

#include "support/faulty_server.hpp"

namespace maestro::messaging::testing {

/// Kills the server, starts it again, freezes it and thaws it, and expects `messaging_broker_health` to say so. Nobody
/// asks for the health but once, while it is frozen, and who does gives up.
void expect_health_to_follow(const std::string& broker, FaultyServer& server);

}  // namespace maestro::messaging::testing

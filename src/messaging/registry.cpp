#include "messaging/registry.hpp"

#include <fmt/format.h>

#include <maestro/messaging/error.hpp>

#include "brokers/memory/memory_transport.hpp"

namespace maestro::messaging {

std::unique_ptr<Transport> make_transport(boost::asio::any_io_executor executor, std::shared_ptr<Clock> clock,
                                          const MessagingConfig& config, const Options& options) {
  if (config.broker_type == BrokerType::memory)
    return make_memory_transport(std::move(executor), std::move(clock), config.connection_string, options);
  throw MessagingError(errc::unsupported, fmt::format("this build has no transport for {}; it has: memory",
                                                      to_string(config.broker_type)));
}

}  // namespace maestro::messaging

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/transport.hpp>
#include <memory>

namespace maestro::messaging {

/// The transport of the configured broker. Throws `unsupported` with the list of those that this build has.
std::unique_ptr<Transport> make_transport(boost::asio::any_io_executor executor, std::shared_ptr<Clock> clock,
                                          const MessagingConfig& config, const Options& options);

}  // namespace maestro::messaging

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/transport.hpp>
#include <memory>

namespace maestro::messaging {

/// The transport of `redis://`, `rediss://` and `unix://`: a stream for each topic. Throws `invalid_option` for a connection string that it
/// cannot read, or a certificate that it cannot load.
std::unique_ptr<Transport> make_redis_transport(boost::asio::any_io_executor executor, std::shared_ptr<Clock> clock,
                                                const std::string& connection_string, const Options& options);

}  // namespace maestro::messaging

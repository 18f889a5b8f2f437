#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/transport.hpp>
#include <memory>

namespace maestro::messaging {

/// The transport of `memory://name`. Reads the options of the table that apply to the memory broker.
std::unique_ptr<Transport> make_memory_transport(boost::asio::any_io_executor executor, std::shared_ptr<Clock> clock,
                                                 const std::string& connection_string, const Options& options);

}  // namespace maestro::messaging

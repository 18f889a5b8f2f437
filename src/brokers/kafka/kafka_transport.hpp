#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/transport.hpp>
#include <memory>

namespace maestro::messaging {

/// The transport of `kafka://host:port[,host:port]`. Reads the options of the table that apply to Kafka. Throws
/// `invalid_option` for a connection string or a value that librdkafka does not take, `unknown_option` for a `raw.` property
/// that it does not know.
std::unique_ptr<Transport> make_kafka_transport(boost::asio::any_io_executor executor, std::shared_ptr<Clock> clock,
                                                const std::string& connection_string, const Options& options);

}  // namespace maestro::messaging

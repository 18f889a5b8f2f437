#include "messaging/registry.hpp"

#include <fmt/format.h>

#include <maestro/messaging/error.hpp>

#if MAESTRO_HAS_KAFKA
#include "brokers/kafka/kafka_transport.hpp"
#endif
#include "brokers/memory/memory_transport.hpp"
#if MAESTRO_HAS_REDIS
#include "brokers/redis/redis_transport.hpp"
#endif

namespace maestro::messaging {

std::unique_ptr<Transport> make_transport(boost::asio::any_io_executor executor, std::shared_ptr<Clock> clock,
                                          const MessagingConfig& config, const Options& options) {
  require_scheme_of(config.broker_type, config.connection_string);
  if (config.broker_type == BrokerType::memory)
    return make_memory_transport(std::move(executor), std::move(clock), config.connection_string, options);
  std::string has = "memory";
#if MAESTRO_HAS_KAFKA
  has += ", kafka";
  if (config.broker_type == BrokerType::kafka)
    return make_kafka_transport(std::move(executor), std::move(clock), config.connection_string, options);
#endif
#if MAESTRO_HAS_REDIS
  has += ", redis";
  if (config.broker_type == BrokerType::redis)
    return make_redis_transport(std::move(executor), std::move(clock), config.connection_string, options);
#endif
  throw MessagingError(errc::unsupported,
                       fmt::format("this build has no transport for {}; it has: {}", to_string(config.broker_type), has));
}

}  // namespace maestro::messaging

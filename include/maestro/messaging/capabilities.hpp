#pragma once

#include <cstddef>
#include <string>

namespace maestro::messaging {

/// How a transport settles deliveries.
enum class Acknowledgement {
  none,        ///< Fire and forget: at most once.
  cumulative,  ///< A position: everything in the lane up to and with it (Kafka, memory).
  individual,  ///< Each delivery by itself (Redis, RabbitMQ, JetStream).
};

/// What a transport can promise. Checked at start, never degraded in silence.
struct Capabilities {
  std::string broker;                ///< Its name in errors, logs and metrics.
  Acknowledgement acknowledgement = Acknowledgement::none;
  bool groups = false;               ///< Several consumers share the work under a name.
  bool patterns = false;             ///< A subscription to `orders.*` sees topics that appear later.
  bool partitions = false;           ///< Same key, same partition, in order.
  bool persistent_topics = false;    ///< A new subscriber gets messages from before it came.
  bool release_with_delay = false;   ///< A delivery can be given back until a later time.
  bool counts_deliveries = false;    ///< `Message::delivery_count()` is the broker's own count.
  bool transactions = false;         ///< Publishes and acknowledgements take effect together.
  bool administration = false;       ///< Topics can be listed, created, described and deleted.
  bool survives_restart = false;     ///< What was acknowledged outlives the broker's process.
  bool headers = true;
  /// Publishes that are under way at once take effect in the order in which they were begun.
  bool orders_concurrent_publishes = false;
  std::size_t max_message_bytes = 0; ///< 0: no limit of its own.
  std::string acknowledged_means;    ///< What an acknowledged publish survives, in words.
};

}  // namespace maestro::messaging

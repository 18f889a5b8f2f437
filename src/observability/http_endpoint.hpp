#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <maestro/messaging/metrics.hpp>
#include <memory>

#include "observability/readiness.hpp"

namespace maestro::messaging {

/// What the pages of the endpoint show.
struct MonitoringPages {
  std::shared_ptr<MetricsRegistry> metrics;
  std::shared_ptr<Readiness> readiness;
  Duration request_timeout;
};

/// Answers one connection's requests, one after the other, until either side closes it, it idles, or sends what is no
/// request for us. Ends early, without throwing, when the stream is closed by somebody else.
boost::asio::awaitable<void> serve(MonitoringPages pages, std::shared_ptr<boost::beast::tcp_stream> stream);

}  // namespace maestro::messaging

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/transport.hpp>
#include <memory>
#include <string>

#include "brokers/kafka/blocking.hpp"

namespace maestro::messaging::kafka {

/// What everything of one transport shares.
struct Session {
  boost::asio::any_io_executor executor;
  std::shared_ptr<Clock> clock;
  Options options;
  std::string servers;
  TransportReports reports = {};
  bool connection_lost = false;
  std::string trouble;  // why a connection was lost, or none could be made; empty once whoever is needed answers

  /// A connection to a broker broke, or none could be made.
  void lost(const std::string& why) {
    connection_lost = true;
    trouble = why;
    reports.lost(why);
  }
  /// A broker answered.
  void answered() {
    if (std::exchange(connection_lost, false)) reports.reconnected();
  }

  /// Whoever is needed answers.
  void whole() {
    if (!std::exchange(trouble, {}).empty()) reports.whole();
  }

  template <class Result>
  awaitable<Result> blocking(std::function<Result()> work, TimePoint deadline = TimePoint::max()) const {
    return off_executor<Result>(clock, executor, std::move(work), deadline);
  }
};

inline int milliseconds(Duration span) {
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(span).count());
}

}  // namespace maestro::messaging::kafka

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <maestro/messaging/config.hpp>
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

  template <class Result>
  awaitable<Result> blocking(std::function<Result()> work) const {
    return off_executor<Result>(clock, executor, std::move(work));
  }
};

inline int milliseconds(Duration span) {
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(span).count());
}

}  // namespace maestro::messaging::kafka

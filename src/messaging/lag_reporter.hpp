#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <maestro/messaging/transport.hpp>
#include <memory>
#include <set>

#include "messaging/telemetry.hpp"

namespace maestro::messaging {

class Attached;

/// Shows in the metrics, every few seconds, what a group has not settled of what one of its members reads. A server that says nothing
/// holds up nobody but this.
class LagReporter : public std::enable_shared_from_this<LagReporter> {
 public:
  LagReporter(std::shared_ptr<Telemetry> telemetry, std::shared_ptr<Clock> clock, std::string broker, std::string topic,
              std::string group);

  /// The member is kept only while it is asked.
  void start(const boost::asio::any_io_executor& executor, std::weak_ptr<Attached> member);
  /// Who has left has no lag.
  void stop();

 private:
  static awaitable<void> run(std::shared_ptr<LagReporter> self, std::weak_ptr<Attached> weak);
  void show(const SubscriptionState& state);
  void on_answer(const std::exception_ptr& error);

  std::shared_ptr<Telemetry> telemetry_;
  std::shared_ptr<Clock> clock_;
  std::string broker_;
  std::string topic_;
  std::string group_;
  std::set<std::int32_t> shown_;  // partitions
  bool is_unknown_ = false;
  bool stopped_ = false;
  boost::asio::cancellation_signal cancel_;
};

}  // namespace maestro::messaging

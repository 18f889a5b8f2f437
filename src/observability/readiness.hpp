#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <maestro/messaging/monitoring.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace maestro::messaging {

struct NotReady {
  std::string name;
  std::string reason;
};

/// The named readiness checks of one server. `add` and `remove` may be called from any thread, `ask` and `cancel_all`
/// on the executor, which runs one thing at a time.
class Readiness : public std::enable_shared_from_this<Readiness> {
 public:
  using Check = std::function<boost::asio::awaitable<ReadinessReport>()>;

  Readiness(boost::asio::any_io_executor executor, std::shared_ptr<Clock> clock, Duration limit);
  ~Readiness();

  void add(std::string name, Check check);
  void remove(const std::string& name);

  /// Asks all checks at once and completes when they have answered, or at the limit. Does not throw for what they do.
  boost::asio::awaitable<std::vector<NotReady>> ask();
  void cancel_all();

 private:
  struct Entry;
  struct Run;
  struct Waiting;

  std::shared_ptr<Run> start(const std::shared_ptr<Entry>& entry);
  static boost::asio::awaitable<void> call(std::shared_ptr<Entry> entry, std::shared_ptr<Run> run);

  boost::asio::any_io_executor executor_;
  std::shared_ptr<Clock> clock_;
  Duration limit_;
  std::mutex mutex_;  // for the map; what is in an entry belongs to the executor
  std::map<std::string, std::shared_ptr<Entry>> entries_;
};

}  // namespace maestro::messaging

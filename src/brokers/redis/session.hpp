#pragma once

#include <algorithm>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/transport.hpp>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "brokers/redis/connection.hpp"
#include "runtime/signal.hpp"

namespace maestro::messaging::redis {

/// The set of all topics that were published to or subscribed to: patterns and lists are answered from it.
inline constexpr std::string_view topic_index = "maestro:topics";

/// A span as a command has it.
inline std::string milliseconds(Duration span) {
  return std::to_string(std::max<std::int64_t>(std::chrono::ceil<std::chrono::milliseconds>(span).count(), 0));
}

/// What everything of one transport shares: where the server is, and the pool of connections on which commands are pipelined.
/// Publishes have the first connection for themselves, which keeps their order. Blocking reads have connections of their own.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(boost::asio::any_io_executor executor, std::shared_ptr<Clock> clock, const std::string& connection_string,
          const Options& options);

  /// A new connection, outside of the pool.
  awaitable<std::shared_ptr<Connection>> connect(TimePoint deadline);
  /// The connection on which publishes go; opened if it is not. Throws `connection_failed` and so on.
  awaitable<std::shared_ptr<Connection>> publishing(TimePoint deadline) { return pooled(0, deadline); }
  /// The one for all other commands about this topic.
  awaitable<std::shared_ptr<Connection>> commands(std::string_view topic, TimePoint deadline);
  /// The same, only if it is open.
  [[nodiscard]] std::shared_ptr<Connection> open_commands(std::string_view topic) const { return if_open(index_of(topic)); }
  [[nodiscard]] std::shared_ptr<Connection> open_publishing() const { return if_open(0); }

  /// A command, on the connection for this topic. Throws for an error reply.
  awaitable<Kept> ask(std::string topic, std::vector<std::string> words, std::string what);

  /// Asks the server for what `persistence` says.
  awaitable<void> learn(std::shared_ptr<Connection> connection);

  void close();
  [[nodiscard]] TimePoint deadline() const { return clock->now() + connect_timeout; }
  void lost(const std::string& why) {
    was_lost = true;
    reports.lost(why);
  }
  void reconnected() {
    if (std::exchange(was_lost, false)) reports.reconnected();
    reports.whole();
  }

  boost::asio::any_io_executor executor;
  std::shared_ptr<Clock> clock;
  Options options;
  Address address;
  Duration connect_timeout;
  std::string client_name;
  TransportReports reports;
  bool was_lost = false;
  bool closed = false;
  /// Whether the publishing connection before the present one is known to be ended at the server.
  bool fenced = false;
  std::mt19937_64 random;
  /// False once the server did not know `XAUTOCLAIM`.
  bool has_autoclaim = true;
  /// What the server keeps of what it has acknowledged, in words; known once it was asked.
  std::string persistence;

 private:
  struct Slot {
    std::shared_ptr<Connection> connection;
    std::shared_ptr<Connection> next;  ///< Open, and not known to be fit for use yet.
    bool opening = false;
  };
  awaitable<std::shared_ptr<Connection>> pooled(std::size_t index, TimePoint deadline);
  [[nodiscard]] std::shared_ptr<Connection> if_open(std::size_t index) const;
  [[nodiscard]] std::size_t index_of(std::string_view topic) const;
  void report_pool() const;
  void require_open() const;
  /// Throws `unsupported` where the server cannot do what the options want of it.
  awaitable<void> check_promises(std::shared_ptr<Connection> connection);
  /// Looks after all connections now, and again and again while the session is there.
  void look_after_connections();

  std::unique_ptr<boost::asio::ssl::context> tls_;
  std::vector<Slot> slots_;
  std::vector<std::weak_ptr<Connection>> made_;  // those of the pool and the others
  Duration idle_limit_;
  bool said_too_few_ = false;
  Signal opened_;
  std::unique_ptr<Timer> next_look_;  // none until a connection was made
};

}  // namespace maestro::messaging::redis

#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>

#include "brokers/kafka/handles.hpp"
#include "brokers/kafka/session.hpp"

namespace maestro::messaging::kafka {

/// One `rd_kafka_t` and the queue of its events. Whoever holds a message of it holds it too. Its end may block, and so happens
/// on another thread.
class Client {
 public:
  /// Throws what librdkafka says against the configuration.
  Client(rd_kafka_type_t type, ConfHandle properties);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  [[nodiscard]] rd_kafka_t* get() const noexcept { return client_; }
  [[nodiscard]] rd_kafka_queue_t* events() const noexcept { return events_; }
  /// The next event that is there, if any.
  [[nodiscard]] EventHandle poll() const { return EventHandle(rd_kafka_queue_poll(events_, 0)); }

 private:
  rd_kafka_t* client_ = nullptr;
  rd_kafka_queue_t* events_ = nullptr;
};

/// Calls `ready` on the executor when the client's queue of events has become non-empty. librdkafka rings only then: `ready`
/// has to poll until nothing is left.
class EventWatch : public std::enable_shared_from_this<EventWatch> {
 public:
  static std::shared_ptr<EventWatch> start(const boost::asio::any_io_executor& executor, std::shared_ptr<Client> client,
                                           std::function<void()> ready);
  EventWatch(const boost::asio::any_io_executor& executor, std::shared_ptr<Client> client, std::function<void()> ready);
  ~EventWatch() { stop(); }
  EventWatch(const EventWatch&) = delete;
  EventWatch& operator=(const EventWatch&) = delete;

  void stop();

 private:
  void wait();

  boost::asio::posix::stream_descriptor descriptor_;
  std::shared_ptr<Client> client_;
  std::function<void()> ready_;
};

}  // namespace maestro::messaging::kafka

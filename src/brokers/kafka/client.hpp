#pragma once

#include <atomic>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "brokers/kafka/handles.hpp"
#include "brokers/kafka/session.hpp"
#include "brokers/kafka/trouble.hpp"

namespace maestro::messaging::kafka {

/// One `rd_kafka_t`, the queue of its events, and for a consumer that of its messages, which come in batches from there.
/// Whoever holds a message of it holds it too. Its end may block, and so happens on another thread.
class Client : public std::enable_shared_from_this<Client> {
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
  /// The partition's messages go to the queue of messages from now on, whenever it is assigned. They must not come as events:
  /// those take a look at the clock each.
  void redirect(const std::string& topic, std::int32_t partition) const;
  /// What its partitions met, as its log says.
  [[nodiscard]] Troubles& troubles() const { return *troubles_; }
  /// Bytes of messages that were handed out and are still in someone's hands, on whatever thread.
  [[nodiscard]] std::atomic<std::size_t>& handed_out() const { return handed_out_; }
  /// The next messages that are there, each to be destroyed; may be errors of their partitions.
  [[nodiscard]] std::span<rd_kafka_message_t*> consume(std::span<rd_kafka_message_t*> into) const;
  /// Nobody needs these messages any more, of so many bytes. To free one costs about what to handle a small one does, and less when many
  /// are freed together: they are gathered for `free_given_back`, and where that does not come in time on another thread. From any thread.
  void give_back(std::span<rd_kafka_message_t* const> messages, std::size_t bytes);
  /// Frees what was given back; for when there is nothing else to do.
  void free_given_back();

 private:
  friend class EventWatch;
  rd_kafka_t* client_ = nullptr;
  rd_kafka_queue_t* events_ = nullptr;
  rd_kafka_queue_t* messages_ = nullptr;
  mutable std::atomic<std::size_t> handed_out_ = 0;
  std::shared_ptr<Troubles> troubles_ = std::make_shared<Troubles>();
  std::mutex giving_back_;
  std::vector<rd_kafka_message_t*> given_back_;
  std::size_t given_back_bytes_ = 0;
  std::atomic<int> lots_being_freed_ = 0;
};

/// Calls `ready` on the executor when one of the client's queues has become non-empty. librdkafka rings only then: `ready`
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
  void ring_from(int descriptor);

  boost::asio::posix::stream_descriptor descriptor_;
  std::shared_ptr<Client> client_;
  std::function<void()> ready_;
};

}  // namespace maestro::messaging::kafka

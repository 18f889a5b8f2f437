#pragma once

#include <maestro/messaging/transport.hpp>
#include <memory>

#include "brokers/memory/faults.hpp"
#include "brokers/memory/hub.hpp"
#include "brokers/memory/waker.hpp"

namespace maestro::messaging::memory {

/// What every subscription of a transport shares with it.
struct Session {
  boost::asio::any_io_executor executor;
  std::shared_ptr<Clock> clock;
  std::shared_ptr<Hub> hub;
  Limits limits;
  Duration rebalance_timeout;
  Faults faults;
  TransportReports reports;
  bool closed = false;
  bool connection_lost = false;  ///< The transport's own, by an injected fault; a subscription is there again at once.
};

class MemorySubscription final : public TransportSubscription {
 public:
  MemorySubscription(std::shared_ptr<Session> session, SubscribeRequest request);
  ~MemorySubscription() override;

  std::size_t take(std::vector<Message>& into, std::size_t at_most) override;
  awaitable<void> wait() override;
  void acknowledge(std::span<const DeliveryTag> tags) override;
  void release(std::span<const DeliveryTag> tags, Duration delay) override;
  awaitable<void> commit() override;
  void pause() override;
  void resume() override;
  awaitable<void> close() override;
  awaitable<void> seek(std::string topic, std::int32_t partition, std::int64_t offset) override;
  awaitable<std::int64_t> offset_at(std::string topic, std::int32_t partition, Timestamp time) override;
  awaitable<SubscriptionState> state() override;

  Member* member() noexcept { return waker_.get(); }

 private:
  void leave();
  void reconnect();
  void require_open() const;

  std::shared_ptr<Session> session_;
  SubscribeRequest request_;
  std::string group_;
  std::shared_ptr<Waker> waker_;
  bool paused_ = false;
  bool resumed_ = false;  // and no wait has completed since
  bool closed_ = false;
  unsigned immediate_ = 0;
};

}  // namespace maestro::messaging::memory

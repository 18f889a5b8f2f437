#pragma once

#include <functional>
#include <maestro/messaging/subscription.hpp>
#include <memory>

#include "messaging/acknowledger.hpp"
#include "messaging/broker_state.hpp"
#include "messaging/turn.hpp"

namespace maestro::messaging {

class Subscription::State final : public Attached, public std::enable_shared_from_this<Subscription::State> {
 public:
  State(std::shared_ptr<MessageBroker::State> broker, SubscribeRequest request, bool auto_commit,
        std::unique_ptr<TransportSubscription> transport);
  ~State() override;

  awaitable<std::optional<Message>> next();
  std::optional<Message> try_next();
  std::vector<Message> try_next_batch(std::size_t at_most);
  awaitable<bool> ready();
  awaitable<std::vector<Message>> next_batch(std::size_t at_most);
  /// Throws `closed`.
  void require_open() const;
  void acknowledge(std::span<const Message> messages);
  void release(const Message& message, Duration delay);
  void pause();
  void resume();
  awaitable<void> seek(std::string topic, std::int32_t partition, std::int64_t offset);
  awaitable<void> seek(std::string topic, std::int32_t partition, Timestamp time);

  [[nodiscard]] const std::string& topic() const noexcept override { return request_.topic; }
  [[nodiscard]] const std::optional<std::string>& group() const noexcept override { return request_.group; }
  awaitable<SubscriptionState> subscription_state() override;
  [[nodiscard]] TimePoint last_progress() const noexcept override { return last_progress_; }
  awaitable<void> commit_handed_out() override;
  awaitable<void> close() override;

  TransportSubscription& transport_subscription() noexcept { return *transport_; }
  /// A transaction acknowledged it.
  void settled_elsewhere(DeliveryTag tag);

 private:
  /// Throws where the subscription cannot have it.
  void require_topic(const std::string& topic) const;
  /// Whether something that was fetched is still to be handed out. What another member has by now is not.
  [[nodiscard]] bool has_fetched();
  Message take_one();
  std::vector<Message> take_batch(std::size_t at_most);
  void settle(DeliveryTag tag);
  /// Asking for more means that what was handed out is done with.
  void settle_handed_out();
  /// Whether the loop has to turn before more is handed out.
  [[nodiscard]] bool is_turn_over();
  void hand_out(const Message& message);
  void drop_fetched(const std::function<bool(const Message&)>& which);
  /// What came from there is no longer of interest: not handed out, and not settled.
  void forget(std::string_view topic, std::int32_t partition);
  awaitable<bool> refill(std::size_t at_most);
  void flush_when_due();
  void flush();

  std::shared_ptr<MessageBroker::State> broker_;
  SubscribeRequest request_;
  bool auto_commit_;
  std::unique_ptr<TransportSubscription> transport_;
  Acknowledger acknowledger_;
  std::vector<Message> set_aside_;  // fetched, and not handed out while it is paused
  std::vector<Message> fetched_;
  std::size_t at_ = 0;
  std::uint64_t losses_ = 0;  // of the transport's, those that were seen
  std::vector<DeliveryTag> handed_out_;
  struct Source {
    std::string topic;
    std::int32_t partition;
  };
  boost::unordered_flat_map<std::uint64_t, Source> lanes_;  // that something was handed out of
  std::optional<std::uint64_t> last_lane_;
  TimePoint last_progress_;
  Turn turn_;
  bool has_settled_lost_ = false;  // of what another member has, and gets again
  bool flush_scheduled_ = false;
  bool closed_ = false;
};

}  // namespace maestro::messaging

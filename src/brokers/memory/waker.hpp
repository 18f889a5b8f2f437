#pragma once

#include <atomic>
#include <boost/asio/post.hpp>
#include <memory>

#include "brokers/memory/hub.hpp"
#include "runtime/notifier.hpp"

namespace maestro::messaging::memory {

/// Rings a notifier on its executor from any thread, once a burst: only while its owner is parked.
class Waker final : public Member, public std::enable_shared_from_this<Waker> {
 public:
  Waker(Clock& clock, boost::asio::any_io_executor executor) : executor_(std::move(executor)), notifier_(clock, executor_) {}

  void wake() noexcept override {
    if (!parked_.load(std::memory_order_relaxed) || !parked_.exchange(false)) return;
    boost::asio::post(executor_, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->notifier_.notify();
    });
  }

  /// Must come before the last look at what is waited for, or a ring in between is lost.
  void park() noexcept { parked_.store(true); }
  void unpark() noexcept { parked_.store(false); }
  Notifier& notifier() noexcept { return notifier_; }

 private:
  boost::asio::any_io_executor executor_;
  Notifier notifier_;
  std::atomic<bool> parked_{false};
};

}  // namespace maestro::messaging::memory

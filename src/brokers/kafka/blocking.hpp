#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/post.hpp>
#include <exception>
#include <functional>
#include <maestro/messaging/transport.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <variant>

#include "runtime/notifier.hpp"

namespace maestro::messaging::kafka {

/// Runs what librdkafka blocks in (metadata, flush, close, destroy) on one of a few threads that this process keeps for it.
/// The work owns all that it refers to, and throws nothing.
void run_blocking(std::function<void()> work);

namespace detail {

/// Where the result is left. Whoever waits is rung only while it exists, and with it its executor.
template <class Result>
struct Slot {
  std::mutex mutex;
  Notifier* waiting = nullptr;
  boost::asio::any_io_executor executor;
  std::optional<Result> result;
  std::exception_ptr error;
};

}  // namespace detail

/// Runs `work` on such a thread and completes here with its result. Cancelling the wait, or its end at `deadline` with
/// `timed_out`, leaves the work to end by itself.
template <class Result>
awaitable<Result> off_executor(std::shared_ptr<Clock> clock, boost::asio::any_io_executor executor,
                               std::function<Result()> work, TimePoint deadline) {
  using Slot = detail::Slot<Result>;
  Notifier done(*clock, executor);
  const auto slot = std::make_shared<Slot>();
  slot->waiting = &done;
  slot->executor = executor;
  struct Leave {
    Slot& slot;
    ~Leave() {
      const std::lock_guard lock(slot.mutex);
      slot.waiting = nullptr;
      slot.executor = {};  // its context may end before the work
    }
  } const leave{*slot};
  run_blocking([slot, work = std::move(work)] {
    std::optional<Result> result;
    std::exception_ptr error;
    try {
      result.emplace(work());
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(slot->mutex);
    slot->result = std::move(result);
    slot->error = error;
    if (slot->waiting)
      boost::asio::post(slot->executor, [slot] {
        if (slot->waiting) slot->waiting->notify();
      });
  });
  if (!co_await done.wait_until(deadline)) throw MessagingError(errc::timed_out, "Kafka did not answer in time");
  if (slot->error) std::rethrow_exception(slot->error);
  co_return *std::move(slot->result);
}

}  // namespace maestro::messaging::kafka

#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/execution/blocking.hpp>
#include <boost/asio/execution/context.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/require.hpp>
#include <cstddef>
#include <maestro/messaging/time.hpp>
#include <memory>
#include <thread>
#include <utility>

namespace maestro::messaging {

/// Joins the library to an event loop that is not Asio's, such as asyncio's or GLib's: everything of a broker that gets this
/// executor and this clock runs inside `run()`, on the loop's own thread. Sockets and timers are watched by one thread that the
/// process keeps for all such loops; it runs no code of a broker or a handler.
///
/// The loop watches `descriptor()` and calls `run()` when it is readable: one wake-up a burst, whatever the number of things that
/// became ready. Made by `make()` and never destroyed, for work that was left behind may still refer to it.
class ForeignLoop {
 public:
  class Executor;

  /// A loop of the calling thread's.
  static ForeignLoop& make();
  ForeignLoop(const ForeignLoop&) = delete;
  ForeignLoop& operator=(const ForeignLoop&) = delete;

  /// Readable when there is something to run. Level-triggered.
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  /// Runs what is ready, for about `budget` at most; what is left makes the descriptor readable again. On the loop's thread. What
  /// a handler of Asio's throws passes through.
  void run(Duration budget = std::chrono::milliseconds(5));
  /// When the current call of `run()` should end; in the past outside of one. For long work that wants to let the loop turn.
  [[nodiscard]] TimePoint run_until() const noexcept { return until_; }
  /// Nothing runs any more and the descriptor is closed; what waits is kept and forgotten. On the loop's thread, outside of `run()`.
  void close() noexcept;

  [[nodiscard]] Executor executor() noexcept;
  /// The machine's time; its timers belong to this loop, and cancelling one costs no detour through another thread.
  [[nodiscard]] const std::shared_ptr<Clock>& clock() const noexcept { return clock_; }
  [[nodiscard]] bool running_in_this_thread() const noexcept { return std::this_thread::get_id() == thread_; }

  /// Whether the thread that watches was ever started.
  [[nodiscard]] static bool in_use() noexcept;
  /// Stops it, for good, before the process ends: nothing wakes a loop afterwards.
  static void shut_down() noexcept;

 private:
  class LoopClock;
  class LoopTimer;
  struct Timers;

  ForeignLoop();
  ~ForeignLoop() = default;
  void ring() noexcept;
  static boost::asio::execution_context& watcher() noexcept;

  boost::asio::io_context queue_{BOOST_ASIO_CONCURRENCY_HINT_SAFE};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> open_;
  std::thread::id thread_;
  int descriptor_ = -1;
  std::atomic<bool> rung_{false};
  bool running_ = false;
  TimePoint until_{};
  std::shared_ptr<Timers> timers_;
  std::shared_ptr<Clock> clock_;
};

/// Runs on the loop's thread: at once where that is allowed and this is the thread, else at the next `run()`.
class ForeignLoop::Executor {
 public:
  explicit Executor(ForeignLoop& loop, bool may_run_now = true) noexcept : loop_(&loop), may_run_now_(may_run_now) {}

  /// Where sockets and timers are watched.
  [[nodiscard]] boost::asio::execution_context& query(boost::asio::execution::context_t) const noexcept { return watcher(); }
  [[nodiscard]] boost::asio::execution::blocking_t query(boost::asio::execution::blocking_t) const noexcept {
    return may_run_now_ ? boost::asio::execution::blocking_t(boost::asio::execution::blocking.possibly)
                        : boost::asio::execution::blocking_t(boost::asio::execution::blocking.never);
  }
  [[nodiscard]] Executor require(boost::asio::execution::blocking_t::never_t) const noexcept { return Executor(*loop_, false); }
  [[nodiscard]] Executor require(boost::asio::execution::blocking_t::possibly_t) const noexcept { return Executor(*loop_, true); }

  template <class Function>
  void execute(Function&& function) const {
    if (may_run_now_ && loop_->running_in_this_thread()) {
      std::decay_t<Function> now(std::forward<Function>(function));
      std::move(now)();
      return;
    }
    boost::asio::require(loop_->queue_.get_executor(), boost::asio::execution::blocking.never)
        .execute(std::forward<Function>(function));
    loop_->ring();
  }

  [[nodiscard]] bool running_in_this_thread() const noexcept { return loop_->running_in_this_thread(); }
  friend bool operator==(const Executor& a, const Executor& b) noexcept { return a.loop_ == b.loop_; }
  friend bool operator!=(const Executor& a, const Executor& b) noexcept { return a.loop_ != b.loop_; }

 private:
  ForeignLoop* loop_;
  bool may_run_now_;
};

inline ForeignLoop::Executor ForeignLoop::executor() noexcept { return Executor(*this); }

}  // namespace maestro::messaging

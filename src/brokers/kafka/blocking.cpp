#include "brokers/kafka/blocking.hpp"

#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <thread>

namespace maestro::messaging::kafka {
namespace {

class Pool {
 public:
  // What still runs at the end of the process gets this long; librdkafka may hang in a close that never comes.
  ~Pool() {
    if (is_fork()) return;
    std::unique_lock lock(state_->mutex);
    state_->idle.wait_for(lock, std::chrono::seconds(5), [this] { return state_->work.empty() && state_->busy == 0; });
    state_->ended = true;
    state_->wake.notify_all();
  }

  void post(std::function<void()> work) {
    if (is_fork()) return;
    const std::lock_guard lock(state_->mutex);
    if (state_->ended) return;
    state_->work.push_back(std::move(work));
    if (state_->busy + state_->work.size() > state_->threads && state_->threads < most) {
      ++state_->threads;
      std::thread([state = state_] { run(*state); }).detach();
    }
    state_->wake.notify_one();
  }

 private:
  static constexpr std::size_t most = 32;
  struct State {
    std::mutex mutex;
    std::condition_variable wake;
    std::condition_variable idle;
    std::deque<std::function<void()>> work;
    std::size_t threads = 0;
    std::size_t busy = 0;
    bool ended = false;
  };

  static void run(State& state) {
    std::unique_lock lock(state.mutex);
    for (;;) {
      state.wake.wait(lock, [&state] { return state.ended || !state.work.empty(); });
      if (state.ended) return;
      auto work = std::move(state.work.front());
      state.work.pop_front();
      ++state.busy;
      lock.unlock();
      work();
      work = nullptr;
      lock.lock();
      --state.busy;
      state.idle.notify_all();
    }
  }

  /// The threads stayed in the other process, and the mutex may be one of theirs for ever.
  [[nodiscard]] bool is_fork() const noexcept { return ::getpid() != process_; }

  std::shared_ptr<State> state_ = std::make_shared<State>();
  pid_t process_ = ::getpid();
};

}  // namespace

void run_blocking(std::function<void()> work) {
  static Pool pool;
  pool.post(std::move(work));
}

}  // namespace maestro::messaging::kafka

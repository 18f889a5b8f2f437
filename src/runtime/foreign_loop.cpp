#include <sys/eventfd.h>
#include <unistd.h>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <maestro/messaging/foreign_loop.hpp>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <tuple>
#include <vector>

namespace maestro::messaging {

namespace asio = boost::asio;
using WaitHandler = asio::any_completion_handler<void(boost::system::error_code)>;

namespace {

// The thread that watches descriptors and deadlines for all loops. Never destroyed: loops that were left behind refer to it.
class Watcher {
 public:
  static Watcher& get() {
    static auto* watcher = new Watcher;
    return *watcher;
  }

  asio::io_context& context() { return context_; }
  void stop() noexcept {
    context_.stop();
    if (thread_.joinable()) thread_.join();
  }

  static inline std::atomic<bool> started{false};

 private:
  Watcher() : thread_([this] { context_.run(); }) { started = true; }

  asio::io_context context_{BOOST_ASIO_CONCURRENCY_HINT_SAFE};
  asio::executor_work_guard<asio::io_context::executor_type> open_ = asio::make_work_guard(context_);
  std::thread thread_;
};

// Ringing and closing a descriptor exclude each other, or the ring might reach another file with its number.
std::mutex& descriptors() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

}  // namespace

/// The waits of one loop, in the order in which they are due. All of it belongs to the loop's thread.
struct ForeignLoop::Timers {
  explicit Timers(ForeignLoop& owner) : loop(owner), alarm(Watcher::get().context()) {}

  using Key = std::tuple<TimePoint, std::uint64_t>;
  struct Wait {
    WaitHandler handler;
  };

  Key add(TimePoint due, WaitHandler handler) {
    const Key key{due, serial++};
    waits.emplace(key, Wait{std::move(handler)});
    if (due < armed) arm(due);
    return key;
  }

  void complete(const Key& key, boost::system::error_code error) {
    auto node = waits.extract(key);
    if (!node) return;
    asio::post(loop.executor(), [handler = std::move(node.mapped().handler), error]() mutable { std::move(handler)(error); });
  }

  void arm(TimePoint due) {
    armed = due;
    if (due == TimePoint::max()) return;
    alarm.expires_at(due);
    alarm.async_wait([this](boost::system::error_code error) {
      if (!error) asio::post(loop.executor(), [this] { expire(); });
    });
  }

  void expire() {
    armed = TimePoint::max();
    const auto now = std::chrono::steady_clock::now();
    while (!waits.empty() && std::get<0>(waits.begin()->first) <= now) complete(waits.begin()->first, {});
    if (!waits.empty()) arm(std::get<0>(waits.begin()->first));
  }

  ForeignLoop& loop;
  asio::steady_timer alarm;
  TimePoint armed = TimePoint::max();
  std::map<Key, Wait> waits;
  std::uint64_t serial = 0;
};

class ForeignLoop::LoopTimer final : public Timer {
 public:
  explicit LoopTimer(Timers& timers) : timers_(timers) {}
  ~LoopTimer() override { cancel(); }
  LoopTimer(const LoopTimer&) = delete;
  LoopTimer& operator=(const LoopTimer&) = delete;

  void expires_at(TimePoint due) override {
    cancel();
    due_ = due;
  }
  void cancel() override {
    if (pending_) timers_.complete(*std::exchange(pending_, std::nullopt), asio::error::operation_aborted);
  }
  void async_wait(WaitHandler handler) override {
    auto slot = asio::get_associated_cancellation_slot(handler);
    const auto key = timers_.add(due_, std::move(handler));
    pending_ = key;
    if (slot.is_connected())
      slot.assign([timers = &timers_, key](asio::cancellation_type) { timers->complete(key, asio::error::operation_aborted); });
  }

 private:
  Timers& timers_;
  TimePoint due_{};
  std::optional<Timers::Key> pending_;
};

class ForeignLoop::LoopClock final : public Clock {
 public:
  explicit LoopClock(std::shared_ptr<Timers> timers) : timers_(std::move(timers)) {}
  [[nodiscard]] TimePoint now() const noexcept override { return real_->now(); }
  [[nodiscard]] Timestamp wall() const noexcept override { return real_->wall(); }
  [[nodiscard]] Timestamp wall_at(TimePoint instant) const noexcept override { return real_->wall_at(instant); }
  std::unique_ptr<Timer> make_timer(asio::any_io_executor executor) override {
    static_cast<void>(executor);  // this loop's own
    return std::make_unique<LoopTimer>(*timers_);
  }

 private:
  std::shared_ptr<Clock> real_ = Clock::real();
  std::shared_ptr<Timers> timers_;
};

ForeignLoop& ForeignLoop::make() {
  // Kept for ever, in sight of whoever looks for what was forgotten.
  static auto* all = new std::vector<ForeignLoop*>;
  const std::lock_guard lock(descriptors());
  all->push_back(new ForeignLoop);
  return *all->back();
}

ForeignLoop::ForeignLoop()
    : open_(asio::make_work_guard(queue_)),
      thread_(std::this_thread::get_id()),
      descriptor_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      timers_(std::make_shared<Timers>(*this)),
      clock_(std::make_shared<LoopClock>(timers_)) {
  if (descriptor_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

asio::execution_context& ForeignLoop::watcher() noexcept { return Watcher::get().context(); }
bool ForeignLoop::in_use() noexcept { return Watcher::started; }
void ForeignLoop::shut_down() noexcept {
  if (in_use()) Watcher::get().stop();
}

void ForeignLoop::ring() noexcept {
  if (running_in_this_thread() && running_) return;  // `run` looks again before it ends
  if (rung_.exchange(true)) return;
  const std::lock_guard lock(descriptors());
  const std::uint64_t one = 1;
  if (descriptor_ >= 0) static_cast<void>(::write(descriptor_, &one, sizeof one));
}

void ForeignLoop::run(Duration budget) {
  std::uint64_t rings = 0;
  static_cast<void>(::read(descriptor_, &rings, sizeof rings));
  rung_ = false;
  struct Running {
    ForeignLoop& loop;
    bool more = true;  // unless the queue was seen empty
    explicit Running(ForeignLoop& of, TimePoint until) : loop(of) {
      loop.running_ = true;
      loop.until_ = until;
    }
    ~Running() {
      loop.running_ = false;
      loop.until_ = {};
      if (more) loop.ring();
    }
  } running(*this, std::chrono::steady_clock::now() + budget);
  constexpr int between_looks = 8;
  for (int i = 1; queue_.poll_one() > 0; ++i)
    if (i % between_looks == 0 && std::chrono::steady_clock::now() >= until_) return;
  running.more = false;
}

void ForeignLoop::close() noexcept {
  const std::lock_guard lock(descriptors());
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

}  // namespace maestro::messaging

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <exception>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/virtual_clock.hpp>
#include <map>
#include <optional>
#include <random>

namespace maestro::messaging {

namespace asio = boost::asio;
using WaitHandler = asio::any_completion_handler<void(boost::system::error_code)>;

namespace {

struct Wait {
  asio::any_io_executor executor;
  WaitHandler handler;
};

constexpr Timestamp wall_origin{std::chrono::seconds{1'767'225'600}};  // 2026-01-01T00:00:00Z

void complete(Wait wait, boost::system::error_code error) {
  asio::post(wait.executor, [handler = std::move(wait.handler), error]() mutable { std::move(handler)(error); });
}

}  // namespace

struct VirtualClock::State {
  explicit State(std::uint64_t seed) : random(seed) {}

  // Ordered by due time, then by a random draw.
  using Key = std::tuple<TimePoint, std::uint64_t, std::uint64_t>;
  std::map<Key, Wait> waits;
  TimePoint now{};
  std::uint64_t serial = 0;
  std::mt19937_64 random;

  void cancel(const Key& key) {
    if (auto node = waits.extract(key)) complete(std::move(node.mapped()), asio::error::operation_aborted);
  }
};

namespace {

class VirtualTimer final : public Timer {
 public:
  VirtualTimer(std::shared_ptr<VirtualClock::State> state, asio::any_io_executor executor)
      : state_(std::move(state)), executor_(std::move(executor)) {}
  ~VirtualTimer() override { cancel(); }

  void expires_at(TimePoint due) override {
    cancel();
    due_ = due;
  }

  void cancel() override {
    if (!pending_) return;
    state_->cancel(*pending_);
    pending_.reset();
  }

  void async_wait(WaitHandler handler) override {
    const VirtualClock::State::Key key{due_, state_->random(), state_->serial++};
    pending_ = key;
    auto slot = asio::get_associated_cancellation_slot(handler);
    state_->waits.emplace(key, Wait{executor_, std::move(handler)});
    if (slot.is_connected())
      slot.assign([state = state_, key](asio::cancellation_type) { state->cancel(key); });
  }

 private:
  std::shared_ptr<VirtualClock::State> state_;
  asio::any_io_executor executor_;
  TimePoint due_{};
  std::optional<VirtualClock::State::Key> pending_;
};

}  // namespace

VirtualClock::VirtualClock(std::uint64_t seed) : state_(std::make_shared<State>(seed)) {}

VirtualClock::~VirtualClock() {
  // Handlers that still wait may own timers that refer to the state: let them go outside of the map.
  auto left = std::move(state_->waits);
  state_->waits.clear();
}

TimePoint VirtualClock::now() const noexcept { return state_->now; }

Timestamp VirtualClock::wall() const noexcept { return wall_at(state_->now); }
Timestamp VirtualClock::wall_at(TimePoint instant) const noexcept { return wall_origin + instant.time_since_epoch(); }

std::unique_ptr<Timer> VirtualClock::make_timer(asio::any_io_executor executor) {
  return std::make_unique<VirtualTimer>(state_, std::move(executor));
}

bool VirtualClock::run_until(asio::io_context& context, const std::function<bool()>& done) {
  for (;;) {
    context.restart();
    context.poll();
    if (done()) return true;
    if (state_->waits.empty() || std::get<TimePoint>(state_->waits.begin()->first) == TimePoint::max()) return false;
    auto node = state_->waits.extract(state_->waits.begin());
    state_->now = std::max(state_->now, std::get<TimePoint>(node.key()));
    complete(std::move(node.mapped()), {});
  }
}

void VirtualClock::run_for(asio::io_context& context, Duration span) {
  const auto end = state_->now + span;
  auto timer = make_timer(context.get_executor());
  bool reached = false;
  timer->expires_at(end);
  timer->async_wait([&reached](boost::system::error_code) { reached = true; });
  run_until(context, [&reached] { return reached; });
}

void run_virtual(asio::io_context& context, VirtualClock& clock, asio::awaitable<void> work) {
  struct Outcome {
    bool finished = false;
    std::exception_ptr failure;
  };
  const auto outcome = std::make_shared<Outcome>();
  asio::cancellation_signal cancel;
  asio::co_spawn(context, std::move(work), asio::bind_cancellation_slot(cancel.slot(), [outcome](std::exception_ptr error) {
                   *outcome = {true, error};
                 }));
  const auto finished = [outcome] { return outcome->finished; };
  if (!clock.run_until(context, finished)) {
    // Whoever waits for ever ends now, while what it refers to is still there.
    cancel.emit(asio::cancellation_type::terminal);
    clock.run_until(context, finished);
    throw MessagingError(errc::timed_out, "the coroutine waits for something that can never come: no timer is left");
  }
  if (outcome->failure) std::rethrow_exception(outcome->failure);
}

}  // namespace maestro::messaging

#include "observability/readiness.hpp"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/utf8.hpp>
#include <optional>
#include <utility>

namespace maestro::messaging {

namespace asio = boost::asio;

namespace {

constexpr std::size_t reason_limit = 1024;

/// Whether the time came, rather than the wait's being cancelled.
asio::awaitable<bool> wait(Timer& timer) {
  auto token = asio::as_tuple(asio::use_awaitable);
  auto initiate = [&timer](auto handler) { timer.async_wait(std::move(handler)); };
  auto outcome =
      co_await asio::async_initiate<decltype(token), void(boost::system::error_code)>(std::move(initiate), token);
  co_return !std::get<0>(outcome);
}

}  // namespace

/// One request that waits for answers.
struct Readiness::Waiting {
  std::size_t pending = 0;
  std::unique_ptr<Timer> timer;
};

/// One call of a check. It may outlast the requests that wait for it.
struct Readiness::Run {
  std::optional<std::vector<std::string>> reasons;
  std::vector<std::weak_ptr<Waiting>> waiting;
  asio::cancellation_signal cancel;

  /// The first answer counts, and reaches every request that waits for it.
  void settle(std::vector<std::string> answer) {
    if (reasons) return;
    reasons = std::move(answer);
    for (const auto& weak : std::exchange(waiting, {}))
      if (const auto request = weak.lock(); request && --request->pending == 0) request->timer->cancel();
  }

  /// Answers in place of the check, which may take its time to end.
  void give_up(std::vector<std::string> answer) {
    settle(std::move(answer));
    cancel.emit(asio::cancellation_type::terminal);
  }
};

struct Readiness::Entry {
  Check check;
  // While it runs it is not started again: a check that hangs for ever costs one coroutine, not one a request.
  std::shared_ptr<Run> running;
};

Readiness::Readiness(asio::any_io_executor executor, std::shared_ptr<Clock> clock, Duration limit)
    : executor_(std::move(executor)), clock_(std::move(clock)), limit_(limit) {}

Readiness::~Readiness() = default;

void Readiness::add(std::string name, Check check) {
  remove(name);
  auto entry = std::make_shared<Entry>();
  entry->check = std::move(check);
  const std::lock_guard lock(mutex_);
  entries_.insert_or_assign(std::move(name), std::move(entry));
}

void Readiness::remove(const std::string& name) {
  std::shared_ptr<Entry> entry;
  {
    const std::lock_guard lock(mutex_);
    if (auto node = entries_.extract(name)) entry = std::move(node.mapped());
  }
  if (!entry) return;
  // A request that is waiting for it has one reason less to say no.
  asio::dispatch(executor_, [entry = std::move(entry)] {
    if (const auto run = entry->running) run->give_up({});
  });
}

void Readiness::cancel_all() {
  std::vector<std::shared_ptr<Entry>> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, entry] : entries_) all.push_back(entry);
  }
  for (const auto& entry : all)
    if (const auto run = entry->running) run->give_up({"the endpoint is stopping"});
}

asio::awaitable<void> Readiness::call(std::shared_ptr<Entry> entry, std::shared_ptr<Run> run) {
  std::vector<std::string> reasons;
  try {
    auto report = co_await entry->check();
    reasons = std::move(report.not_ready);
    if (!report.ready && reasons.empty()) reasons.emplace_back("not ready");
  } catch (const MessagingError& failure) {
    reasons = {failure.detail().empty() ? failure.code().message() : failure.detail()};
  } catch (const std::exception& failure) {
    reasons = {failure.what()};
  } catch (...) {
    reasons = {"failed with an exception that is not a std::exception"};
  }
  entry->running = nullptr;
  run->settle(std::move(reasons));
}

std::shared_ptr<Readiness::Run> Readiness::start(const std::shared_ptr<Entry>& entry) {
  if (entry->running) return entry->running;
  auto run = std::make_shared<Run>();
  entry->running = run;
  // The completion handler keeps the run, and with it the signal, for as long as the slot is in use.
  asio::co_spawn(executor_, call(entry, run),
                 asio::bind_cancellation_slot(run->cancel.slot(), [run](const std::exception_ptr&) {}));
  return run;
}

asio::awaitable<std::vector<NotReady>> Readiness::ask() {
  const auto self = shared_from_this();
  std::map<std::string, std::shared_ptr<Entry>> asked;
  {
    const std::lock_guard lock(mutex_);
    asked = entries_;
  }
  const auto request = std::make_shared<Waiting>();
  request->timer = clock_->make_timer(executor_);
  request->timer->expires_at(clock_->now() + limit_);
  std::vector<std::pair<std::string, std::shared_ptr<Run>>> runs;
  for (const auto& [name, entry] : asked) {
    auto run = start(entry);
    if (!run->reasons) {  // else it answered at once, or hangs since an earlier request gave it up
      ++request->pending;
      run->waiting.push_back(request);
    }
    runs.emplace_back(name, std::move(run));
  }
  if (request->pending > 0 && co_await wait(*request->timer)) {
    const auto late = fmt::format("no answer within {} s", std::chrono::duration<double>(limit_).count());
    for (const auto& [name, run] : runs)
      if (!run->reasons) run->give_up({late});
  }
  std::vector<NotReady> all;
  for (const auto& [name, run] : runs)
    if (run->reasons)
      for (const auto& reason : *run->reasons) all.push_back({to_utf8(name), to_utf8(cut_utf8(reason, reason_limit))});
  co_return all;
}

}  // namespace maestro::messaging

#pragma once

#include <boost/asio/cancellation_signal.hpp>
#include <functional>
#include <list>
#include <maestro/messaging/consumer.hpp>
#include <maestro/messaging/dead_letter.hpp>
#include <maestro/messaging/retry.hpp>
#include <memory>

#include "messaging/acknowledger.hpp"
#include "messaging/broker_state.hpp"
#include "reliability/key_lanes.hpp"

namespace maestro::messaging {

struct EventConsumer::Route::State {
  std::string topic;
  EventHandler handler;
  std::optional<std::string> dead_letter_topic;
};

/// The engine of an EventConsumer. Fetchers (one a route) fill the lanes; workers take one message of a lane at a time;
/// a timekeeper lets lanes go on whose pause is over. A worker that finds more work than it can do wakes one other, which
/// wakes the next: handlers that complete at once are run by a single worker, slow ones by all of them.
class EventConsumer::State final : public std::enable_shared_from_this<EventConsumer::State> {
 public:
  State(std::shared_ptr<MessageBroker::State> broker, EventConsumerOptions options);

  void add(std::shared_ptr<Route::State> route);
  /// `stops` is that of when it was called: a stop() before its first step ends it. So does one before the first start().
  awaitable<void> start(std::uint64_t stops);
  [[nodiscard]] std::uint64_t stops() const noexcept { return begun_ ? stops_ : 0; }
  void request_stop();
  static awaitable<ReadinessReport> readiness(std::shared_ptr<State> self);
  [[nodiscard]] std::string explain() const;
  [[nodiscard]] CircuitState circuit() const;
  void pause();
  void resume();

  ConsumerCounts counts;
  [[nodiscard]] const std::string& group() const noexcept { return group_; }
  [[nodiscard]] boost::asio::any_io_executor executor() const { return broker_->executor; }

 private:
  struct Feed;   // a route at work
  struct Item {  // a message in a lane
    Item(Feed& from, std::size_t size, Message&& received)
        : feed(&from), bytes(size), tag(received.tag()), message(std::move(received)) {}
    Feed* feed;
    std::size_t bytes;
    DeliveryTag tag;
    Message message;  // in the event while its handler runs
    int failures = 0;
    Timestamp first_failed_at{};
    std::optional<std::uint64_t> claim;       // of the deduplication store
    std::unique_ptr<Failure> dead_letter;     // waits to be written
    int dead_letter_tries = 0;
    bool is_done = false;                     // handled or dead-lettered, and only the store does not know yet
    int busy = 0;                             // times that the store said that another has it
    int store_failures = 0;                   // in a row
    CircuitBreaker::Call call;                // that of the try which is on its way
    unsigned circuit_opened = 0;              // how often it had, when that try began
  };
  using Lanes = KeyLanes<Item>;
  struct Worker {
    explicit Worker(Clock& clock, const boost::asio::any_io_executor& executor) : wake(clock, executor) {}
    Notifier wake;
    boost::asio::cancellation_signal cancel;
  };

  /// Opens it, and fetches until it is stopped.
  static awaitable<void> run_feed(std::shared_ptr<State> self, std::shared_ptr<Feed> feed);
  static awaitable<void> run_worker(std::shared_ptr<State> self, std::shared_ptr<Worker> worker);
  static awaitable<void> run_timekeeper(std::shared_ptr<State> self);
  awaitable<void> fetch(Feed& feed);
  /// Whether there is more to do before the handler than to call it.
  [[nodiscard]] bool is_plain(const Item& item) const noexcept {
    return !item.dead_letter && (item.claim || !options_.deduplication) && !item.is_done;
  }
  /// True when the handler is to be called.
  awaitable<bool> prepare(Lanes::LaneId lane);
  awaitable<void> handle(const Event& event, const EventHandler& handler);
  awaitable<bool> claimed(Lanes::LaneId lane, Item& item);
  /// Whether the deduplication store has it as done, should one be asked. Else its lane is parked until the next try.
  awaitable<bool> recorded(Lanes::LaneId lane);
  /// Whether the store did what it was told; it is said once an outage that it did not.
  awaitable<bool> told(awaitable<void> store);
  void await_store(Lanes::LaneId lane);
  void judge_store(const std::exception_ptr& error);
  void succeeded(Lanes::LaneId lane);
  void tell_circuit_of_success(CircuitBreaker::Call call);
  /// In the metrics, when it has changed: other consumers show theirs in the same gauge. At rest it is closed.
  void show_circuit();
  /// What is done is counted and settled.
  void finish_done(Lanes::LaneId lane);
  void count_done(const Item& item);
  awaitable<void> failed(Lanes::LaneId lane, std::exception_ptr error);
  awaitable<void> write_dead_letter(Lanes::LaneId lane);
  void settle(Lanes::LaneId lane);
  void finish(Lanes::LaneId lane);
  void park(Lanes::LaneId lane, Duration pause);
  /// Opens the subscriptions and sets them to work; waits for a broker that is not there.
  static awaitable<void> open(std::shared_ptr<State> self);
  void spawn(awaitable<void> task, boost::asio::cancellation_signal& signal);
  awaitable<void> drain();
  /// Of what no handler has in work: left unsettled, and goes to another member.
  awaitable<void> drop_waiting(std::function<bool(const Item&)> which);
  /// Whether another member has some of it by now.
  [[nodiscard]] bool has_lost() const;
  awaitable<void> drop_lost();
  void push(Feed& feed, Message&& message);
  /// A pattern sees dead letters too; those are for consumers that ask for them.
  [[nodiscard]] bool is_dead_letter_of_pattern(const Route::State& route, std::string_view topic) const;
  void check_dead_letter_topics() const;
  void wake_one();
  void schedule_flush();
  void flush_acknowledgements();
  void wake_fetchers();
  void fail_for_good(std::exception_ptr error);
  [[nodiscard]] bool may_take();
  [[nodiscard]] bool is_full() const { return lanes_.size() >= prefetch_ || held_bytes_ >= most_held_bytes_; }
  [[nodiscard]] std::string dead_letter_topic_of(const Feed& feed, const Message& message) const;
  void check_promises() const;

  std::shared_ptr<MessageBroker::State> broker_;
  EventConsumerOptions options_;
  std::string group_;
  std::string group_origin_;
  std::size_t concurrency_;
  std::size_t prefetch_;
  std::size_t most_held_bytes_;  // the other half of what may be held is the transport's
  bool dead_letters_;
  Duration drain_timeout_;
  OffsetReset reset_;
  RetryOptions retry_options_;
  RetryPolicy retry_;
  std::shared_ptr<Serializer> serializer_;
  std::optional<CircuitBreaker> circuit_;
  CircuitState shown_circuit_ = CircuitState::closed;
  CircuitBreaker::Call call_;  // what the last `may_take` was allowed

  std::vector<std::shared_ptr<Route::State>> routes_;
  std::uint64_t stops_ = 0;  // requests to stop
  bool begun_ = false;       // a start() has taken its first step
  bool running_ = false;
  bool stopping_ = false;
  bool paused_ = false;
  bool store_is_away_ = false;
  std::exception_ptr fatal_;
  Notifier stop_;
  Notifier drained_;
  Notifier timekeeper_;
  boost::asio::cancellation_signal cancel_opening_;
  boost::asio::cancellation_signal cancel_timekeeper_;
  std::vector<std::shared_ptr<Feed>> opening_;
  std::vector<std::shared_ptr<Feed>> feeds_;
  std::vector<std::shared_ptr<Feed>> left_behind_;  // of earlier starts
  Lanes lanes_;
  std::size_t held_bytes_ = 0;  // in the lanes
  std::size_t unwritten_ = 0;   // messages in the lanes whose dead letter could not be written yet
  std::list<std::shared_ptr<Worker>> workers_;
  std::vector<Worker*> idle_;
  bool wake_pending_ = false;
  bool flush_scheduled_ = false;
  std::size_t tasks_ = 0;        // the opening, fetchers, workers and the timekeeper
  std::size_t handlers_ = 0;     // messages in process
  std::uint64_t unkeyed_ = 0;
};

}  // namespace maestro::messaging

#pragma once

#include <array>
#include <boost/intrusive/list.hpp>
#include <deque>
#include <maestro/messaging/transport.hpp>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>

#include "brokers/kafka/administration.hpp"
#include "brokers/kafka/client.hpp"
#include "brokers/kafka/failure.hpp"
#include "brokers/kafka/spread.hpp"
#include "runtime/signal.hpp"

namespace maestro::messaging::kafka {

/// The idempotent producer. A publish is one `Batch`: its messages are counted down by the delivery reports, which come in bursts. Of
/// messages that were handed over only librdkafka keeps anything.
class Producer : public std::enable_shared_from_this<Producer> {
 public:
  Producer(std::shared_ptr<Session> session, std::shared_ptr<Topics> topics);
  ~Producer();

  /// Throws `authentication_failed | tls_failed | connection_failed` within `limit`.
  awaitable<void> connect(Duration limit);
  /// Waits for what is outstanding, for `limit` at most.
  awaitable<void> close(Duration limit);
  awaitable<void> publish(std::span<OutgoingMessage> messages, std::span<PublishResult> results, TimePoint deadline);
  std::size_t hand_over(std::span<OutgoingMessage> messages, std::shared_ptr<HandedOver> outcome);

  /// The next publish to it looks whether it is there, and what it takes.
  void forget(const std::string& topic);

  [[nodiscard]] const std::shared_ptr<Client>& client() const noexcept { return client_; }

 private:
  struct Batch;
  struct Slot;
  struct Outlet;
  class Route;

  void open();
  std::shared_ptr<EventWatch> watch(const std::shared_ptr<Client>& client);
  void drop_clients();
  void serve();
  /// Takes in what the clients say, and gives them nothing.
  void hear_all();
  void hear(const Client& client);
  void on_error(const Client& client, const rd_kafka_event_t& event);
  void on_delivery(const rd_kafka_message_t& report);
  /// The answer to the message that was to open a partition.
  void on_opening(const Slot& slot, const rd_kafka_message_t& report);
  void on_own_delivery(Batch& batch, const Slot& slot, const rd_kafka_message_t& report);
  void on_kept_delivery(Batch& batch, const Slot& slot, const rd_kafka_message_t& report);
  /// It was said to be, and where. What librdkafka takes for a duplicate has no place, and need not be one: see `Openings`.
  [[nodiscard]] bool was_taken(const rd_kafka_message_t& report) const noexcept;
  /// Why a report's message was not published, as far as is known; a topic that is gone is looked for again.
  Failure failure_of(const rd_kafka_message_t& report, const OutgoingMessage& message);
  void settle(Batch& batch);
  void wake_settled();
  Batch& new_batch();
  void recycle(Batch& batch);
  /// Gives messages to the client, in order and as many at once as can go together, until its queue is full: how many it dealt with.
  /// `slot_of(i)` is the opaque of message i; `refuse(i, failure)` hears of one that is not taken, and `hold(i, outlet)` of
  /// one whose partition has to take another one first; they say whether to go on.
  std::size_t give_all(std::size_t count, auto message_of, auto slot_of, auto refuse, auto hold);
  /// Gives a publish's messages to the client, at once or with others.
  void gather(Batch& batch);
  /// Whether as much waits as is under way, which a request more is for then.
  [[nodiscard]] bool is_worth_a_request() const noexcept;
  void give_gathered();
  /// What was held there goes on, if its time is not over.
  void gather_again(Outlet& outlet);
  /// What is held for long may go elsewhere, where it has no key.
  void free_what_is_held(TimePoint now);
  /// These were not given, and will not be.
  void refuse_all(std::vector<Slot*> slots, const std::function<Failure(const OutgoingMessage&)>& why);
  [[nodiscard]] Failure held_too_long(const OutgoingMessage& message) const;
  /// Those of its messages that were not given yet.
  void take_back(Batch& batch);
  /// What librdkafka's refusal of a message means; none when its queue is full.
  std::optional<Failure> refusal_of(rd_kafka_resp_err_t error, const OutgoingMessage& message);
  [[nodiscard]] Failure no_room() const;
  [[nodiscard]] bool ready_for(std::span<const OutgoingMessage> messages);
  /// Until those before it have found their topics, and then until its own are found.
  awaitable<void> wait_in_line(Batch& batch);
  awaitable<void> ensure_topics(std::span<OutgoingMessage> messages, std::span<PublishResult> results, TimePoint deadline);
  struct Outlet {
    std::shared_ptr<Client> client;
    TopicHandle handle;
    Spread spread;
    Openings openings;
    std::vector<Slot*> held;  // gathered, in order, for partitions that have to take another message first
    TimePoint held_since;
  };
  Outlet& outlet_of(const std::string& topic);
  /// One whose batches the topic takes.
  std::shared_ptr<Client> client_for(const std::string& topic);
  void at_end_of_turn();
  void linger_until(TimePoint time);
  void schedule_sweep();
  void sweep();
  void look_for_hindrances(TimePoint now);
  static awaitable<void> look_for_hindrance(std::shared_ptr<Producer> self, std::string topic);
  /// Nothing, unless it was looked at lately.
  [[nodiscard]] Hindrance hindrance_of(std::string_view topic) const;
  /// Ends the wait of those batches; what has no answer yet is of unknown outcome.
  void expire(const std::function<bool(const Batch&)>& is_late);

  std::shared_ptr<Session> session_;
  std::shared_ptr<Topics> topics_;
  std::shared_ptr<Client> client_;
  std::shared_ptr<EventWatch> watch_;
  struct Narrow {
    std::shared_ptr<Client> client;
    std::shared_ptr<EventWatch> watch;
  };
  std::map<std::int64_t, Narrow> narrow_;  // clients for topics that take no batch of the usual size, by their largest
  std::int64_t largest_batch_ = 0;
  bool tells_places_ = true;  // the broker answers, and with it where a message is
  std::unordered_map<std::string, Outlet> outlets_;         // by topic
  std::pair<std::string, Outlet*> last_outlet_;  // messages of a topic come in runs
  static constexpr std::size_t most_at_once = 512;
  std::array<rd_kafka_message_t, most_at_once> records_;   // of messages that are being given
  std::vector<Slot*> gathered_;                            // messages to be given, in order
  std::vector<Outlet*> opened_;                            // where held messages may go on
  std::size_t max_message_bytes_;
  bool creates_topics_;
  Duration publish_timeout_;
  Duration message_timeout_;  // the client's own
  bool spreads_;

  struct Listed : boost::intrusive::list_base_hook<> {};
  boost::intrusive::list<Listed> pending_;
  std::vector<std::unique_ptr<Batch>> idle_;  // to be used again
  std::vector<Batch*> settled_;
  std::size_t outstanding_ = 0;
  /// Publishers that wait for a topic, in order; nobody overtakes them.
  std::deque<const void*> line_;
  Signal moved_;
  Signal answered_;
  std::unique_ptr<Timer> sweeper_;
  bool sweeping_ = false;
  bool end_of_turn_scheduled_ = false;
  Duration linger_;
  std::unique_ptr<Timer> linger_timer_;
  bool lingering_ = false;
  TimePoint lingers_since_;
  bool is_full_ = false;  // the client had no room for all that was gathered
  bool looking_ = false;
  struct Looked {
    Hindrance found;
    TimePoint at;
  };
  std::map<std::string, Looked, std::less<>> hindrances_;  // by topic, of the last seconds
  std::optional<Failure> connecting_failure_;
  bool decisive_failure_ = false;
  bool failed_for_good_ = false;
};

}  // namespace maestro::messaging::kafka

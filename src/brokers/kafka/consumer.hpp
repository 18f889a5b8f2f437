#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <maestro/messaging/transport.hpp>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "brokers/kafka/administration.hpp"
#include "brokers/kafka/failure.hpp"
#include "brokers/kafka/fetch_marks.hpp"
#include "brokers/kafka/given_out.hpp"
#include "brokers/kafka/lane.hpp"
#include "runtime/signal.hpp"

namespace maestro::messaging::kafka {

/// What stands behind a subscription: one librdkafka consumer, and the partitions that it has. Everything happens on
/// the session's executor but what blocks. `KafkaSubscription` is its face.
///
/// consumer.cpp has the way of the messages; consumer_group.cpp the rebalances and commits; private_reader.cpp the
/// assignment of a subscriber without a group; recreation.cpp what is done about a topic that was deleted and made
/// again.
class Consumer : public std::enable_shared_from_this<Consumer> {
 public:
  /// `asking` is another client, if there is one: a question of the consumer's own waits until a fetch is over.
  Consumer(std::shared_ptr<Session> session, SubscribeRequest request, std::weak_ptr<Client> asking);
  ~Consumer();

  /// Completes when the first assignment is in force, or after `limit`.
  awaitable<void> open(Duration limit);
  std::size_t take(std::vector<Message>& into, std::size_t at_most);
  awaitable<void> wait();
  void acknowledge(std::span<const DeliveryTag> tags);
  void release(std::span<const DeliveryTag> tags, Duration delay);
  [[nodiscard]] std::uint64_t losses() const noexcept { return lost_lanes_.size() + (fatal_ ? 1 : 0); }
  [[nodiscard]] bool is_lost(DeliveryTag tag) const { return fatal_ || lost_lanes_.contains(tag.lane); }
  awaitable<void> commit();
  void pause();
  void resume();
  awaitable<void> close();
  /// Leaves in the background; what was acknowledged is committed.
  void abandon();
  awaitable<void> seek(std::string topic, std::int32_t partition, std::int64_t offset);
  awaitable<std::int64_t> offset_at(std::string topic, std::int32_t partition, Timestamp time);
  awaitable<SubscriptionState> state();

  // For a transaction that settles deliveries of this consumer.
  struct Settlement {
    std::string topic;
    std::int32_t partition;
    std::int64_t place;
    Landmark landmark;
  };
  [[nodiscard]] std::optional<Settlement> settlement_of(DeliveryTag tag) const;
  /// From now on the partition's places are a matter of transactions alone. Completes when no commit from before is under way.
  /// Throws `transaction_aborted`.
  awaitable<void> enter_transactions(DeliveryTag tag);
  void settled_by_transaction(DeliveryTag tag);
  [[nodiscard]] bool is_private() const noexcept { return !request_.group; }
  [[nodiscard]] const std::shared_ptr<Client>& client() const noexcept { return client_; }
  [[nodiscard]] std::vector<std::string> topics() const;
  /// Whether librdkafka's statistics say that no rebalance is under way.
  [[nodiscard]] static bool is_steady(rd_kafka_event_t* statistics);
  /// Whether they say that it has not asked to join, for there is no topic to read.
  [[nodiscard]] static bool is_outside(rd_kafka_event_t* statistics);

 private:
  /// A topic may be deleted and made again, and its new log be longer, while nothing is fetched of it for so long.
  static constexpr Duration long_pause = std::chrono::milliseconds(100);
  /// How long the broker may take to give the message that tells whether the log is still the same.
  static constexpr Duration look_limit = std::chrono::seconds(5);

  using Partitions = std::map<std::string, std::int32_t, std::less<>>;  // how many, by topic
  using LaneMap = std::map<std::uint64_t, std::unique_ptr<Lane>>;

  void require_open() const;
  /// Throws why it was lost, where it was.
  void require_not_lost() const;
  /// Throws `topic_not_found | invalid_argument` where there is none.
  awaitable<void> require_partition(std::string topic, std::int32_t partition);
  [[nodiscard]] std::shared_ptr<Client> asking() const;
  void serve();
  void serve_messages();
  /// True when it is kept.
  bool on_message(Fetched message);
  void on_partition_error(const rd_kafka_message_t& message);
  void on_error(rd_kafka_event_t* event);
  /// Whether librdkafka has given this consumer up, for another has taken its place; then `lost_` has the cause.
  [[nodiscard]] bool is_fatal();
  void on_rebalance(rd_kafka_event_t* event);
  void on_commit(rd_kafka_event_t* event);
  [[nodiscard]] bool has_ready();
  [[nodiscard]] std::size_t most_of_one_lane() const;
  std::size_t take_due(std::vector<Message>& into, std::size_t at_most);
  std::size_t take_from(Lane& lane, std::vector<Message>& into, std::size_t at_most);
  void give_back(const Lane& lane, std::int64_t offset, TimePoint due);
  void mind_marks();
  [[nodiscard]] std::vector<Lane*> staying_lanes() const;
  void pause_fetching();
  void resume_fetching(const std::vector<Lane*>& lanes);
  /// After a rebalance. Lanes from `first_new` on came with it.
  void fetch_again(std::uint64_t first_new);
  void schedule_tick();
  void tick();
  void drop_ready(Lane& lane);

  enum class Cause { out_of_range, other_message, nothing_known };
  void face_troubles();
  void doubt(Lane& lane);
  void doubt_all(const std::vector<Lane*>& lanes);
  void doubt_topic(std::string_view topic);
  /// It is new when it comes back.
  void forget_what_was_there(std::string_view topic);
  void trust(Lane& lane);
  [[nodiscard]] bool is_of_its_log(Lane& lane, const rd_kafka_message_t& message);
  void begin_again(Lane& lane, Cause cause);
  static awaitable<void> find_beginning(std::shared_ptr<Consumer> self, std::uint64_t id, Cause cause);
  void forget_stored(Lane& lane);
  void move_to(const Lane& lane, std::int64_t offset);
  void mind_doubts();

  Lane* find(const std::string& topic, std::int32_t partition) const;
  Lane* lane_of(const rd_kafka_message_t& message);
  Lane& add_lane(std::string topic, std::int32_t partition, Offsets begin);
  void remove_lane(const std::string& topic, std::int32_t partition);

  struct Beginning {
    Offsets offsets;
    Landmark landmark;
  };
  static awaitable<void> assign(std::shared_ptr<Consumer> self, PartitionsHandle partitions);
  static awaitable<void> revoke(std::shared_ptr<Consumer> self, PartitionsHandle partitions, bool lost);
  /// What there is of what it subscribes to, before it does.
  awaitable<void> look_what_is_there();
  /// Whether who begins at the end begins at the end of this partition: of what was not there at first it wants everything. While it
  /// is not known what was there, all was.
  [[nodiscard]] static bool was_there(const std::optional<Partitions>& at_first, std::string_view topic, std::int32_t partition);
  [[nodiscard]] bool wants_end() const noexcept { return request_.auto_offset_reset == OffsetReset::latest; }
  awaitable<void> find_places(rd_kafka_topic_partition_list_t* partitions, std::vector<Beginning>& begin);
  void store_places();
  /// When as much is settled, or as long ago, as the options say.
  void store_places_in_time(Duration until_next_look);
  void send_commit();
  /// A commit that is answered by another generation of the group costs the member all of its partitions.
  [[nodiscard]] bool may_commit() const { return !client_->troubles().is_joining(); }
  [[nodiscard]] PartitionsHandle unsaid_places() const;
  [[nodiscard]] PartitionsHandle parting_places(std::span<Lane* const> leaving);
  [[nodiscard]] std::function<bool()> farewell();
  void subscribe();
  void mind_what_was_given_out();
  static awaitable<void> look_at_what_was_given_out(std::shared_ptr<Consumer> self, unsigned round);
  static awaitable<void> discover(std::shared_ptr<Consumer> self);

  std::shared_ptr<Session> session_;
  SubscribeRequest request_;
  std::shared_ptr<Client> client_;
  std::weak_ptr<Client> asking_;
  std::shared_ptr<EventWatch> watch_;
  FetchMarks marks_;
  std::size_t most_at_once_;  // bytes that one take hands out
  Notifier ready_;
  Signal changed_;
  std::unique_ptr<Timer> ticker_;

  LaneMap lanes_;
  using Handle = std::pair<const void*, std::int32_t>;
  boost::unordered_flat_map<Handle, Lane*> by_handle_;
  std::pair<Handle, Lane*> last_handle_;  // messages come in runs
  std::uint64_t next_lane_ = 1;
  std::set<std::uint64_t> lost_lanes_;  // that went to another member before all that was handed out was settled
  std::uint64_t batches_ = 0;    // of messages that were taken from librdkafka
  std::uint64_t last_turn_ = 0;  // the lane that was taken from last
  bool held_back_ = false;       // a lane has more, but enough of it is unsettled
  struct GivenBack {
    std::uint64_t lane;
    std::int64_t offset;
    std::shared_ptr<Chunk> chunk;
  };
  std::multimap<TimePoint, GivenBack> due_;

  Duration commit_interval_;
  std::int64_t commit_messages_;
  std::int64_t settled_since_stored_ = 0;
  TimePoint stored_at_{};
  bool committing_ = false;
  unsigned times_unsaid_ = 0;  // that partitions were lost before their places were committed
  std::string last_commit_error_;
  bool steady_ = false;    // in the group, and no rebalance was under way when we last heard
  TimePoint steady_since_{};
  std::optional<bool> has_joined_;  // or asked to; as far as we heard
  std::optional<Partitions> partitions_at_first_;  // what comes later is read from its beginning
  GivenOut given_out_;
  bool topic_is_gone_ = false;  // as was said since the last assignment
  bool assigned_ = false;
  bool paused_ = false;
  bool resumed_ = false;  // and no wait has completed since
  rd_kafka_resp_err_t last_error_ = RD_KAFKA_RESP_ERR_NO_ERROR;  // that was told since the last rebalance
  TimePoint fetch_paused_at_{};
  bool closed_ = false;
  bool discovering_ = false;
  std::string last_discovery_error_;
  TimePoint discover_due_ = TimePoint::min();
  std::optional<Failure> lost_;
  bool fatal_ = false;  // and for all that could be done yet
  unsigned immediate_ = 0;
};

}  // namespace maestro::messaging::kafka

#include "brokers/kafka/consumer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <limits>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/topic.hpp>

#include "brokers/kafka/pattern.hpp"
#include "brokers/kafka/properties.hpp"

namespace maestro::messaging::kafka {

namespace asio = boost::asio;

namespace {

constexpr Duration tick_period = std::chrono::milliseconds(250);

std::int64_t offset_of(const Lane::HandedOut& each) { return each.last.offset; }

PartitionsHandle partitions_of(std::span<Lane* const> lanes) {
  auto partitions = make_partitions(lanes.size());
  for (const auto* lane : lanes) rd_kafka_topic_partition_list_add(partitions.get(), lane->topic.c_str(), lane->partition);
  return partitions;
}

}  // namespace

Consumer::Consumer(std::shared_ptr<Session> session, SubscribeRequest request, std::weak_ptr<Client> asking)
    : session_(std::move(session)),
      request_(std::move(request)),
      asking_(std::move(asking)),
      marks_(static_cast<std::size_t>(session_->options.integer("fetch_buffer_bytes")) / 2),
      most_at_once_(static_cast<std::size_t>(session_->options.integer("fetch_buffer_bytes")) / 16),
      ready_(*session_->clock, session_->executor),
      changed_(session_->clock, session_->executor),
      ticker_(session_->clock->make_timer(session_->executor)),
      commit_interval_(session_->options.duration("commit_interval")),
      commit_messages_(session_->options.integer("commit_messages")) {}

Consumer::~Consumer() { abandon(); }

awaitable<void> Consumer::open(Duration limit) {
  const auto self = shared_from_this();
  const auto deadline = session_->clock->now() + limit;
  // A private reader has no group, but librdkafka wants a name; it neither joins nor commits.
  const auto group = request_.group.value_or(fmt::format("maestro-private-{}", static_cast<const void*>(this)));
  client_ = std::make_shared<Client>(
      RD_KAFKA_CONSUMER,
      consumer_properties(*session_, group, request_));
  watch_ = EventWatch::start(session_->executor, client_, [weak = weak_from_this()] {
    if (const auto consumer = weak.lock()) consumer->serve();
  });
  schedule_tick();
  auto patience = deadline;
  if (is_private()) {
    asio::co_spawn(session_->executor, discover(self), asio::detached);
  } else {
    if (wants_end()) co_await look_what_is_there();
    subscribe();
    // A pattern that nothing matches yet may wait for long.
    if (is_pattern(request_.topic)) patience = std::min(deadline, session_->clock->now() + std::chrono::seconds(3));
  }
  while (!assigned_ && !lost_ && !closed_ && session_->clock->now() < patience) co_await changed_.wait_until(patience);
  require_not_lost();
}

void Consumer::subscribe() {
  const auto wanted = make_partitions(1);
  rd_kafka_topic_partition_list_add(
      wanted.get(), is_pattern(request_.topic) ? regex_of(request_.topic).c_str() : request_.topic.c_str(),
      RD_KAFKA_PARTITION_UA);
  check(rd_kafka_subscribe(client_->get(), wanted.get()), fmt::format("subscribing to \"{}\"", request_.topic));
}

void Consumer::require_open() const {
  if (closed_) throw MessagingError(errc::closed, fmt::format("the subscription to \"{}\" was closed", request_.topic));
  require_not_lost();
}

void Consumer::require_not_lost() const {
  if (lost_) throw MessagingError(lost_->code, lost_->detail);
}

void Consumer::schedule_tick() {
  ticker_->expires_at(session_->clock->now() + tick_period);
  ticker_->async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->closed_) return;
    self->tick();
    self->schedule_tick();
  });
}

// Polling is what tells the group that we are alive, however long a handler takes.
void Consumer::tick() {
  const auto now = session_->clock->now();
  serve();
  if (client_->troubles().any()) face_troubles();
  mind_doubts();
  store_places_in_time(tick_period);
  mind_what_was_given_out();
  if (is_private() && assigned_ && now >= discover_due_ && !discovering_)
    asio::co_spawn(session_->executor, discover(shared_from_this()), asio::detached);
}

void Consumer::serve() {
  if (closed_ || !client_) return;
  const auto self = shared_from_this();
  const auto client = client_;
  while (auto event = client->poll()) {
    switch (rd_kafka_event_type(event.get())) {
      case RD_KAFKA_EVENT_REBALANCE:
        on_rebalance(event.get());
        break;
      case RD_KAFKA_EVENT_OFFSET_COMMIT:
        on_commit(event.get());
        break;
      case RD_KAFKA_EVENT_STATS:
        if (!std::exchange(steady_, is_steady(event.get())) && steady_) {
          steady_since_ = session_->clock->now();
          changed_.ring();
        }
        has_joined_ = has_joined_.value_or(false) || !is_outside(event.get());
        break;
      case RD_KAFKA_EVENT_ERROR:
        on_error(event.get());
        break;
      default:
        break;
    }
  }
  serve_messages();
  if (has_ready()) ready_.notify();
}

void Consumer::serve_messages() {
  std::array<Fetched, 512> room;
  for (;;) {
    const auto batch = client_->consume(room);
    if (batch.empty()) return;
    ++batches_;
    session_->answered();
    // What was fetched after a trouble comes after it was noted.
    if (client_->troubles().any()) face_troubles();
    for (auto* message : batch)
      if (!on_message(message)) rd_kafka_message_destroy(message);
    mind_marks();
  }
}

bool Consumer::on_message(Fetched message) {
  if (message->err) {
    on_partition_error(*message);
    return false;
  }
  auto* lane = lane_of(*message);
  if (!lane || lane->draining) return false;
  // What was in hand then may be of either log, and is read again.
  if (lane->doubted_in == batches_) return false;
  if (lane->log != Lane::Log::known && !is_of_its_log(*lane, *message)) return false;
  if (!lane->offsets.accept(message->offset)) return false;
  lane->ready.push_back(message);
  marks_.add(bytes_of(*message));
  return true;
}

void Consumer::on_partition_error(const rd_kafka_message_t& message) {
  if (message.err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
    auto* lane = lane_of(message);
    if (!lane || lane->draining || lane->doubted_in == batches_) return;  // what came before the end may have been dropped
    // The last message would be before the end of its log.
    if (lane->log == Lane::Log::doubted && message.offset <= lane->last().offset)
      begin_again(*lane, Cause::other_message);
    if (lane->log == Lane::Log::doubted) trust(*lane);  // a compaction took the last message away
    if (lane->log == Lane::Log::known) lane->offsets.reached_end(message.offset);
    const auto is_at_end = [](const auto& each) { return each.second->offsets.is_at_end(); };
    if (!session_->trouble.empty() && std::ranges::all_of(lanes_, is_at_end)) session_->whole();
    return;
  }
  if (is_of_topic(message.err) || message.err == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION) doubt_topic(rd_kafka_topic_name(message.rkt));
  log(LogLevel::warning, describe(message.err, "consuming", rd_kafka_message_errstr(&message)).detail,
      {{"broker", "kafka"}, {"topic", request_.topic}});
}

void Consumer::on_error(rd_kafka_event_t* event) {
  if (is_fatal()) return;  // the event may be of another kind
  const auto error = rd_kafka_event_error(event);
  auto failure = describe(error, fmt::format("the subscription to \"{}\"", request_.topic), rd_kafka_event_error_string(event));
  if (failure.code == errc::connection_failed) session_->lost(failure.detail);
  if (error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) {
    topic_is_gone_ = true;
    forget_what_was_there(request_.topic);
  }
  const bool for_good = failure.code == errc::authentication_failed || failure.code == errc::invalid_option;
  const bool passes = (is_transient(error) && !is_of_topic(error)) || error == std::exchange(last_error_, error);
  log(for_good ? LogLevel::error : passes ? LogLevel::info : LogLevel::warning, failure.detail,
      {{"broker", "kafka"}, {"topic", request_.topic}, {"group", request_.group.value_or("")}});
  if (!for_good) return;
  if (!lost_) lost_ = std::move(failure);
  ready_.notify();
  changed_.ring();
}

// Whoever asks librdkafka for anything afterwards hears that there was a fatal error, and not which.
bool Consumer::is_fatal() {
  if (fatal_) return true;
  char text[512] = "";
  const auto cause = rd_kafka_fatal_error(client_->get(), text, sizeof text);
  if (!cause) return false;
  fatal_ = true;
  lost_ = describe(cause, fmt::format("the subscription to \"{}\"", request_.topic), text);
  log(LogLevel::error, lost_->detail, {{"broker", "kafka"}, {"topic", request_.topic}, {"group", request_.group.value_or("")}});
  ready_.notify();
  changed_.ring();
  return true;
}

bool Consumer::has_ready() {
  if (paused_) return false;
  if (!due_.empty() && due_.begin()->first <= session_->clock->now()) return true;
  return std::ranges::any_of(lanes_, [most = most_of_one_lane()](const auto& each) {
    return !each.second->ready.empty() && each.second->unsettled < most;
  });
}

std::size_t Consumer::most_of_one_lane() const {
  if (!request_.keeps_shares || lanes_.size() < 2) return std::numeric_limits<std::size_t>::max();
  constexpr std::size_t kept = 4;  // a quarter of all
  return request_.prefetch - (lanes_.size() - 1) * (request_.prefetch / kept / lanes_.size());
}

std::size_t Consumer::take(std::vector<Message>& into, std::size_t at_most) {
  require_open();
  serve();
  if (paused_ || lanes_.empty()) return 0;
  auto taken = take_due(into, at_most);
  const auto before = marks_.bytes();
  const auto enough = [&] { return taken >= at_most || before - marks_.bytes() >= most_at_once_; };
  // The partitions take turns, so that a busy one starves no other.
  const auto most = most_of_one_lane();
  auto at = lanes_.upper_bound(last_turn_);
  for (std::size_t in_vain = 0; in_vain < lanes_.size() && !enough(); ++at) {
    if (at == lanes_.end()) at = lanes_.begin();
    auto& lane = *at->second;
    const bool held_back = lane.unsettled >= most;
    if (lane.ready.empty() || held_back) {
      held_back_ |= held_back;
      ++in_vain;
      continue;
    }
    taken += take_from(lane, into, std::min({at_most - taken, Chunk::capacity, most - lane.unsettled}));
    last_turn_ = lane.id;
    in_vain = 0;
  }
  mind_marks();
  return taken;
}

std::size_t Consumer::take_from(Lane& lane, std::vector<Message>& into, std::size_t at_most) {
  const auto chunk = std::make_shared<Chunk>(client_, lane.ready, lane.id, at_most, std::min(Chunk::most_bytes, most_at_once_));
  Chunk::append_to(into, chunk);
  marks_.remove(chunk->bytes());
  lane.last_taken = Landmark(chunk->last());
  lane.offsets.hand_out(lane.last_taken.offset);
  // A private reader settles nothing, and others may not: the last ones are kept for a release.
  constexpr std::size_t kept = 1024;
  while (lane.handed_out.size() >= kept && (is_private() || lane.handed_out.front().chunk.expired()))
    lane.forget_first();
  lane.handed_out.push_back({chunk, chunk->size(), lane.last_taken});
  lane.unsettled += chunk->size();
  return chunk->size();
}

std::size_t Consumer::take_due(std::vector<Message>& into, std::size_t at_most) {
  std::size_t taken = 0;
  const auto now = session_->clock->now();
  while (taken < at_most && !due_.empty() && due_.begin()->first <= now) {
    const auto [id, offset, chunk] = std::move(due_.begin()->second);
    due_.erase(due_.begin());
    const auto found = lanes_.find(id);
    const auto index = chunk->find(offset);
    if (found == lanes_.end() || !index) continue;
    into.push_back(Chunk::again(chunk, *index, ++found->second->redeliveries[offset] + 1));
    ++taken;
  }
  return taken;
}

void Consumer::mind_marks() {
  switch (marks_.change(client_->handed_out())) {
    case FetchMarks::Change::pause:
      fetch_paused_at_ = session_->clock->now();
      pause_fetching();
      break;
    case FetchMarks::Change::resume:
      resume_fetching(staying_lanes());
      if (fetch_paused_at_ <= session_->clock->now() - long_pause) doubt_all(staying_lanes());
      break;
    case FetchMarks::Change::none:
      break;
  }
}

std::vector<Lane*> Consumer::staying_lanes() const {
  std::vector<Lane*> lanes;
  for (const auto& [id, lane] : lanes_)
    if (!lane->draining) lanes.push_back(lane.get());
  return lanes;
}

void Consumer::pause_fetching() {
  const auto lanes = staying_lanes();
  const auto which = partitions_of(lanes);
  if (which->cnt > 0) rd_kafka_pause_partitions(client_->get(), which.get());
}

void Consumer::resume_fetching(const std::vector<Lane*>& lanes) {
  if (lanes.empty()) return;
  const auto which = partitions_of(lanes);
  rd_kafka_resume_partitions(client_->get(), which.get());
  // Only a request wakes the thread of a leader whose fetcher sleeps; any will do.
  run_blocking([client = client_, topic = lanes.front()->topic, partition = lanes.front()->partition] {
    ask::offset_for(client->get(), topic, partition, ask::latest, std::chrono::seconds(1));
  });
}

awaitable<void> Consumer::wait() {
  const auto self = shared_from_this();
  // Messages may always be ready: others on this executor get their turn now and then.
  constexpr unsigned turns = 16;
  if (++immediate_ % turns == 0) co_await asio::post(session_->executor, asio::use_awaitable);
  for (;;) {
    require_open();
    serve();
    if (std::exchange(resumed_, false) || has_ready()) co_return;
    client_->free_given_back();
    const auto due = due_.empty() || paused_ ? TimePoint::max() : due_.begin()->first;
    co_await ready_.wait_until(due);
  }
}

void Consumer::acknowledge(std::span<const DeliveryTag> tags) {
  if (closed_) return;
  bool drained = false;
  for (const auto& tag : tags) {
    const auto found = lanes_.find(tag.lane);
    if (found == lanes_.end()) continue;
    auto& lane = *found->second;
    const auto offset = static_cast<std::int64_t>(tag.sequence);
    settled_since_stored_ += lane.offsets.acknowledge(offset);
    for (; !lane.handed_out.empty() && lane.handed_out.front().last.offset <= offset; lane.forget_first())
      lane.landmark = lane.handed_out.front().last;
    if (!lane.redeliveries.empty()) lane.redeliveries.erase(lane.redeliveries.begin(), lane.redeliveries.upper_bound(offset));
    drained |= lane.draining && lane.offsets.all_settled();
  }
  if (drained) changed_.ring();
  if (std::exchange(held_back_, false)) ready_.notify();
  store_places_in_time({});
}

void Consumer::release(std::span<const DeliveryTag> tags, Duration delay) {
  if (closed_) return;
  const auto due = session_->clock->now() + delay;
  for (const auto& tag : tags)
    if (const auto found = lanes_.find(tag.lane); found != lanes_.end())
      give_back(*found->second, static_cast<std::int64_t>(tag.sequence), due);
  ready_.notify();
}

void Consumer::give_back(const Lane& lane, std::int64_t offset, TimePoint due) {
  const auto found = std::ranges::lower_bound(lane.handed_out, offset, {}, offset_of);
  if (found == lane.handed_out.end()) return;
  if (auto chunk = found->chunk.lock()) due_.emplace(due, GivenBack{lane.id, offset, std::move(chunk)});
}

void Consumer::pause() { paused_ = true; }

void Consumer::resume() {
  paused_ = false;
  resumed_ = true;
  ready_.notify();
}

Lane* Consumer::find(const std::string& topic, std::int32_t partition) const {
  for (const auto& [id, lane] : lanes_)
    if (lane->partition == partition && lane->topic == topic) return lane.get();
  return nullptr;
}

Lane* Consumer::lane_of(const rd_kafka_message_t& message) {
  const Handle handle(message.rkt, message.partition);
  if (handle != last_handle_.first) {
    const auto [found, is_new] = by_handle_.try_emplace(handle, nullptr);
    if (is_new) found->second = find(rd_kafka_topic_name(message.rkt), message.partition);
    last_handle_ = {handle, found->second};
  }
  return last_handle_.second;
}

Lane& Consumer::add_lane(std::string topic, std::int32_t partition, Offsets begin) {
  remove_lane(topic, partition);
  client_->redirect(topic, partition);
  const auto id = next_lane_++;
  return *lanes_.emplace(id, std::make_unique<Lane>(id, std::move(topic), partition, begin)).first->second;
}

void Consumer::drop_ready(Lane& lane) {
  for (const auto* each : lane.ready) marks_.remove(bytes_of(*each));
  lane.drop_ready();
}

void Consumer::remove_lane(const std::string& topic, std::int32_t partition) {
  by_handle_.clear();
  last_handle_ = {};
  auto* lane = find(topic, partition);
  if (!lane) return;
  drop_ready(*lane);
  lanes_.erase(lane->id);
}

std::shared_ptr<Client> Consumer::asking() const {
  const auto other = asking_.lock();
  return other ? other : client_;
}

// What is not there is not waited for, as what a rebalance may bring is.
awaitable<void> Consumer::require_partition(std::string topic, std::int32_t partition) {
  if (find(topic, partition)) co_return;
  std::function<std::vector<ask::Topic>()> look = [client = asking(), topic,
                                                   limit = session_->options.duration("connect_timeout")] {
    return ask::topics(*client, topic, limit);
  };
  const auto found = co_await session_->blocking(std::move(look));
  require_open();
  if (found.empty()) throw MessagingError(errc::topic_not_found, fmt::format("seek: the topic \"{}\" does not exist", topic));
  const auto count = found.front().partitions;
  if (partition < 0 || partition >= count)
    throw MessagingError(errc::invalid_argument,
                         fmt::format("seek: partition {} of \"{}\", which has 0 to {}", partition, topic, count - 1));
}

awaitable<void> Consumer::seek(std::string topic, std::int32_t partition, std::int64_t offset) {
  const auto self = shared_from_this();
  require_open();
  const auto limit = session_->options.duration("connect_timeout");
  const auto deadline = session_->clock->now() + limit;
  co_await require_partition(topic, partition);
  auto* lane = find(topic, partition);
  // A partition that moves is nobody's for one rebalance, and of the next one a member hears with a heartbeat.
  constexpr Duration until_heard = std::chrono::seconds(3);
  const auto patience = [&] { return steady_ ? std::min(deadline, steady_since_ + until_heard) : deadline; };
  while (!lane && session_->clock->now() < patience()) {
    co_await changed_.wait_until(patience());
    require_open();
    lane = find(topic, partition);
  }
  const auto require_ours = [&] {
    if (lane && !lane->draining) return;
    if (is_private())
      throw MessagingError(errc::timed_out, fmt::format("seek: partition {} of \"{}\" is not read yet", partition, topic));
    throw MessagingError(errc::not_owned, fmt::format("seek: partition {} of \"{}\" is another member's, who can go elsewhere in it",
                                                      partition, topic));
  };
  require_ours();
  std::function<ask::Range()> look = [client = asking(), topic, partition, limit] {
    return ask::range(client->get(), topic, partition, limit);
  };
  const auto range = co_await session_->blocking(std::move(look));
  require_open();
  lane = find(topic, partition);
  require_ours();
  // A place that the log does not have would be taken for one of another log.
  offset = offset == -1 ? range.first : offset == -2 ? range.next : std::clamp(offset, range.first, range.next);
  // Of no wait: what is in librdkafka's queue is out of date from this call on.
  const auto where = make_partitions(1);
  rd_kafka_topic_partition_list_add(where.get(), topic.c_str(), partition)->offset = offset;
  check(ErrorHandle(rd_kafka_seek_partitions(client_->get(), where.get(), 0)), fmt::format("seeking in \"{}\"", topic));
  const auto committed = lane->offsets.committed();
  forget_stored(*lane);
  add_lane(std::move(topic), partition, Offsets(offset, committed)).goes_back = !is_private() && offset < committed;
}

awaitable<std::int64_t> Consumer::offset_at(std::string topic, std::int32_t partition, Timestamp time) {
  const auto self = shared_from_this();
  require_open();
  co_await require_partition(topic, partition);
  std::function<std::int64_t()> look = [client = asking(), topic, partition, time,
                                        limit = session_->options.duration("connect_timeout")] {
    return ask::offset_at(client->get(), topic, partition, time, limit);
  };
  co_return co_await session_->blocking(std::move(look));
}

awaitable<SubscriptionState> Consumer::state() {
  const auto self = shared_from_this();
  SubscriptionState state;
  state.connected = !closed_ && !lost_;
  state.paused = paused_;
  if (closed_ || !client_) co_return state;
  struct Row {
    std::string topic;
    std::int32_t partition;
    std::int64_t high;
  };
  auto rows = std::make_shared<std::vector<Row>>();
  bool all_known = true;
  for (const auto& [id, lane] : lanes_) {
    std::int64_t low = -1;
    std::int64_t high = -1;
    rd_kafka_get_watermark_offsets(client_->get(), lane->topic.c_str(), lane->partition, &low, &high);
    if (marks_.paused() || high < 0) high = -1;
    all_known &= high >= 0;
    rows->push_back({lane->topic, lane->partition, high});
  }
  if (!all_known) {
    std::function<bool()> look = [client = client_, rows] {
      for (auto& row : *rows) {
        if (row.high >= 0) continue;
        try {
          row.high = ask::range(client->get(), row.topic, row.partition, std::chrono::seconds(2)).next;
        } catch (const MessagingError&) {
          return false;
        }
      }
      return true;
    };
    co_await session_->blocking(std::move(look));
  }
  for (const auto& row : *rows) {
    const auto* lane = find(row.topic, row.partition);
    if (lane && row.high >= 0) state.lag.push_back({row.topic, row.partition, lane->offsets.lag(row.high, is_private())});
  }
  co_return state;
}

std::vector<std::string> Consumer::topics() const {
  std::vector<std::string> names;
  for (const auto& [id, lane] : lanes_) names.push_back(lane->topic);
  return names;
}

std::optional<Consumer::Settlement> Consumer::settlement_of(DeliveryTag tag) const {
  const auto found = lanes_.find(tag.lane);
  if (closed_ || found == lanes_.end()) return std::nullopt;
  const auto& lane = *found->second;
  const auto offset = static_cast<std::int64_t>(tag.sequence);
  const auto beyond = std::ranges::upper_bound(lane.handed_out, offset, {}, offset_of);
  const auto& landmark = beyond == lane.handed_out.begin() ? lane.landmark : std::prev(beyond)->last;
  return Settlement{lane.topic, lane.partition, offset + 1, landmark};
}

// A place that is committed apart, and gets to the coordinator after that of a transaction which is not ended, would replace it:
// what the transaction settled would come again.
awaitable<void> Consumer::enter_transactions(DeliveryTag tag) {
  const auto self = shared_from_this();
  constexpr Duration look = std::chrono::milliseconds(100);
  const auto deadline = session_->clock->now() + session_->options.duration("publish_timeout");
  while (!may_commit() && !closed_ && session_->clock->now() < deadline) co_await changed_.wait_until(session_->clock->now() + look);
  const auto found = lanes_.find(tag.lane);
  if (found == lanes_.end() || found->second->in_transactions) co_return;
  auto& lane = *found->second;
  forget_stored(lane);
  lane.in_transactions = true;
  const auto place = std::max(lane.offsets.place(), lane.offsets.committed());
  if (place < 0) co_return;
  const std::shared_ptr<rd_kafka_topic_partition_list_t> places = make_partitions(1);
  add_place(*places, lane.topic, lane.partition, place, lane.landmark);
  std::function<rd_kafka_resp_err_t()> commit = [client = client_, places] { return rd_kafka_commit(client->get(), places.get(), 0); };
  const auto error = co_await session_->blocking(std::move(commit));
  const auto still = lanes_.find(tag.lane);
  if (!error) {
    if (still != lanes_.end()) still->second->offsets.commit_done(place);
    co_return;
  }
  if (still != lanes_.end()) still->second->in_transactions = false;
  if (is_fatal()) require_not_lost();
  throw MessagingError(errc::transaction_aborted, describe(error, "committing the places before the transaction").detail);
}

void Consumer::settled_by_transaction(DeliveryTag tag) {
  if (const auto found = lanes_.find(tag.lane); found != lanes_.end())
    found->second->offsets.commit_done(static_cast<std::int64_t>(tag.sequence) + 1);
  acknowledge({&tag, 1});
}

}  // namespace maestro::messaging::kafka

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <maestro/messaging/log.hpp>

#include "brokers/kafka/consumer.hpp"

namespace maestro::messaging::kafka {

namespace asio = boost::asio;

namespace {

// How long leaving may hold up `close()`; it goes on in the background.
constexpr Duration leave_limit = std::chrono::seconds(10);
constexpr Duration commit_pause = std::chrono::milliseconds(100);

std::string names_of(const rd_kafka_topic_partition_list_t& partitions) {
  std::string names;
  for (int i = 0; i < partitions.cnt; ++i)
    names += fmt::format("{}{}/{}", names.empty() ? "" : " ", partitions.elems[i].topic, partitions.elems[i].partition);
  return names;
}

// Blocks. A topic that is unknown may be made again in a moment, and an earlier commit, without landmarks, outlive the old one:
// then these are said as soon as the broker takes them.
rd_kafka_resp_err_t say_at_parting(const Client& client, const rd_kafka_topic_partition_list_t& places) {
  constexpr int answer_limit = 60'000;
  constexpr int most = 2000;
  constexpr int between = 50;
  const QueueHandle answers(rd_kafka_queue_new(client.get()));
  const Pause pause(client.get());
  for (int waited = 0;; waited += between) {
    if (const auto error = rd_kafka_commit_queue(client.get(), &places, answers.get(), nullptr, nullptr)) return error;
    const EventHandle answer(rd_kafka_queue_poll(answers.get(), answer_limit));
    if (!answer) return RD_KAFKA_RESP_ERR__TIMED_OUT;
    auto error = rd_kafka_event_error(answer.get());
    const auto* said = rd_kafka_event_topic_partition_list(answer.get());
    for (int i = 0; !error && said && i < said->cnt; ++i) error = said->elems[i].err;
    if (!is_of_topic(error) || waited >= most) return error;
    pause.wait(between);
  }
}

bool is_in_state(rd_kafka_event_t* statistics, std::string_view state) {
  const auto* text = rd_kafka_event_stats(statistics);
  return text && std::string_view(text).find(fmt::format("\"join_state\": \"{}\"", state)) != std::string_view::npos;
}

}  // namespace

// librdkafka waits with the rebalance, and with the next one, until it is told (un)assign; it need not be told from here.
void Consumer::on_rebalance(rd_kafka_event_t* event) {
  steady_ = false;  // another may follow at once
  given_out_.begin(client_->troubles().take_given_out(), session_->clock->now());
  last_error_ = RD_KAFKA_RESP_ERR_NO_ERROR;
  const auto what = rd_kafka_event_error(event);
  const auto* list = rd_kafka_event_topic_partition_list(event);
  auto partitions = PartitionsHandle(list ? rd_kafka_topic_partition_list_copy(list) : rd_kafka_topic_partition_list_new(0));
  log(LogLevel::info, what == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS ? "partitions assigned" : "partitions revoked",
      {{"broker", "kafka"},
       {"topic", request_.topic},
       {"group", request_.group.value_or("")},
       {"partitions", names_of(*partitions)}});
  switch (what) {
    case RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS:
      topic_is_gone_ = false;
      asio::co_spawn(session_->executor, assign(shared_from_this(), std::move(partitions)), asio::detached);
      break;
    case RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS:
      asio::co_spawn(session_->executor,
                     revoke(shared_from_this(), std::move(partitions), rd_kafka_assignment_lost(client_->get()) != 0),
                     asio::detached);
      break;
    default:
      rd_kafka_assign(client_->get(), nullptr);
  }
}

// A member has a place in each of its partitions at once, and new partitions have the highest numbers: behind the last
// one in which the group has a place, they came while none of its members ran.
awaitable<void> Consumer::look_what_is_there() {
  std::function<std::optional<Partitions>()> look = [client = client_, wanted = request_.topic]() -> std::optional<Partitions> {
    constexpr Duration limit = std::chrono::seconds(5);
    Partitions found;
    try {
      const auto places = make_partitions();
      for (const auto& topic : ask::topics(*client, wanted, limit)) {
        found.emplace(topic.name, topic.partitions);
        for (std::int32_t i = 0; i < topic.partitions; ++i)
          rd_kafka_topic_partition_list_add(places.get(), topic.name.c_str(), i);
      }
      Partitions known;  // to the group
      if (rd_kafka_committed(client->get(), places.get(), milliseconds(limit))) return found;
      for (const auto& each : std::span(places->elems, static_cast<std::size_t>(places->cnt)))
        if (!each.err && each.offset >= 0) known[each.topic] = std::max(known[each.topic], each.partition + 1);
      for (const auto& [topic, partitions] : known) found[topic] = partitions;
    } catch (const MessagingError&) {  // then nothing counts as new
      return std::nullopt;
    }
    return found;
  };
  partitions_at_first_ = co_await session_->blocking(std::move(look));
}

bool Consumer::was_there(const std::optional<Partitions>& at_first, std::string_view topic, std::int32_t partition) {
  if (!at_first) return true;
  const auto found = at_first->find(topic);
  return found != at_first->end() && partition < found->second;
}

// The group's places are asked for here, and not by librdkafka, for three reasons: the lag is known before the first message, a
// new group that starts at the end has a place at once, which outlives this member, and a place may have a landmark. Where it has
// one, reading begins there.
awaitable<void> Consumer::find_places(rd_kafka_topic_partition_list_t* partitions, std::vector<Beginning>& begin) {
  struct Place {
    std::string topic;
    std::int32_t partition;
    bool from_end;
    bool is_new = false;  // to the group
    std::int64_t committed = -1;
    std::int64_t base = -1;
    Landmark landmark = {};
  };
  auto places = std::make_shared<std::vector<Place>>();
  for (const auto& each : std::span(partitions->elems, static_cast<std::size_t>(partitions->cnt)))
    places->push_back({each.topic, each.partition, wants_end() && was_there(partitions_at_first_, each.topic, each.partition)});
  std::function<bool()> look = [client = client_, places] {
    constexpr Duration limit = std::chrono::seconds(5);
    const auto asked = make_partitions(places->size());
    for (const auto& each : *places) rd_kafka_topic_partition_list_add(asked.get(), each.topic.c_str(), each.partition);
    if (rd_kafka_committed(client->get(), asked.get(), milliseconds(limit))) return false;
    bool all_known = true;
    for (std::size_t i = 0; i < places->size(); ++i) {
      auto& place = (*places)[i];
      const auto& answer = asked->elems[i];
      all_known &= !is_transient(answer.err);
      if (answer.err) continue;
      if (answer.offset >= 0) {
        place.committed = place.base = answer.offset;
        place.landmark =
            Landmark::from_metadata({static_cast<const char*>(answer.metadata), answer.metadata_size}, answer.offset);
        continue;
      }
      place.is_new = true;
      try {
        const auto range = ask::range(client->get(), place.topic, place.partition, limit);
        place.base = place.from_end ? range.next : range.first;
      } catch (const MessagingError&) {  // librdkafka finds it itself, with patience
      }
    }
    return all_known;
  };
  // What librdkafka finds itself, after that, it does not look for the landmark of.
  const auto deadline = session_->clock->now() + session_->options.duration("rebalance_timeout");
  while (!co_await session_->blocking(look) && !closed_ && !is_fatal() && session_->clock->now() < deadline)
    co_await changed_.wait_until(session_->clock->now() + commit_pause);
  for (std::size_t i = 0; i < places->size(); ++i) {
    const auto& place = (*places)[i];
    begin[i] = {Offsets(place.base, place.committed), place.landmark};
    auto& offset = partitions->elems[i].offset;
    if (place.base >= 0) {
      offset = place.landmark.known() ? place.landmark.offset : place.base;
    } else if (place.is_new) {
      offset = place.from_end ? RD_KAFKA_OFFSET_END : RD_KAFKA_OFFSET_BEGINNING;
    }
  }
}

awaitable<void> Consumer::assign(std::shared_ptr<Consumer> self, PartitionsHandle partitions) {
  const auto count = static_cast<std::size_t>(partitions->cnt);
  std::vector<Beginning> begin(count);
  if (count > 0) co_await self->find_places(partitions.get(), begin);
  if (self->closed_) {  // whoever leaves waits until this was answered
    const ErrorHandle ignored(rd_kafka_incremental_assign(self->client_->get(), partitions.get()));
    co_return;
  }
  const auto first_new = self->next_lane_;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [offsets, landmark] = begin[i];
    auto& lane = self->add_lane(partitions->elems[i].topic, partitions->elems[i].partition, offsets);
    if (!landmark.known()) continue;
    lane.landmark = lane.last_taken = landmark;
    lane.log = Lane::Log::doubted;
    lane.doubted_until = self->session_->clock->now() + look_limit;
  }
  const ErrorHandle error(rd_kafka_incremental_assign(self->client_->get(), partitions.get()));
  if (error)
    log(LogLevel::warning, "an assignment was out of date",
        {{"broker", "kafka"}, {"topic", self->request_.topic}, {"error", rd_kafka_error_string(error.get())}});
  self->fetch_again(first_new);
  self->store_places();
  if (self->lanes_.empty()) self->session_->whole();
  self->assigned_ = true;
  self->changed_.ring();
}

// Drain, commit, let go: what was handed out is settled by this member as long as that takes no longer than rebalance_timeout;
// what was only fetched goes to the next one.
awaitable<void> Consumer::revoke(std::shared_ptr<Consumer> self, PartitionsHandle partitions, bool lost) {
  std::vector<std::uint64_t> leaving;
  for (int i = 0; i < partitions->cnt; ++i) {
    auto* lane = self->find(partitions->elems[i].topic, partitions->elems[i].partition);
    if (!lane) continue;
    lane->draining = true;
    if (lost) self->forget_stored(*lane);  // librdkafka would commit it all the same, without a landmark
    self->drop_ready(*lane);
    leaving.push_back(lane->id);
  }
  const auto still_here = [&] {
    std::vector<Lane*> lanes;
    for (const auto id : leaving)
      if (const auto found = self->lanes_.find(id); found != self->lanes_.end()) lanes.push_back(found->second.get());
    return lanes;
  };
  const auto settled = [&] {
    return std::ranges::all_of(still_here(), [](const Lane* lane) { return lane->offsets.all_settled(); });
  };
  const auto deadline = self->session_->clock->now() + self->session_->options.duration("rebalance_timeout");
  const auto is_lost = [&] { return lost = lost || self->is_fatal(); };
  while (!is_lost() && !self->closed_ && !settled())
    if (!co_await self->changed_.wait_until(deadline)) break;
  if (!is_lost() && !self->closed_ && !settled())
    log(LogLevel::warning, "messages were not settled within rebalance_timeout; another member gets them again",
        {{"broker", "kafka"}, {"topic", self->request_.topic}, {"group", self->request_.group.value_or("")}});
  // With their topic partitions are lost too, but to nobody, and a commit of before that met the topic's end may outlive it and
  // stand in the next one. So the places are said also then, if they can be told from places of another log.
  const bool is_gone = lost && self->topic_is_gone_ && !self->fatal_;
  bool said = false;
  if ((!lost || is_gone) && !self->closed_) {
    if (self->client_->troubles().any()) self->face_troubles();
    auto lanes = still_here();
    if (is_gone) std::erase_if(lanes, [](const Lane* lane) { return !lane->landmark.known(); });
    const std::shared_ptr<rd_kafka_topic_partition_list_t> places = self->parting_places(lanes);
    said = places->cnt == 0;
    if (!said) {
      std::function<rd_kafka_resp_err_t()> commit = [client = self->client_, places] { return say_at_parting(*client, *places); };
      const auto error = co_await self->session_->blocking(std::move(commit));
      said = !error;
      if (error)
        log(is_of_topic(error) ? LogLevel::info : LogLevel::warning, describe(error, "committing before a partition goes").detail,
            {{"broker", "kafka"}, {"topic", self->request_.topic}});
    }
  }
  if (!is_gone)
    for (const auto* lane : still_here())
      if (!lane->offsets.all_settled()) self->lost_lanes_.insert(lane->id);
  if (!said && std::ranges::any_of(still_here(), [](const Lane* lane) { return lane->is_dirty(); })) ++self->times_unsaid_;
  for (int i = 0; i < partitions->cnt; ++i) self->remove_lane(partitions->elems[i].topic, partitions->elems[i].partition);
  const ErrorHandle error(rd_kafka_incremental_unassign(self->client_->get(), partitions.get()));
  if (self->closed_) co_return;
  self->fetch_again(self->next_lane_);
  self->changed_.ring();
}

// Nothing was fetched while the rebalance waited for us. It began with a pause of librdkafka's own, and what was asked of a partition
// at that moment, to go elsewhere, to pause or to go on, librdkafka took for out of date and dropped: all is said again.
void Consumer::fetch_again(std::uint64_t first_new) {
  mind_marks();
  if (marks_.paused()) pause_fetching();
  auto lanes = staying_lanes();
  std::erase_if(lanes, [first_new](const Lane* lane) { return lane->id >= first_new; });
  if (!marks_.paused()) resume_fetching(lanes);
  doubt_all(lanes);
  for (const auto* lane : lanes)
    if (!lane->last().known() && lane->offsets.position() >= 0) move_to(*lane, lane->offsets.position());
}

// A group's leader gives out the partitions that it sees. Of a topic that is gone just then, and made again a moment later, those
// that change hands are nobody's, and librdkafka, which compares what it sees later with what it saw before, has no reason for
// another rebalance (2.0 to 2.15 at least). The leader looks again, and joins anew where it gave out too few.
void Consumer::mind_what_was_given_out() {
  if (steady_ && given_out_.is_due(session_->clock->now()))
    asio::co_spawn(session_->executor, look_at_what_was_given_out(shared_from_this(), given_out_.look()), asio::detached);
}

awaitable<void> Consumer::look_at_what_was_given_out(std::shared_ptr<Consumer> self, unsigned round) {
  std::function<std::int32_t()> look = [client = self->client_, wanted = self->request_.topic] {
    constexpr Duration limit = std::chrono::seconds(5);
    std::int32_t partitions = 0;
    try {
      for (const auto& topic : ask::topics(*client, wanted, limit)) partitions += topic.partitions;
    } catch (const MessagingError&) {  // the next look may be answered
    }
    return partitions;
  };
  const auto partitions = co_await self->session_->blocking(std::move(look));
  if (!self->given_out_.found(round, partitions, self->session_->clock->now()) || self->closed_) co_return;
  log(LogLevel::warning, "the topic came back while the group shared its partitions, and some are nobody's; joining the group anew",
      {{"broker", "kafka"}, {"topic", self->request_.topic}, {"group", *self->request_.group}});
  self->steady_ = false;
  rd_kafka_unsubscribe(self->client_->get());
  try {
    self->subscribe();
  } catch (const MessagingError& failure) {
    self->lost_ = Failure{failure.reason(), failure.detail()};
    self->ready_.notify();
    self->changed_.ring();
  }
}

PartitionsHandle Consumer::unsaid_places() const {
  auto places = make_partitions(lanes_.size());
  for (const auto& [id, lane] : lanes_)
    if (lane->is_dirty()) add_place(*places, lane->topic, lane->partition, lane->offsets.place(), lane->landmark);
  return places;
}

// The topic may have been deleted and made again, unheard, while this member drained, and librdkafka commits places without a
// landmark (also once more when the partition goes); so each is said with it here, and only here. A place in a log that is known
// to be another one is taken back.
PartitionsHandle Consumer::parting_places(std::span<Lane* const> leaving) {
  auto places = make_partitions(leaving.size());
  for (auto* lane : leaving) {
    forget_stored(*lane);
    const bool has_landmark = !lane->in_transactions && lane->landmark.known();
    if (lane->log == Lane::Log::other) {
      add_place(*places, lane->topic, lane->partition, 0, {});
    } else if (lane->is_dirty() || has_landmark) {
      add_place(*places, lane->topic, lane->partition, lane->offsets.place(), lane->landmark);
    }
  }
  return places;
}

// librdkafka commits on a period what is stored, but not while a rebalance is under way: a commit of ours that met a new
// generation then would cost this member all of its partitions. Before 2.2 it leaves the landmark out.
void Consumer::store_places() {
  if (is_private() || closed_ || fatal_) return;
  settled_since_stored_ = 0;
  stored_at_ = session_->clock->now();
  auto places = make_partitions(lanes_.size());
  for (const auto& [id, lane] : lanes_) {
    const auto place = lane->offsets.place();
    if (lane->in_transactions || lane->draining || lane->log != Lane::Log::known) continue;
    if (place == lane->stored || !lane->is_dirty()) continue;
    lane->stored = place;
    add_place(*places, lane->topic, lane->partition, place, lane->landmark);
  }
  if (places->cnt > 0) rd_kafka_offsets_store(client_->get(), places.get());
}

void Consumer::store_places_in_time(Duration until_next_look) {
  if (settled_since_stored_ >= commit_messages_ || session_->clock->now() + until_next_look >= stored_at_ + commit_interval_) store_places();
}

// One at a time, so that places arrive in order.
void Consumer::send_commit() {
  if (is_private() || committing_ || closed_ || fatal_ || !may_commit()) return;
  const auto places = unsaid_places();
  if (places->cnt == 0) return;
  committing_ = rd_kafka_commit_queue(client_->get(), places.get(), client_->events(), nullptr, this) == RD_KAFKA_RESP_ERR_NO_ERROR;
}

void Consumer::on_commit(rd_kafka_event_t* event) {
  if (rd_kafka_event_opaque(event) == this) committing_ = false;  // else it was librdkafka's own
  const auto* places = rd_kafka_event_topic_partition_list(event);
  auto error = rd_kafka_event_error(event);
  for (int i = 0; places && i < places->cnt; ++i) {
    const auto& each = places->elems[i];
    if (each.err) {
      error = each.err;
    } else if (!error) {
      if (auto* lane = find(each.topic, each.partition)) lane->offsets.commit_done(each.offset);
    }
  }
  if (!error || error == RD_KAFKA_RESP_ERR__NO_OFFSET) {
    last_commit_error_.clear();
  } else if (!is_fatal()) {
    auto failure = describe(error, fmt::format("committing the places of group \"{}\"", request_.group.value_or("")));
    // It is tried again; the same complaint is logged once.
    if (failure.detail != last_commit_error_)
      log(is_transient(error) ? LogLevel::info : LogLevel::warning, failure.detail, {{"broker", "kafka"}, {"topic", request_.topic}});
    last_commit_error_ = std::move(failure.detail);
  }
  changed_.ring();
}

awaitable<void> Consumer::commit() {
  const auto self = shared_from_this();
  if (is_private()) co_return;
  const auto deadline = session_->clock->now() + session_->options.duration("publish_timeout");
  const auto times_unsaid = times_unsaid_;
  for (bool tried = false;; tried = true) {
    if (closed_) co_return;
    if (is_fatal()) require_not_lost();
    if (times_unsaid_ != times_unsaid)
      throw MessagingError(errc::not_owned,
                           fmt::format("a partition of \"{}\" was lost before its place could be committed; what was not "
                                       "committed is delivered again, to whoever has it now",
                                       request_.topic));
    const auto dirty = [&] {
      return std::ranges::any_of(lanes_, [](const auto& each) { return each.second->is_dirty(); });
    };
    if (!committing_) {
      if (!dirty()) co_return;
      if (tried && !last_commit_error_.empty())
        co_await changed_.wait_until(std::min(deadline, session_->clock->now() + commit_pause));
      send_commit();
    }
    const auto look = std::min(deadline, session_->clock->now() + commit_pause);
    if (!co_await changed_.wait_until(look) && session_->clock->now() >= deadline)
      throw MessagingError(errc::timed_out, !last_commit_error_.empty() ? last_commit_error_
                                            : may_commit() ? "the broker did not answer a commit"
                                                           : "the group was sharing its partitions anew all the while");
  }
}

bool Consumer::is_steady(rd_kafka_event_t* statistics) { return is_in_state(statistics, "steady"); }

bool Consumer::is_outside(rd_kafka_event_t* statistics) {
  return is_in_state(statistics, "init") || is_in_state(statistics, "wait-metadata");
}

namespace {

bool has_member_id(const Client& client) {
  auto* id = rd_kafka_memberid(client.get());
  const bool has = id && *id;
  if (id) rd_kafka_mem_free(client.get(), id);
  return has;
}

// The end of a rebalance is waited for, and taken as it comes. Whether the member has ever been given an assignment.
bool await_steady(const Client& client, bool was_assigned) {
  constexpr int most = 20;  // statistics, each after half a second
  constexpr int half_a_second = 500;
  for (int heard = 0; heard < most;) {
    const EventHandle event(rd_kafka_queue_poll(client.events(), half_a_second));
    const auto type = event ? rd_kafka_event_type(event.get()) : RD_KAFKA_EVENT_NONE;
    if (type == RD_KAFKA_EVENT_STATS && Consumer::is_steady(event.get())) return true;
    if (type == RD_KAFKA_EVENT_STATS || type == RD_KAFKA_EVENT_NONE) ++heard;
    if (type != RD_KAFKA_EVENT_REBALANCE) continue;
    was_assigned = true;
    const auto* partitions = rd_kafka_event_topic_partition_list(event.get());
    const bool assigned = rd_kafka_event_error(event.get()) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    const ErrorHandle ignored(assigned ? rd_kafka_incremental_assign(client.get(), partitions)
                                       : rd_kafka_incremental_unassign(client.get(), partitions));
  }
  return was_assigned;
}

/// Goes on in the background until it has left.
void leave_in_time(const std::function<bool()>& leave) {
  run_blocking([leave] {
    if (!leave()) leave_in_time(leave);
  });
}

}  // namespace

// librdkafka 2.0.2 asserts when a consumer ends between the answer to its first request to join and its first assignment, and
// while the group's coordinator is away that may be for long: false when it could not leave yet.
std::function<bool()> Consumer::farewell() {
  std::vector<Lane*> leaving;
  for (const auto& [id, lane] : lanes_) leaving.push_back(lane.get());
  const std::shared_ptr<rd_kafka_topic_partition_list_t> places =
      is_private() || is_fatal() ? make_partitions() : parting_places(leaving);
  return [client = client_, places, in_group = !is_private(), steady = steady_ || lost_, was_assigned = assigned_,
          is_outside = !has_joined_.value_or(true)] {
    if (!in_group) return true;
    const bool never_joined = is_outside && !has_member_id(*client);
    if (!steady && !never_joined && !await_steady(*client, was_assigned)) return false;
    if (places->cnt > 0) rd_kafka_commit(client->get(), places.get(), 0);
    // librdkafka 2.0.2 closes a member that has no partition without a word to the group, which then waits for it.
    rd_kafka_unsubscribe(client->get());
    rd_kafka_consumer_close(client->get());
    return true;
  };
}

void Consumer::abandon() {
  if (std::exchange(closed_, true) || !client_) return;
  ticker_->cancel();
  if (watch_) watch_->stop();
  leave_in_time(farewell());
  lanes_.clear();
}

awaitable<void> Consumer::close() {
  const auto self = shared_from_this();
  if (std::exchange(closed_, true) || !client_) co_return;
  ticker_->cancel();
  if (watch_) watch_->stop();
  std::function<bool()> leave = [leave = farewell()] {
    const bool has_left = leave();
    if (!has_left) leave_in_time(leave);
    return has_left;
  };
  due_.clear();
  lanes_.clear();
  by_handle_.clear();
  ready_.notify();
  changed_.ring();
  bool has_left = false;
  try {
    has_left = co_await session_->blocking(std::move(leave), session_->clock->now() + leave_limit);
  } catch (const MessagingError&) {  // the time is over
  }
  if (!has_left)
    log(LogLevel::warning, "leaving the group takes long; it goes on in the background",
        {{"broker", "kafka"}, {"topic", request_.topic}, {"group", request_.group.value_or("")}});
}

}  // namespace maestro::messaging::kafka

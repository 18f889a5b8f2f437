#include "faults/load.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <fstream>
#include <iostream>
#include <random>

#include "runtime/notifier.hpp"

namespace maestro::messaging::testing {

namespace asio = boost::asio;
using namespace std::chrono_literals;

struct Load::Member {
  MessageBroker broker;
  EventConsumer consumer;
  bool ended = false;
};

Load::Load(std::string url, Plan plan, ConfigMap consumer_config)
    : url_(std::move(url)), plan_(plan), consumer_config_(std::move(consumer_config)) {
  set_log_level(std::getenv("MESSAGING_LOG_LEVEL") ? LogLevel::info : LogLevel::off);
  const auto run = fmt::format("{:08x}", std::random_device{}());
  topic_ = "faults." + run;
  group_ = "faults-" + run;
}

Load::~Load() = default;

MessageBroker Load::broker() const {
  auto config = MessagingConfig::from_url(url_);
  config.consumer_config = consumer_config_;
  return {const_cast<asio::io_context&>(context_).get_executor(), std::move(config)};
}

awaitable<void> Load::sleep(Duration span) const {
  co_await sleep_for(*clock_, span);
}

awaitable<void> Load::until(std::function<bool()> condition, Duration patience) const {
  const auto deadline = clock_->now() + patience;
  while (!condition()) {
    if (clock_->now() > deadline) throw std::runtime_error("the condition did not come true");
    co_await sleep(10ms);
  }
}

std::string Load::key_of(int writer, int index) {
  return fmt::format("w{}k{}", writer, index);
}

OutgoingMessage Load::next_message(const std::string& key) {
  auto& state = keys_[key];
  OutgoingMessage message;
  message.topic = topic_;
  message.key = key;
  message.payload =
      Payload(fmt::format(R"({{"key":"{}","number":{},"text":"{:x>60}"}})", key, state.outcomes.size(), ""));
  message.headers.set("number", std::to_string(state.outcomes.size()));
  state.outcomes.push_back(Outcome::waiting);
  state.times_handled.push_back(0);
  ++published_;
  return message;
}

void Load::settle(const std::string& key, std::size_t number, const boost::system::error_code& error) {
  auto& outcome = keys_[key].outcomes[number];
  if (outcome == Outcome::forgotten) return;
  outcome = !error ? Outcome::acknowledged : error == errc::outcome_unknown ? Outcome::unknown : Outcome::refused;
}

awaitable<boost::system::error_code> Load::outcome_of(awaitable<Receipt> publish) {
  try {
    co_await std::move(publish);
  } catch (const MessagingError& failure) {
    ++errors_[failure.what()];
    co_return failure.code();
  }
  co_return boost::system::error_code{};
}

// Catches up by a second at most, so that an outage is not followed by a flood.
awaitable<void> Load::pace(TimePoint& due, Duration period, bool failed) {
  if (failed) co_await sleep(100ms);
  due = std::max(due + period, clock_->now() - 1s);
  if (due > clock_->now()) co_await sleep(due - clock_->now());
}

awaitable<void> Load::write_awaited(int writer) {
  const auto period = Duration(1s) * plan_.writers / plan_.rate;
  auto due = clock_->now();
  for (int turn = 0; !enough_; ++turn) {
    const auto key = key_of(writer, turn % plan_.keys_per_writer);
    const auto number = keys_[key].outcomes.size();
    const auto error = co_await outcome_of(publisher_->publish(next_message(key)));
    settle(key, number, error);
    co_await pace(due, period, static_cast<bool>(error));
  }
  --writing_;
}

awaitable<void> Load::write_batches(int writer) {
  constexpr int size = 32;
  const auto period = Duration(1s) * plan_.writers * size / plan_.rate;
  auto due = clock_->now();
  while (!enough_) {
    std::vector<OutgoingMessage> batch;
    std::vector<std::pair<std::string, std::size_t>> which;
    for (int i = 0; i < size; ++i) {
      auto key = key_of(writer, i % plan_.keys_per_writer);
      const auto number = keys_[key].outcomes.size();
      batch.push_back(next_message(key));
      which.emplace_back(std::move(key), number);
    }
    const auto results = co_await publisher_->publish_many(std::move(batch));
    bool failed = false;
    for (std::size_t i = 0; i < results.size(); ++i) {
      settle(which[i].first, which[i].second, results[i].error);
      if (results[i].error) ++errors_[results[i].detail];
      failed |= static_cast<bool>(results[i].error);
    }
    co_await pace(due, period, failed);
  }
  --writing_;
}

awaitable<void> Load::write_buffered(int writer) {
  constexpr int size = 200;
  const auto period = Duration(1s) * plan_.writers * size / plan_.rate;
  auto due = clock_->now();
  while (!enough_) {
    std::map<std::pair<std::string, std::size_t>, boost::system::error_code> outcomes;
    for (int i = 0; i < size; ++i) {
      const auto key = key_of(writer, i % plan_.keys_per_writer);
      const auto number = keys_[key].outcomes.size();
      auto message = next_message(key);
      PublishOptions options{.key = key, .headers = message.headers, .confirm = false};
      outcomes[{key, number}] =
          co_await outcome_of(buffered_->publish(topic_, std::move(message.payload), std::move(options)));
    }
    const auto report = co_await buffered_->flush();
    for (const auto& failure : report.failures) {
      const auto number = std::stoul(std::string(*failure.message.headers.view().find("number")));
      outcomes[{*failure.message.key, number}] = failure.error;
      ++errors_[failure.detail];
    }
    for (const auto& [which, error] : outcomes) settle(which.first, which.second, error);
    co_await pace(due, period, !report.failures.empty());
  }
  --writing_;
}

void Load::note_handled(const std::string& key, std::size_t number) {
  const auto now = clock_->now();
  if (last_handled_ != TimePoint::max()) longest_pause_ = std::max(longest_pause_, now - last_handled_);
  last_handled_ = now;
  auto& state = keys_[key];
  // First seen after a later one is out of order. A repetition is not.
  if (number >= state.times_handled.size())
    throw std::runtime_error(fmt::format("{} {} was never published", key, number));
  if (state.times_handled[number]++ == 0 && number < state.furthest) ++reordered_;
  state.furthest = std::max(state.furthest, number + 1);
  ++handled_;
}

awaitable<void> Load::consume(std::shared_ptr<Member> member) {
  try {
    co_await member->consumer.start();
  } catch (const MessagingError& failure) {
    ADD_FAILURE() << "a consumer ended: " << failure.what();
  }
  co_await member->broker.disconnect();
  member->ended = true;
}

std::size_t Load::add_member() {
  auto client = broker();
  EventConsumer consumer(client, {.group_id = group_, .concurrency = 32});
  consumer.subscribe(topic_, [this](const Event& event) -> awaitable<void> {
    const std::string key(*event.key());
    const auto number = event.data().at("number").to_number<std::size_t>();
    if (!running_.insert(key).second) ++overlaps_;
    struct Done {
      std::set<std::string>& running;
      const std::string& key;
      ~Done() { running.erase(key); }
    } const done{running_, key};
    if (number % 4 == 0) co_await sleep(1ms);
    note_handled(key, number);
  });
  const auto number = next_member_++;
  const auto member = std::make_shared<Member>(Member{std::move(client), std::move(consumer)});
  members_.emplace(number, member);
  asio::co_spawn(context_, consume(member), asio::detached);
  return number;
}

awaitable<void> Load::remove_member(std::size_t number) {
  const auto member = members_.at(number);
  member->consumer.stop();
  co_await until([&] { return member->ended; });
  members_.erase(number);
}

void Load::forget_acknowledged() {
  for (auto& [name, key] : keys_)
    for (auto& outcome : key.outcomes) outcome = Outcome::forgotten;
}

awaitable<void> Load::look_what_is_kept() {
  auto client = broker();
  co_await client.connect();
  std::map<std::int32_t, std::int64_t> unread;
  for (const auto& each : (co_await client.administration().describe_topic(topic_)).partitions)
    if (each.next > each.first) unread[each.partition] = each.next;
  std::map<std::string, std::map<std::size_t, Position>> kept;
  auto reader = co_await client.subscribe(topic_);
  while (!unread.empty()) {
    const auto message = co_await reader.next();
    kept[std::string(*message->key())].emplace(std::stoul(std::string(*message->headers().find("number"))), message->position());
    const auto at = unread.find(message->position().partition);
    if (at != unread.end() && message->position().offset + 1 >= at->second) unread.erase(at);
  }
  co_await client.disconnect();
  for (auto& [name, key] : keys_)
    for (std::size_t i = 0; i < key.outcomes.size(); ++i)
      key.outcomes[i] = kept[name].contains(i) ? Outcome::acknowledged : Outcome::forgotten;
  kept_ = std::move(kept);
}

void Load::say_what_is_missing() {
  std::map<std::int32_t, std::set<std::int64_t>> offsets;
  for (const auto& [name, key] : keys_)
    for (const auto& [number, position] : kept_[name])
      if (key.outcomes[number] == Outcome::acknowledged && key.times_handled[number] == 0)
        offsets[position.partition].insert(position.offset);
  for (const auto& [partition, missing] : offsets)
    std::cout << fmt::format("  missing: {} messages of partition {}, offsets {} to {}\n", missing.size(), partition,
                             *missing.begin(), *missing.rbegin());
}

void Load::start_writers() {
  for (int writer = 0; writer < plan_.writers; ++writer) {
    ++writing_;
    auto work = writer == 0 ? write_buffered(writer) : writer < 4 ? write_batches(writer) : write_awaited(writer);
    asio::co_spawn(context_, std::move(work), [](std::exception_ptr error) {
      if (error) std::rethrow_exception(error);
    });
  }
}

std::size_t Load::missing() const {
  std::size_t count = 0;
  for (const auto& [name, key] : keys_)
    for (std::size_t i = 0; i < key.outcomes.size(); ++i)
      count += key.outcomes[i] == Outcome::acknowledged && key.times_handled[i] == 0;
  return count;
}

Counts Load::run(std::function<awaitable<void>(Load&)> fault) {
  publisher_ = std::make_unique<MessageBroker>(broker());
  buffered_ = std::make_unique<MessageBroker>(broker());
  bool ended = false;
  const auto body = [&]() -> awaitable<void> {
    for (int i = 0; i < plan_.members; ++i) add_member();
    start_writers();
    co_await until([&] { return handled_ > 500 || plan_.members == 0; });
    co_await fault(*this);
    while (published_ < plan_.at_least) co_await sleep(10ms);
    enough_ = true;
    const auto deadline = clock_->now() + plan_.patience;
    while (writing_ > 0 && clock_->now() < deadline) co_await sleep(50ms);
    if (recreated_) co_await look_what_is_kept();
    while ((writing_ > 0 || missing() > 0) && clock_->now() < deadline) co_await sleep(50ms);
    if (recreated_) say_what_is_missing();
    if (writing_ > 0) ADD_FAILURE() << writing_ << " publishers did not end";
    co_await sleep(500ms);  // for what comes too late, or once more
    while (!members_.empty()) co_await remove_member(members_.begin()->first);
    co_await publisher_->disconnect();
    co_await buffered_->disconnect();
  };
  std::exception_ptr error;
  asio::co_spawn(context_, body, [&](std::exception_ptr failure) {
    error = failure;
    ended = true;
    context_.stop();
  });
  context_.run();
  if (error) std::rethrow_exception(error);
  for (const auto& [text, times] : errors_) std::cout << "  " << times << " times: " << text << '\n';
  return count();
}

Counts Load::count() const {
  Counts counts;
  for (const auto& [name, key] : keys_) {
    for (std::size_t i = 0; i < key.outcomes.size(); ++i) {
      const auto times = key.times_handled[i];
      counts.acknowledged += key.outcomes[i] == Outcome::acknowledged;
      counts.lost += key.outcomes[i] == Outcome::acknowledged && times == 0;
      counts.unknown += key.outcomes[i] == Outcome::unknown;
      counts.refused += key.outcomes[i] == Outcome::refused;
      counts.not_refused += key.outcomes[i] == Outcome::refused && times > 0;
      if (times > 1) counts.duplicates += times - 1;
    }
  }
  counts.reordered = plan_.members_share_keys ? 0 : reordered_;
  counts.overlaps = plan_.members_share_keys ? 0 : overlaps_;
  counts.published = published_;
  counts.longest_pause = longest_pause_;
  return counts;
}

void expect_kept(const std::string& broker, const std::string& fault, const Counts& counts) {
  EXPECT_EQ(counts.lost, 0U);
  EXPECT_EQ(counts.reordered, 0U);
  EXPECT_EQ(counts.overlaps, 0U);
  EXPECT_EQ(counts.not_refused, 0U) << "a failure that says \"surely not done\" was done";
  EXPECT_GT(counts.acknowledged, 5000U);
  const auto row =
      fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1f} s |", broker, fault, counts.published,
                  counts.acknowledged, counts.lost, counts.reordered, counts.duplicates, counts.unknown, counts.refused,
                  std::chrono::duration<double>(counts.longest_pause).count());
  std::cout << row << '\n';
  if (const char* table = std::getenv("MAESTRO_FAULT_TABLE")) std::ofstream(table, std::ios::app) << row << '\n';
}

}  // namespace maestro::messaging::testing

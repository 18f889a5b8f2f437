#include "demo.hpp"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <cstdlib>
#include <limits>
#include <maestro/messaging/consumer.hpp>
#include <maestro/messaging/deduplication.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/publisher.hpp>

#include "checks.hpp"
#include "demo_data.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "session.hpp"

namespace maestro::cli {

namespace asio = boost::asio;
using namespace messaging;
using namespace std::chrono_literals;

namespace {

/// Quick retries, unless the options say otherwise.
EventConsumerOptions consumer_options(const MessageBroker& broker, const std::string& group,
                                      const DemoArguments& arguments) {
  EventConsumerOptions options{.group_id = group,
                               .concurrency = arguments.concurrency,
                               .max_retry_attempts = 3,
                               .enable_dead_letter_queue = true,
                               .deduplication = std::make_shared<MemoryDeduplicationStore>(broker.clock())};
  if (is_given(broker.config(), "initial_backoff") || is_given(broker.config(), "max_backoff")) return options;
  options.initial_backoff = 10ms;
  options.max_backoff = 100ms;
  return options;
}

/// One group at work: its consumer, what it did, and how its `start()` ended.
struct Group {
  Group(const MessageBroker& broker, const std::string& name, std::size_t records, const std::string& id,
        const DemoArguments& arguments)
      : ledger(name, records), consumer(broker, consumer_options(broker, id, arguments)) {}

  DemoLedger ledger;
  EventConsumer consumer;
  bool ended = false;
  std::exception_ptr failure;
};

struct Demo {
  Demo(MessageBroker opened, const DemoArguments& given, bool quiet_output, std::string id)
      : broker(std::move(opened)),
        arguments(given),
        plan(given.records, given.seed),
        topic("earthquakes.recorded" + id),
        quiet(quiet_output),
        alerts(broker, "alerts", plan.records(), "alerts" + id, given),
        archive(broker, "archive", plan.records(), "archive" + id, given),
        alerts_dlq(dead_letter_topic(topic, "alerts" + id)),
        archive_dlq(dead_letter_topic(topic, "archive" + id)) {}

  MessageBroker broker;
  DemoArguments arguments;
  DemoPlan plan;
  std::string topic;
  bool quiet;
  Group alerts;
  Group archive;
  std::string alerts_dlq;
  std::string archive_dlq;
  bool outage = true;
  bool replaying = false;
  std::size_t published = 0;
  std::size_t replayed = 0;
  LiveBlock live;

  void say(std::string_view line) {
    if (quiet) return;
    live.erase();
    print_line(line);
  }
  void show();
};

std::string group_line(const Demo& demo, const Group& group) {
  const auto counts = group.consumer.counts();
  const auto number = [](auto count) { return thousands(static_cast<std::int64_t>(count)); };
  return fmt::format("  {:<10}{}  {:>6} handled  {:>4} retried  {:>4} dead-lettered", group.ledger.group,
                     bar(group.ledger.handled_count + counts.dead_lettered, demo.plan.records(), 24),
                     number(group.ledger.handled_count), number(counts.retried), number(counts.dead_lettered));
}

void Demo::show() {
  if (quiet || !live.active()) return;
  live.draw({fmt::format("  {:<10}{}  {:>6} of {}", "published", bar(published, plan.records(), 24),
                         thousands(static_cast<std::int64_t>(published)),
                         thousands(static_cast<std::int64_t>(plan.records()))),
             group_line(*this, alerts), group_line(*this, archive)});
}

/// What both groups do with an earthquake: some work that waits, which fails at times.
awaitable<void> handle(Demo& demo, Group& group, const Quake& quake) {
  auto& ledger = group.ledger;
  const auto record = static_cast<std::size_t>(quake.number);
  const bool fresh = ledger.enter(quake);
  const auto tried = static_cast<int>(ledger.tries[record]);
  std::exception_ptr interrupted;
  try {
    if (!demo.arguments.fast) co_await wait_for(demo.broker, demo.plan.work(ledger.group, record));
  } catch (...) {
    interrupted = std::current_exception();
  }
  const bool down = demo.outage && &group == &demo.archive && quake.region == DemoPlan::broken_region;
  const bool hiccup = tried <= demo.plan.transient_failures(ledger.group, record);
  ledger.leave(quake, !interrupted && (!fresh || (!down && !hiccup)), demo.replaying);
  if (interrupted) std::rethrow_exception(interrupted);
  if (!fresh) co_return;
  if (down) throw std::runtime_error(fmt::format("the archive of {} does not answer", quake.region));
  if (hiccup) throw std::runtime_error(fmt::format("record {}: the connection was reset", quake.number));
}

awaitable<void> run_group(std::shared_ptr<Demo> demo, Group& group) {
  try {
    co_await group.consumer.start();
  } catch (...) {
    group.failure = std::current_exception();
  }
  group.ended = true;
}

void start_group(const std::shared_ptr<Demo>& demo, Group& group) {
  group.consumer.subscribe<Quake>(demo->topic,
                                  [&demo = *demo, &group](const Quake& quake) { return handle(demo, group, quake); });
  asio::co_spawn(demo->broker.executor(), run_group(demo, group), asio::detached);
}

awaitable<void> publish_records(std::shared_ptr<Demo> demo) {
  constexpr std::size_t batch_size = 50;
  EventPublisher publisher(demo->broker,
                           {.source = demo->broker.options().text_if("client_id").value_or("maestro-demo")});
  while (demo->published < demo->plan.records()) {
    std::vector<OutgoingMessage> batch;
    for (std::size_t i = demo->published; i < demo->plan.records() && batch.size() < batch_size; ++i) {
      auto message = publisher.make_message(demo->topic, Value(nullptr),
                                            {.key = demo->plan.region(i),
                                             .attributes = {.type = "earthquake.recorded"},
                                             .headers = {{record_header, std::to_string(i)}}});
      message.payload = Payload(demo->plan.payload(i));
      batch.push_back(std::move(message));
    }
    const auto results = co_await demo->broker.publish_many(std::move(batch));
    for (const auto& result : results) (void)result.value();
    demo->published += results.size();
    demo->show();
    if (!demo->arguments.fast) co_await wait_for(demo->broker, 25ms);
  }
}

/// Until the condition holds, or nothing has moved for the patience.
template <class Condition>
awaitable<bool> settle(std::shared_ptr<Demo> demo, Condition done, Duration patience) {
  const auto clock = demo->broker.clock();
  std::uint64_t last = 0;
  auto moved = clock->now();
  while (!done()) {
    for (const auto* group : {&demo->alerts, &demo->archive})
      if (group->failure) std::rethrow_exception(group->failure);
    const auto alerts = demo->alerts.consumer.counts();
    const auto archive = demo->archive.consumer.counts();
    const auto sum = alerts.received + alerts.handled + alerts.retried + alerts.dead_lettered + archive.received +
                     archive.handled + archive.retried + archive.dead_lettered;
    if (sum != last) last = sum, moved = clock->now();
    if (clock->now() - moved > patience) co_return false;
    demo->show();
    co_await wait_for(demo->broker, 50ms);
  }
  co_return true;
}

/// Every record was either handled or dead-lettered by the group, as far as its own counts say.
bool finished(const Group& group, std::size_t records) {
  return group.ledger.handled_count + group.consumer.counts().dead_lettered >= records && group.ledger.running.empty();
}

awaitable<std::vector<DeadLetter>> dead_letters_of(MessageBroker broker, std::string topic) {
  try {
    DeadLetters letters(broker, topic);
    co_return co_await letters.list({}, 1'000'000);
  } catch (const MessagingError& error) {
    if (error.reason() == errc::topic_not_found) co_return std::vector<DeadLetter>();
    throw;
  }
}

awaitable<void> read_dead_letters(std::shared_ptr<Demo> demo) {
  demo->alerts.ledger.note_dead_letters(co_await dead_letters_of(demo->broker, demo->alerts_dlq));
  demo->archive.ledger.note_dead_letters(co_await dead_letters_of(demo->broker, demo->archive_dlq));
}

awaitable<void> stop_groups(std::shared_ptr<Demo> demo) {
  demo->alerts.consumer.stop();
  demo->archive.consumer.stop();
  while (!demo->alerts.ended || !demo->archive.ended) co_await wait_for(demo->broker, 5ms);
}

awaitable<void> first_part(std::shared_ptr<Demo> demo) {
  co_await demo->broker.connect();
  demo->say(fmt::format(
      "1. {} earthquakes go to two groups, {} handlers each, in order within a region; the archive of {} is down",
      thousands(static_cast<std::int64_t>(demo->plan.records())), *demo->arguments.concurrency,
      DemoPlan::broken_region));
  start_group(demo, demo->alerts);
  start_group(demo, demo->archive);
  for (;;) {
    // Where a broker keeps only what arrives once a group is known, both have to be known first.
    const auto status = co_await demo->broker.get_status();
    if (status.subscription_count >= 2 || demo->alerts.ended || demo->archive.ended) break;
    co_await wait_for(demo->broker, 10ms);
  }
  co_await publish_records(demo);
  const auto records = demo->plan.records();
  const auto deadline = demo->broker.clock()->now() + 60s;
  do {
    co_await settle(demo, [&] { return finished(demo->alerts, records) && finished(demo->archive, records); }, 10s);
    co_await read_dead_letters(demo);
    // A message that was delivered twice counts twice, so the dead letters themselves have the last word.
    if (all_settled(demo->alerts.ledger) && all_settled(demo->archive.ledger)) break;
    co_await wait_for(demo->broker, 100ms);
  } while (demo->broker.clock()->now() < deadline);
  const auto& archive = demo->archive.ledger;
  demo->say(fmt::format(
      "2. settled: alerts has {} dead letters, archive {}, {} of them for the outage",
      demo->alerts.ledger.dead_letters.size(), archive.dead_letters.size(),
      archive.dead_by_reason.contains("retries_exhausted") ? archive.dead_by_reason.at("retries_exhausted") : 0));
  if (!archive.example_error.empty())
    demo->say(fmt::format("   one of the malformed, record {}: {}", archive.example_reason,
                          printable(archive.example_error)));
}

awaitable<void> second_part(std::shared_ptr<Demo> demo) {
  demo->outage = false;
  demo->replaying = true;
  if (demo->archive.ledger.dead_by_reason.contains("retries_exhausted")) {
    DeadLetters letters(demo->broker, demo->archive_dlq);
    const auto report = co_await letters.replay({.filter = {.reason = DeadLetterReason::retries_exhausted},
                                                 .progress = [&](std::size_t, std::size_t) { demo->show(); }});
    demo->replayed = demo->archive.ledger.replayed = report.replayed;
  }
  demo->say(
      fmt::format("3. the archive of {} is mended: {} dead letters replayed to {}, where both groups see them again",
                  DemoPlan::broken_region, demo->replayed, demo->topic));
  const auto done = [&] {
    return demo->archive.ledger.handled_count >= demo->alerts.ledger.handled_count &&
           demo->alerts.ledger.repeats >= demo->replayed && demo->archive.ledger.running.empty();
  };
  co_await settle(demo, done, 10s);
  demo->show();
}

awaitable<void> remove_topics(std::shared_ptr<Demo> demo) {
  if (!demo->broker.capabilities().administration) co_return;
  for (const auto& topic : {demo->topic, demo->alerts_dlq, demo->archive_dlq}) {
    try {
      co_await demo->broker.administration().delete_topic(topic);
    } catch (const MessagingError& error) {
      if (error.reason() != errc::topic_not_found) throw;
    }
  }
}

awaitable<int> run_demo(MessageBroker broker, const Settings& settings, DemoArguments arguments) {
  refuse_options(
      broker.config(),
      {"group_id", "max_retry_attempts", "enable_dead_letter_queue", "auto_offset_reset", "enable_auto_commit"},
      "the demo needs its own, for what it accounts for follows from that");
  if (!arguments.concurrency)
    arguments.concurrency = is_given(broker.config(), "concurrency")
                                ? static_cast<std::size_t>(broker.options().integer("concurrency"))
                                : 8;
  const auto can = broker.capabilities();
  if (!can.groups) throw MessagingError(errc::unsupported, can.broker + " has no groups in this mode, which the demo needs; use a durable one");
  // On a server that others use too, this run keeps to topics and groups of its own.
  const auto id = is_memory(settings) ? std::string() : "." + run_id();
  const auto demo = std::make_shared<Demo>(broker, arguments, settings.json, id);
  const auto began = broker.clock()->now();
  std::exception_ptr failure;
  try {
    co_await first_part(demo);
    co_await second_part(demo);
  } catch (...) {
    failure = std::current_exception();
  }
  co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
  co_await stop_groups(demo);
  if (!failure) {
    co_await read_dead_letters(demo);
    for (auto* group : {&demo->alerts, &demo->archive}) group->ledger.duplicates = group->consumer.counts().duplicates;
  }
  demo->live.erase();
  co_await remove_topics(demo);
  if (failure) std::rethrow_exception(failure);
  const double seconds = std::chrono::duration<double>(broker.clock()->now() - began).count();
  const bool kept =
      report_demo(demo->plan, {&demo->alerts.ledger, &demo->archive.ledger}, can.broker, seconds, settings.json);
  if (!kept && !settings.json)
    print_error("the demo found a promise that was not kept. Please report it with the table");
  co_return kept ? exit_ok : exit_lost;
}

}  // namespace

void add_demo(CLI::App& app, const Settings& settings, Action& action) {
  auto* verb = app.add_subcommand(
      "demo", "Stream a week of real earthquakes through the broker, with faults, and account for each");
  auto arguments = std::make_shared<DemoArguments>();
  verb->fallthrough();
  verb->add_option("--records", arguments->records, "Only the first so many of the 1,707; 0: all")
      ->check(whole_number(0, 1707));
  verb->add_option("--concurrency", arguments->concurrency, "Handlers of each group that may run at once; default: 8")
      ->check(whole_number(1, 1024));
  verb->add_option("--seed", arguments->seed, "Which records are malformed and which handlers fail follows from it")
      ->check(whole_number(0, std::numeric_limits<std::uint64_t>::max()))
      ->capture_default_str();
  verb->add_flag("--fast", arguments->fast, "Handlers that take no time, and no pauses between publishes");
  verb->callback([=, &settings, &action] {
    action = [=, &settings] {
      // Hundreds of handled failures are the demo's subject, not news.
      if (std::getenv("MESSAGING_LOG_LEVEL") == nullptr) set_log_level(LogLevel::off);
      return with_broker(
          settings, [&, arguments](MessageBroker broker) { return run_demo(std::move(broker), settings, *arguments); });
    };
  });
}

}  // namespace maestro::cli

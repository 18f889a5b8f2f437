#include "bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/topic.hpp>

#include "checks.hpp"
#include "idle_guard.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "session.hpp"

namespace maestro::cli {

namespace asio = boost::asio;
using namespace messaging;

namespace {

double seconds_between(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

struct Bench {
  MessageBroker broker;
  BenchArguments arguments;
  std::string topic;
  std::string group;
  BenchRecord record;
  std::uint64_t next = 0;  ///< The next sequence number to be published.
  std::uint64_t published = 0;
  std::size_t outstanding = 0;  ///< Publishes under way in latency mode.
  Progress* progress = nullptr;

  [[nodiscard]] TimePoint now() const { return broker.clock()->now(); }
  void settle(std::uint64_t sequence, const PublishResult& result) {
    ++published;
    result.ok() ? record.confirm(sequence) : record.fail(sequence, result.error, result.detail);
  }
};

/// Takes the next batch until none is left; several of these keep the broker's pipeline full, and batches in order.
awaitable<void> publish_batches(std::shared_ptr<Bench> bench) {
  while (bench->next < bench->record.messages()) {
    const auto first = bench->next;
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(bench->arguments.batch, bench->record.messages() - first));
    bench->next += count;
    const auto sent = bench->now();
    const auto results =
        co_await bench->broker.publish_many(bench_messages(bench->topic, first, count, bench->arguments.size, sent));
    // A batch of which nothing was published says nothing of how long publishing takes.
    if (std::ranges::any_of(results, &PublishResult::ok)) bench->record.add_latency(bench->now() - sent);
    for (std::size_t i = 0; i < results.size(); ++i) bench->settle(first + i, results[i]);
    bench->progress->update(bench->published);
  }
}

awaitable<void> publish_all(std::shared_ptr<Bench> bench) {
  const auto executor = co_await asio::this_coro::executor;
  Progress progress("publishing", bench->record.messages());
  bench->progress = &progress;
  const auto began = bench->now();
  using Worker = decltype(asio::co_spawn(executor, publish_batches(bench), asio::deferred));
  std::vector<Worker> workers;
  for (std::size_t i = 0; i < bench->arguments.in_flight; ++i)
    workers.push_back(asio::co_spawn(executor, publish_batches(bench), asio::deferred));
  const auto outcome = co_await asio::experimental::make_parallel_group(std::move(workers))
                           .async_wait(asio::experimental::wait_for_all(), asio::use_awaitable);
  bench->record.publish_seconds = seconds_between(began, bench->now());
  bench->record.latency_of = "publish of a batch";
  for (const auto& failure : std::get<1>(outcome))
    if (failure) std::rethrow_exception(failure);
}

awaitable<void> publish_one(std::shared_ptr<Bench> bench, std::uint64_t sequence) {
  auto message = bench_messages(bench->topic, sequence, 1, bench->arguments.size, bench->now());
  const auto sent = bench->now();
  try {
    co_await bench->broker.publish(std::move(message.front()));
    bench->record.confirm(sequence);
    if (bench->arguments.mode == "sequential") bench->record.add_latency(bench->now() - sent);
  } catch (const MessagingError& error) {
    bench->record.fail(sequence, error.code(), error.detail());
  }
  ++bench->published;
}

awaitable<void> publish_sequentially(std::shared_ptr<Bench> bench) {
  Progress progress("publishing", bench->record.messages());
  const auto began = bench->now();
  for (; bench->next < bench->record.messages(); progress.update(bench->published))
    co_await publish_one(bench, bench->next++);
  bench->record.publish_seconds = seconds_between(began, bench->now());
  bench->record.latency_of = "publish";
}

awaitable<void> publish_and_count(std::shared_ptr<Bench> bench, std::uint64_t sequence) {
  co_await publish_one(bench, sequence);
  --bench->outstanding;
}

/// Publishes at the rate, whatever the broker's answers take, so that a slow answer delays no other message.
awaitable<void> publish_at_rate(std::shared_ptr<Bench> bench) {
  bench->record.latency_of = "end to end";
  constexpr std::size_t most_outstanding = 10'000;
  const auto began = bench->now();
  while (bench->next < bench->record.messages()) {
    const auto due = static_cast<std::uint64_t>(seconds_between(began, bench->now()) * bench->arguments.rate) + 1;
    while (bench->next < std::min(due, bench->record.messages()) && bench->outstanding < most_outstanding) {
      ++bench->outstanding;
      asio::co_spawn(bench->broker.executor(), publish_and_count(bench, bench->next++), asio::detached);
    }
    const auto next =
        began + Duration(static_cast<Duration::rep>(1e9 * static_cast<double>(bench->next) / bench->arguments.rate));
    co_await wait_for(bench->broker, std::max<Duration>(next - bench->now(), std::chrono::microseconds(20)));
  }
  while (bench->outstanding != 0) co_await wait_for(bench->broker, std::chrono::milliseconds(1));
  bench->record.publish_seconds = seconds_between(began, bench->now());
}

void work(const Bench& bench, std::int64_t nanoseconds) {
  if (nanoseconds <= 0) return;
  const auto until = bench.now() + Duration(nanoseconds);
  while (bench.now() < until) {
  }
}

/// Consumes until every message came, or until nothing came for the timeout; then acknowledges the last.
awaitable<void> consume(std::shared_ptr<Bench> bench, std::shared_ptr<Subscription> subscription, bool measure_latency) {
  const auto began = bench->now();
  IdleGuard guard(bench->broker,
                  std::chrono::duration_cast<Duration>(std::chrono::duration<double>(bench->arguments.timeout)),
                  closing(bench->broker, subscription));
  Progress progress(measure_latency ? "publishing and consuming" : "consuming", bench->record.messages());
  std::optional<TimePoint> first;
  while (!bench->record.complete()) {
    const auto batch = co_await subscription->next_batch(bench->arguments.batch);
    if (batch.empty()) break;
    const auto arrived = bench->now();
    if (!first) first = arrived;
    guard.touch();
    for (const auto& message : batch) {
      if (!bench->record.receive(message.body())) continue;
      if (measure_latency)
        bench->record.add_latency(arrived.time_since_epoch() - Duration(read_stamp(message.body()).sent_ns));
      work(*bench, bench->arguments.work_ns);
    }
    progress.update(bench->record.distinct());
  }
  if (!guard.expired()) {
    co_await subscription->commit();
    bench->record.consume_seconds = first ? seconds_between(*first, bench->now()) : 0;
    co_await subscription->close();
  } else if (first) {
    // The idle time at the end is the fault's, and not work.
    bench->record.consume_seconds = std::max(0.0, seconds_between(*first, bench->now()) - bench->arguments.timeout);
  }
  if (first) bench->record.first_delivery_ms = seconds_between(began, *first) * 1e3;
}

awaitable<std::shared_ptr<Subscription>> subscribe(std::shared_ptr<Bench> bench) {
  SubscribeOptions options;
  if (bench->broker.capabilities().groups) options.group_id = bench->group;
  co_return std::make_shared<Subscription>(co_await bench->broker.subscribe(bench->topic, options));
}

/// Where a broker keeps only what arrives once the group is known, it has to be known first.
awaitable<void> announce_group(std::shared_ptr<Bench> bench) {
  const auto subscription = co_await subscribe(bench);
  co_await subscription->close();
}

awaitable<void> publish(std::shared_ptr<Bench> bench) {
  if (bench->arguments.mode == "latency") return publish_at_rate(bench);
  return bench->arguments.mode == "sequential" ? publish_sequentially(bench) : publish_all(bench);
}

awaitable<void> measure(std::shared_ptr<Bench> bench) {
  const bool latency = bench->arguments.mode == "latency";
  // What keeps nothing has to be listened to meanwhile.
  if (latency || !bench->broker.capabilities().persistent_topics) {
    const auto executor = co_await asio::this_coro::executor;
    const auto subscription = co_await subscribe(bench);
    const auto outcome = co_await asio::experimental::make_parallel_group(
                             asio::co_spawn(executor, publish(bench), asio::deferred),
                             asio::co_spawn(executor, consume(bench, subscription, latency), asio::deferred))
                             .async_wait(asio::experimental::wait_for_all(), asio::use_awaitable);
    for (const auto& failure : {std::get<1>(outcome), std::get<2>(outcome)})
      if (failure) std::rethrow_exception(failure);
    co_return;
  }
  co_await publish(bench);
  co_await consume(bench, co_await subscribe(bench), false);
}

awaitable<int> run_bench(MessageBroker broker, const Settings& settings, const BenchArguments& arguments) {
  const auto topic = arguments.topic + "." + run_id();
  validate_topic(topic);
  const auto bench =
      std::make_shared<Bench>(Bench{broker, arguments, topic, "bench-" + run_id(), BenchRecord(arguments.messages)});
  co_await broker.connect();
  const auto can = broker.capabilities();
  if (can.administration)
    co_await broker.administration().create_topic(topic, TopicSettings{arguments.partitions});
  else if (arguments.partitions)
    throw MessagingError(errc::unsupported, can.broker + " has no partitions to be made; leave out --partitions");
  if (can.groups) co_await announce_group(bench);
  std::exception_ptr failure;
  try {
    co_await measure(bench);
  } catch (...) {
    failure = std::current_exception();
  }
  co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
  if (can.administration) co_await broker.administration().delete_topic(topic);
  if (failure) std::rethrow_exception(failure);
  auto& record = bench->record;
  const auto report = bench_report(arguments, can.broker, record);
  if (settings.json) {
    print_json(report);
  } else {
    Table table({"measured on " + can.broker, ">" + arguments.mode});
    for (const auto& [name, value] : report)
      if (name != "mode" && name != "broker")
        table.add({name, value.is_null()     ? std::string("-")
                         : value.is_string() ? std::string(value.as_string())
                         : value.is_double() ? fmt::format("{:.3f}", value.as_double())
                                             : thousands(value.to_number<std::int64_t>())});
    table.print();
  }
  if (record.failed() != 0)
    print_error(fmt::format("{} messages were not published: {}. `maestro status` says how the broker is",
                            record.failed(), record.first_failure()));
  if (record.unknown() != 0)
    print_error(fmt::format(
        "of {} more messages nobody knows whether they were published: {}. They count neither as published nor "
        "as lost",
        record.unknown(), record.first_doubt()));
  if (const auto lost = record.lost(); lost != 0) {
    print_error(
        fmt::format("{} confirmed messages did not come within {} s of the last. Give a longer --timeout to rule out "
                    "a slow broker",
                    lost, arguments.timeout));
    co_return exit_lost;
  }
  co_return record.failed() + record.unknown() == 0 ? exit_ok : exit_failed;
}

/// The embedded broker refuses what goes over its limits: they are made to fit, unless they were given.
Settings with_room(Settings settings, const BenchArguments& arguments) {
  if (!is_memory(settings)) return settings;
  const auto bytes = arguments.messages * (arguments.size + 256) + (std::uint64_t{64} << 20);
  settings.options.insert(settings.options.begin(),
                          {fmt::format("max_messages={}", std::max<std::uint64_t>(arguments.messages, 1'000'000)),
                           fmt::format("max_bytes={}", std::max<std::uint64_t>(bytes, std::uint64_t{1} << 30))});
  return settings;
}

}  // namespace

void add_bench(CLI::App& app, const Settings& settings, Action& action) {
  auto* verb =
      app.add_subcommand("bench", "Measure a broker through this library, and count what is lost or duplicated");
  auto arguments = std::make_shared<BenchArguments>();
  verb->fallthrough();
  verb->add_option("--messages", arguments->messages, "How many")
      ->check(whole_number(1, 1'000'000'000))
      ->capture_default_str();
  verb->add_option("--size", arguments->size,
                   "Bytes of each payload; the first 16 are the sequence number and the time")
      ->check(whole_number(least_bench_size, 1'000'000'000))
      ->capture_default_str();
  verb->add_option(
          "--mode", arguments->mode,
          "throughput: publish all, then consume all; latency: publish at --rate while consuming, measured end to "
          "end; sequential: await each publish before the next, then consume all")
      ->check(CLI::IsMember({"throughput", "latency", "sequential"}))
      ->capture_default_str();
  verb->add_option("--rate", arguments->rate, "Messages a second in latency mode")
      ->check(seconds_or_rate())
      ->capture_default_str();
  verb->add_option("--work-ns", arguments->work_ns, "Nanoseconds that the handler of each message is busy")
      ->check(whole_number(0, any_count))
      ->capture_default_str();
  verb->add_option("--topic", arguments->topic, "Beginning of the topic's name; each run has a topic of its own")
      ->capture_default_str();
  verb->add_option("--partitions", arguments->partitions, "Partitions of the topic; default: the broker's own")
      ->check(whole_number(1, 100'000));
  verb->add_option("--batch", arguments->batch, "Messages in one publish, and taken at once")
      ->check(whole_number(1, 1'000'000))
      ->capture_default_str();
  verb->add_option("--in-flight", arguments->in_flight, "Batches published at the same time in throughput mode")
      ->check(whole_number(1, 1000))
      ->capture_default_str();
  verb->add_option("--timeout", arguments->timeout, "Seconds without a message after which the rest counts as lost")
      ->check(seconds_or_rate())
      ->capture_default_str();
  verb->callback([=, &settings, &action] {
    action = [=, &settings] {
      return with_broker(with_room(settings, *arguments), [&, arguments](MessageBroker broker) {
        return run_bench(std::move(broker), settings, *arguments);
      });
    };
  });
}

}  // namespace maestro::cli

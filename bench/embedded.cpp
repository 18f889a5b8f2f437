// What the library costs on the embedded broker, on one thread: nanoseconds and allocations a message or event. The work that any
// program has to do (parsing and writing the event's JSON) is measured beside it and taken off. Prints a table, or JSON with --json.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cstring>
#include <maestro/messaging.hpp>

std::uint64_t allocation_count() noexcept;

namespace {

namespace asio = boost::asio;
using namespace maestro::messaging;
using namespace std::chrono_literals;

constexpr int messages = 200'000;
constexpr int burst = 1000;
constexpr int repetitions = 7;

struct Figure {
  double nanoseconds = 0;
  double allocations = 0;
};

struct Row {
  std::string name;
  std::vector<Figure> runs;

  [[nodiscard]] Figure median() const {
    auto sorted = runs;
    std::ranges::sort(sorted, {}, &Figure::nanoseconds);
    return sorted[sorted.size() / 2];
  }
  [[nodiscard]] double least() const { return std::ranges::min(runs, {}, &Figure::nanoseconds).nanoseconds; }
  [[nodiscard]] double most() const { return std::ranges::max(runs, {}, &Figure::nanoseconds).nanoseconds; }
};

const Value& sample() {
  static const Value value{{"event_type", "order_created"}, {"order_id", 123456}, {"customer", "customer-0042"},
                           {"amount", 99.95}, {"currency", "EUR"}};
  return value;
}

MessageBroker fresh_broker(asio::any_io_executor executor, bool monitoring) {
  static int number = 0;
  MessagingConfig config;
  config.connection_string = fmt::format("memory://bench-{}", ++number);
  config.connection_config.insert_or_assign("partitions", 1);
  // What every group has acknowledged goes, so that the memory's first touch is not measured.
  config.connection_config.insert_or_assign("max_messages", 2'000);
  config.enable_monitoring = monitoring;
  return {std::move(executor), std::move(config)};
}

/// Runs the coroutine alone on its thread and says what one of its `messages` cost.
Figure measure(const std::function<awaitable<void>(asio::any_io_executor)>& work) {
  asio::io_context context(1);
  const auto executor = context.get_executor();
  std::exception_ptr failure;
  const auto allocations = allocation_count();
  const auto began = Clock::real()->now();
  asio::co_spawn(context, work(executor), [&](std::exception_ptr error) { failure = error; });
  context.run();
  const auto took = Clock::real()->now() - began;
  if (failure) std::rethrow_exception(failure);
  return {static_cast<double>(took.count()) / messages, static_cast<double>(allocation_count() - allocations) / messages};
}

awaitable<void> one_by_one(asio::any_io_executor executor) {
  auto broker = fresh_broker(executor, false);
  auto subscription = co_await broker.subscribe("raw", {.group_id = "g"});
  const Payload payload(std::string(100, 'x'));
  std::size_t bytes = 0;
  for (int done = 0; done < messages; done += burst) {
    for (int i = 0; i < burst; ++i) co_await broker.publish("raw", payload);
    for (int i = 0; i < burst; ++i) bytes += (co_await subscription.next())->body().size();
  }
  co_await subscription.commit();
  if (bytes != std::size_t{100} * messages) throw std::runtime_error("bytes are missing");
}

awaitable<void> in_batches(asio::any_io_executor executor) {
  constexpr int size = 500;
  auto broker = fresh_broker(executor, false);
  auto subscription = co_await broker.subscribe("raw", {.group_id = "g"});
  const Payload payload(std::string(100, 'x'));
  std::size_t bytes = 0;
  for (int done = 0; done < messages; done += size) {
    std::vector<OutgoingMessage> batch(size);
    for (auto& message : batch) {
      message.topic = "raw";
      message.payload = payload;
    }
    const auto results = co_await broker.publish_many(std::move(batch));
    for (const auto& result : results) result.value();
    for (int left = size; left > 0;) {
      const auto received = co_await subscription.next_batch(size);
      for (const auto& message : received) bytes += message.body().size();
      left -= static_cast<int>(received.size());
    }
  }
  co_await subscription.commit();
  if (bytes != std::size_t{100} * messages) throw std::runtime_error("bytes are missing");
}

awaitable<void> events(asio::any_io_executor executor, std::size_t concurrency) {
  auto broker = fresh_broker(executor, true);
  EventPublisher publisher(broker);
  EventConsumer consumer(broker, {.group_id = "g", .concurrency = concurrency});
  int handled = 0;
  consumer.subscribe("orders", [&](const Event&) -> awaitable<void> {
    if (++handled == messages) consumer.stop();
    co_return;
  });
  std::vector<std::string> keys;
  for (int i = 0; i < 1000; ++i) keys.push_back(fmt::format("key-{}", i));
  bool ended = false;
  asio::co_spawn(executor, consumer.start(), [&](const std::exception_ptr&) { ended = true; });
  for (int i = 0; i < messages; ++i)
    co_await publisher.publish("orders", sample(), {.key = keys[static_cast<std::size_t>(i) % keys.size()]});
  while (!ended) co_await asio::post(executor, asio::use_awaitable);
  if (consumer.counts().handled != messages) throw std::runtime_error("events are missing");
}

awaitable<void> json_alone(asio::any_io_executor) {
  const JsonSerializer json;
  std::size_t fields = 0;
  for (int i = 0; i < messages; ++i) {
    const Value copy = sample();
    const auto payload = json.serialize(copy);
    Message::Parts parts;
    parts.payload = payload.view();
    fields += json.deserialize(Message(std::move(parts))).as_object().size();
  }
  if (fields != std::size_t{5} * messages) throw std::runtime_error("fields are missing");
  co_return;
}

}  // namespace

int main(int argc, char** argv) {
  const bool as_json = argc > 1 && std::strcmp(argv[1], "--json") == 0;
  set_log_level(LogLevel::off);
  std::vector<std::pair<Row, std::function<awaitable<void>(asio::any_io_executor)>>> rows{
      {{"raw message, one by one", {}}, one_by_one},
      {{"raw message, batches of 500", {}}, in_batches},
      {{"JSON alone: write and parse", {}}, json_alone},
      {{"event, 1 handler", {}}, [](asio::any_io_executor executor) { return events(std::move(executor), 1); }},
      {{"event, 64 handlers", {}}, [](asio::any_io_executor executor) { return events(std::move(executor), 64); }},
  };
  if (argc > 2 && std::strcmp(argv[1], "--only") == 0) {  // for a profiler
    for (int repetition = 0; repetition < repetitions; ++repetition) measure(rows.at(std::stoul(argv[2])).second);
    return 0;
  }
  for (int repetition = 0; repetition < repetitions; ++repetition)
    for (auto& [row, work] : rows) row.runs.push_back(measure(work));
  const auto json = rows[2].first.median();
  if (as_json) {
    boost::json::array out;
    for (const auto& [row, work] : rows)
      out.push_back({{"name", row.name},
                     {"ns", row.median().nanoseconds},
                     {"ns_min", row.least()},
                     {"ns_max", row.most()},
                     {"allocations", row.median().allocations},
                     {"per_second", 1e9 / row.median().nanoseconds}});
    fmt::print("{}\n", boost::json::serialize(out));
    return 0;
  }
  fmt::print("{} messages, {} repetitions, one thread; median (least to most)\n\n", messages, repetitions);
  fmt::print("{:<30} {:>10} {:>18} {:>12} {:>12}\n", "", "ns", "range", "million/s", "allocations");
  for (const auto& [row, work] : rows) {
    const auto median = row.median();
    fmt::print("{:<30} {:>10.0f} {:>18} {:>12.2f} {:>12.2f}\n", row.name, median.nanoseconds,
               fmt::format("{:.0f} to {:.0f}", row.least(), row.most()), 1e3 / median.nanoseconds, median.allocations);
  }
  for (const std::size_t index : {std::size_t{3}, std::size_t{4}}) {
    const auto& row = rows[index].first;
    fmt::print("{}: the library adds {:.0f} ns and {:.1f} allocations to the JSON\n", row.name,
               row.median().nanoseconds - json.nanoseconds, row.median().allocations - json.allocations);
  }
}

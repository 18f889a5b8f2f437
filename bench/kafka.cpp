// The library on Kafka beside the same work done with librdkafka alone, alternating in one run.
//   bench_kafka URL [--messages N] [--size BYTES] [--keys N] [--rounds N] [--only PART] [--producer-option NAME=VALUE] [--json]
// PART is the beginning of a row's name. Every round has topics and groups of its own. Figures are medians of the
// rounds.
#include <fmt/format.h>
#include <librdkafka/rdkafka.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/serialize.hpp>
#include <cstring>
#include <fstream>
#include <iostream>
#include <maestro/messaging.hpp>
#include <random>
#include <thread>

#include "measure.hpp"

namespace {

namespace asio = boost::asio;
using namespace maestro::messaging;
using namespace std::chrono_literals;
using namespace measure;

struct Setting {
  std::string url;
  std::string servers;
  std::int64_t messages = 1'000'000;
  std::size_t size = 100;
  std::size_t keys = 0;  // so many different ones
  int rounds = 3;
  std::string only;
  bool json = false;
  ConfigMap producer_config;
};

/// The keys of messages, one after another.
class Keys {
 public:
  explicit Keys(const Setting& setting) {
    for (std::size_t i = 0; i < setting.keys; ++i) all_.push_back(fmt::format("key-{}", i));
  }
  std::optional<std::string> next() {
    if (all_.empty()) return std::nullopt;
    return all_[next_++ % all_.size()];
  }

 private:
  std::vector<std::string> all_;
  std::size_t next_ = 0;
};

struct Figure {
  double per_second = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double cpu_seconds = 0;
  double peak_mib = 0;
};

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void reset_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

double peak_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  return 0;
}

void latencies_into(Figure& figure, std::vector<double> milliseconds) {
  std::ranges::sort(milliseconds);
  figure.p50_ms = at_share(milliseconds, 0.5);
  figure.p99_ms = at_share(milliseconds, 0.99);
}

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(SteadyTime::now().time_since_epoch()).count();
}

void work(std::int64_t nanoseconds) {
  if (nanoseconds == 0) return;
  const auto until = now_ns() + nanoseconds;
  while (now_ns() < until) {
  }
}

Figure handler_alone(const Setting& setting, std::int64_t nanoseconds) {
  const auto began = SteadyTime::now();
  for (std::int64_t i = 0; i < setting.messages; ++i) work(nanoseconds);
  return {static_cast<double>(setting.messages) / seconds_since(began)};
}

// ---- librdkafka alone

void set(rd_kafka_conf_t* conf, const char* name, const std::string& value) {
  char text[256];
  if (rd_kafka_conf_set(conf, name, value.c_str(), text, sizeof text) != RD_KAFKA_CONF_OK)
    throw std::runtime_error(text);
}

struct NativeProducer {
  NativeProducer(const Setting& setting, const std::string& topic_name, const char* linger) : keys(setting) {
    auto* conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", setting.servers);
    set(conf, "enable.idempotence", "true");
    set(conf, "linger.ms", linger);
    set(conf, "queue.buffering.max.messages", "1000000");
    rd_kafka_conf_set_opaque(conf, this);
    rd_kafka_conf_set_dr_msg_cb(conf, [](rd_kafka_t*, const rd_kafka_message_t* message, void* opaque) {
      auto& self = *static_cast<NativeProducer*>(opaque);
      if (message->err) ++self.failed;
      ++self.reported;
    });
    char text[256];
    client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    topic = rd_kafka_topic_new(client, topic_name.c_str(), nullptr);
  }
  ~NativeProducer() {
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(client);
  }
  void produce(std::string_view payload) {
    const auto key = keys.next();
    while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, const_cast<char*>(payload.data()),
                            payload.size(), key ? key->data() : nullptr, key ? key->size() : 0, nullptr) != 0)
      rd_kafka_poll(client, 1);
  }
  void await_reports(std::int64_t count) {
    while (reported < count) rd_kafka_poll(client, 100);
    if (failed > 0) throw std::runtime_error("messages failed");
  }

  Keys keys;
  rd_kafka_t* client = nullptr;
  rd_kafka_topic_t* topic = nullptr;
  std::int64_t reported = 0;
  std::int64_t failed = 0;
};

Figure native_publish(const Setting& setting, const std::string& topic) {
  const std::string payload(setting.size, 'x');
  NativeProducer producer(setting, topic, "5");
  producer.produce(payload);
  producer.await_reports(1);
  const auto began = SteadyTime::now();
  for (std::int64_t i = 0; i < setting.messages; ++i) {
    producer.produce(payload);
    if (i % 256 == 0) rd_kafka_poll(producer.client, 0);
  }
  producer.await_reports(setting.messages + 1);
  return {static_cast<double>(setting.messages) / seconds_since(began)};
}

/// With as many under way as 1,000 coroutines have, and the `linger.ms` that was best for that of 0, 0.1, 0.5 and 1.
Figure native_window(const Setting& setting, const std::string& topic) {
  constexpr std::int64_t unanswered = 1000;
  const std::string payload(setting.size, 'x');
  NativeProducer producer(setting, topic, "0.1");
  producer.produce(payload);
  producer.await_reports(1);
  const auto began = SteadyTime::now();
  for (std::int64_t i = 0; i < setting.messages; ++i) {
    producer.await_reports(i + 2 - unanswered);
    producer.produce(payload);
  }
  producer.await_reports(setting.messages + 1);
  return {static_cast<double>(setting.messages) / seconds_since(began)};
}

Figure native_sequential(const Setting& setting, const std::string& topic) {
  const std::string payload(setting.size, 'x');
  NativeProducer producer(setting, topic, "0");
  producer.produce(payload);
  producer.await_reports(1);
  const auto count = std::min<std::int64_t>(setting.messages, 10'000);
  std::vector<double> latencies;
  const auto began = SteadyTime::now();
  for (std::int64_t i = 0; i < count; ++i) {
    const auto sent = now_ns();
    producer.produce(payload);
    producer.await_reports(i + 2);
    latencies.push_back(static_cast<double>(now_ns() - sent) / 1e6);
  }
  Figure figure{static_cast<double>(count) / seconds_since(began)};
  latencies_into(figure, std::move(latencies));
  return figure;
}

struct NativeConsumer {
  NativeConsumer(const Setting& setting, const std::string& topic, bool roomy = false) {
    auto* conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", setting.servers);
    set(conf, "group.id", fresh("native"));
    set(conf, "auto.offset.reset", "earliest");
    if (roomy) {
      set(conf, "queued.min.messages", "10000000");
      set(conf, "queued.max.messages.kbytes", "2097151");
    }
    char text[256];
    client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
    rd_kafka_poll_set_consumer(client);
    auto* topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, topic.c_str(), RD_KAFKA_PARTITION_UA);
    rd_kafka_subscribe(client, topics);
    rd_kafka_topic_partition_list_destroy(topics);
  }
  ~NativeConsumer() {
    rd_kafka_consumer_close(client);
    rd_kafka_destroy(client);
  }
  rd_kafka_t* client = nullptr;
};

Figure native_consume(const Setting& setting, const std::string& topic, std::int64_t work_ns) {
  NativeConsumer consumer(setting, topic);
  SteadyTime::time_point began;
  for (std::int64_t seen = 0; seen < setting.messages;) {
    auto* message = rd_kafka_consumer_poll(consumer.client, 1000);
    if (!message) continue;
    if (!message->err) {
      if (seen++ == 0) began = SteadyTime::now();
      work(work_ns);
    }
    rd_kafka_message_destroy(message);
  }
  rd_kafka_commit(consumer.client, nullptr, 0);
  return {static_cast<double>(setting.messages) / seconds_since(began)};
}

Figure native_consume_batches(const Setting& setting, const std::string& topic, std::int64_t work_ns, bool roomy) {
  NativeConsumer consumer(setting, topic, roomy);
  auto* queue = rd_kafka_queue_get_consumer(consumer.client);
  std::vector<rd_kafka_message_t*> batch(500);
  SteadyTime::time_point began;
  for (std::int64_t seen = 0; seen < setting.messages;) {
    const auto count = rd_kafka_consume_batch_queue(queue, 1000, batch.data(), batch.size());
    for (ssize_t i = 0; i < count; ++i) {
      if (!batch[static_cast<std::size_t>(i)]->err) {
        if (seen++ == 0) began = SteadyTime::now();
        work(work_ns);
      }
      rd_kafka_message_destroy(batch[static_cast<std::size_t>(i)]);
    }
  }
  rd_kafka_queue_destroy(queue);
  rd_kafka_commit(consumer.client, nullptr, 0);
  return {static_cast<double>(setting.messages) / seconds_since(began)};
}

// Ten thousand a second, from publish to receipt, in one process.
constexpr int latency_rate = 10'000;
constexpr int latency_messages = 50'000;
constexpr int latency_warm_up = 10'000;

Figure native_latency(const Setting& setting, const std::string& topic, int rate) {
  NativeProducer producer(setting, topic, "1");
  NativeConsumer consumer(setting, topic);
  const int count = rate < latency_rate ? 5 * rate : latency_messages;
  const int warm_up = std::min(count / 5, latency_warm_up);
  std::vector<double> latencies;
  std::thread reader([&] {
    for (int seen = 0; seen < count;) {
      auto* message = rd_kafka_consumer_poll(consumer.client, 1000);
      if (!message) continue;
      if (!message->err) {
        std::int64_t sent = 0;
        std::memcpy(&sent, message->payload, sizeof sent);
        if (seen++ >= warm_up) latencies.push_back(static_cast<double>(now_ns() - sent) / 1e6);
      }
      rd_kafka_message_destroy(message);
    }
  });
  std::string payload(setting.size, 'x');
  std::this_thread::sleep_for(4s);  // the group
  const auto publish = [&] {
    const auto sent = now_ns();
    std::memcpy(payload.data(), &sent, sizeof sent);
    producer.produce(payload);
  };
  measure::paced(rate, count, publish, [&] { rd_kafka_poll(producer.client, 0); });
  producer.await_reports(count);
  reader.join();
  Figure figure{static_cast<double>(rate)};
  latencies_into(figure, std::move(latencies));
  return figure;
}

// ---- the library

MessagingConfig config_of(const Setting& setting) {
  auto config = MessagingConfig::from_url(setting.url);
  config.producer_config = setting.producer_config;
  return config;
}

using Body = std::function<awaitable<Figure>(MessageBroker)>;

Figure run_ours(const Setting& setting, const Body& body) {
  asio::io_context context{1};
  Figure figure;
  std::exception_ptr error;
  const auto whole = [&]() -> awaitable<void> {
    MessageBroker broker(context.get_executor(), config_of(setting));
    figure = co_await body(broker);
    co_await broker.disconnect();
  };
  asio::co_spawn(context, whole, [&](std::exception_ptr failure) {
    error = failure;
    context.stop();
  });
  context.run();
  if (error) std::rethrow_exception(error);
  return figure;
}

awaitable<Figure> publish_buffered(const Setting& setting, std::string topic, MessageBroker broker) {
  const Payload payload(std::string(setting.size, 'x'));
  Keys keys(setting);
  co_await broker.publish(topic, payload);
  const auto began = SteadyTime::now();
  for (std::int64_t i = 0; i < setting.messages; ++i) {
    co_await broker.publish(topic, payload, {.key = keys.next(), .confirm = false});
    if (i % 256 == 255) co_await asio::post(broker.executor(), asio::use_awaitable);  // the loop gets its turn
  }
  const auto report = co_await broker.flush();
  if (!report.failures.empty()) throw std::runtime_error(report.failures.front().detail);
  co_return Figure{static_cast<double>(setting.messages) / seconds_since(began)};
}

/// So many coroutines at once until `left` is used up.
awaitable<Figure> by_many(const Setting& setting, MessageBroker broker, int at_once,
                          std::function<awaitable<void>(std::int64_t& left)> publisher) {
  const auto began = SteadyTime::now();
  std::int64_t left = setting.messages;
  int running = at_once;
  const auto one = [&]() -> awaitable<void> {
    co_await publisher(left);
    --running;
  };
  for (int i = 0; i < at_once; ++i)
    asio::co_spawn(broker.executor(), one, [](std::exception_ptr error) {
      if (error) std::rethrow_exception(error);
    });
  asio::steady_timer pause(broker.executor());
  while (running > 0) {
    pause.expires_after(1ms);
    co_await pause.async_wait(asio::use_awaitable);
  }
  co_return Figure{static_cast<double>(setting.messages) / seconds_since(began)};
}

awaitable<Figure> publish_many(const Setting& setting, std::string topic, MessageBroker broker) {
  const Payload payload(std::string(setting.size, 'x'));
  Keys keys(setting);
  co_await broker.publish(topic, payload);
  constexpr std::int64_t size = 10'000;
  constexpr int at_once = 4;
  co_return co_await by_many(setting, broker, at_once, [&](std::int64_t& left) -> awaitable<void> {
    while (left > 0) {
      std::vector<OutgoingMessage> batch(static_cast<std::size_t>(std::min(left, size)));
      left -= static_cast<std::int64_t>(batch.size());
      for (auto& message : batch) {
        message.topic = topic;
        message.payload = payload;
        message.key = keys.next();
      }
      for (const auto& result : co_await broker.publish_many(std::move(batch))) result.value();
    }
  });
}

awaitable<Figure> publish_awaited(const Setting& setting, std::string topic, MessageBroker broker) {
  const Payload payload(std::string(setting.size, 'x'));
  Keys keys(setting);
  co_await broker.publish(topic, payload);
  constexpr int at_once = 1000;
  co_return co_await by_many(setting, broker, at_once, [&](std::int64_t& left) -> awaitable<void> {
    while (left-- > 0) co_await broker.publish(topic, payload, {.key = keys.next()});
  });
}

awaitable<Figure> publish_sequentially(const Setting& setting, std::string topic, MessageBroker broker) {
  const Payload payload(std::string(setting.size, 'x'));
  Keys keys(setting);
  co_await broker.publish(topic, payload);
  const auto count = std::min<std::int64_t>(setting.messages, 10'000);
  std::vector<double> latencies;
  const auto began = SteadyTime::now();
  for (std::int64_t i = 0; i < count; ++i) {
    const auto sent = now_ns();
    co_await broker.publish(topic, payload, {.key = keys.next()});
    latencies.push_back(static_cast<double>(now_ns() - sent) / 1e6);
  }
  Figure figure{static_cast<double>(count) / seconds_since(began)};
  latencies_into(figure, std::move(latencies));
  co_return figure;
}

awaitable<Figure> consume_next(const Setting& setting, std::string topic, MessageBroker broker, std::int64_t work_ns) {
  auto subscription = co_await broker.subscribe(topic, {.group_id = fresh("ours")});
  SteadyTime::time_point began;
  for (std::int64_t seen = 0; seen < setting.messages; ++seen) {
    const auto message = co_await subscription.next();
    if (seen == 0) began = SteadyTime::now();
    work(work_ns);
  }
  co_await subscription.commit();
  co_return Figure{static_cast<double>(setting.messages) / seconds_since(began)};
}

awaitable<Figure> consume_batches(const Setting& setting, std::string topic, MessageBroker broker) {
  auto subscription = co_await broker.subscribe(topic, {.group_id = fresh("ours")});
  SteadyTime::time_point began;
  for (std::int64_t seen = 0; seen < setting.messages;) {
    const auto batch = co_await subscription.next_batch(500);
    if (seen == 0) began = SteadyTime::now();
    seen += static_cast<std::int64_t>(batch.size());
  }
  co_await subscription.commit();
  co_return Figure{static_cast<double>(setting.messages) / seconds_since(began)};
}

awaitable<Figure> latency(const Setting& setting, std::string topic, MessageBroker broker, int rate) {
  const int count = rate < latency_rate ? 5 * rate : latency_messages;
  const int warm_up = std::min(count / 5, latency_warm_up);
  auto subscription = co_await broker.subscribe(topic, {.group_id = fresh("ours")});
  // In a thread of its own, as beside it, and at a pace that the same sleep keeps.
  std::thread publisher([&] {
    asio::io_context context{1};
    MessageBroker other(context.get_executor(), config_of(setting));
    measure::complete(context, other.connect());
    Keys keys(setting);
    const auto publish = [&] {
      std::string bytes(setting.size, 'x');
      const auto sent = now_ns();
      std::memcpy(bytes.data(), &sent, sizeof sent);
      asio::co_spawn(context, other.publish(topic, Payload(std::move(bytes)), {.key = keys.next()}), asio::detached);
      context.poll();
    };
    measure::paced(rate, count, publish, [&] { context.poll(); });
    measure::complete(context, other.disconnect());
  });
  std::vector<double> latencies;
  for (int seen = 0; seen < count; ++seen) {
    const auto message = co_await subscription.next();
    std::int64_t sent = 0;
    std::memcpy(&sent, message->body().data(), sizeof sent);
    if (seen >= warm_up) latencies.push_back(static_cast<double>(now_ns() - sent) / 1e6);
  }
  publisher.join();
  Figure figure{static_cast<double>(rate)};
  latencies_into(figure, std::move(latencies));
  co_return figure;
}

void create(const Setting& setting, const std::string& topic) {
  run_ours(setting, [&](MessageBroker broker) -> awaitable<Figure> {
    co_await broker.connect();
    co_await broker.administration().create_topic(topic, {.partitions = 6});
    co_return Figure{};
  });
}

/// Else a few rounds fill the broker's disk.
void remove(const Setting& setting, const std::string& topic) {
  run_ours(setting, [&](MessageBroker broker) -> awaitable<Figure> {
    co_await broker.connect();
    co_await broker.administration().delete_topic(topic);
    co_return Figure{};
  });
}

struct Row {
  std::string name;
  std::string beside;  // the row that it is compared with
  std::function<Figure(const std::string& topic)> work;
  bool needs_backlog = false;
  std::vector<Figure> runs = {};

  [[nodiscard]] double median(double Figure::* member) const {
    std::vector<double> all;
    for (const auto& each : runs) all.push_back(each.*member);
    std::ranges::sort(all);
    return all[all.size() / 2];
  }
};

std::vector<Row> rows_of(const Setting& s) {
  const auto ours = [&s](auto work, auto... more) {
    return [&s, work, more...](const std::string& topic) {
      return run_ours(s, [&](MessageBroker broker) { return work(s, topic, std::move(broker), more...); });
    };
  };
  std::vector<Row> rows{
      {"publish: librdkafka", "", [&s](const std::string& topic) { return native_publish(s, topic); }},
      {"publish: librdkafka, 1,000 unanswered", "publish: librdkafka",
       [&s](const std::string& topic) { return native_window(s, topic); }},
      {"publish: confirm=false, flush", "publish: librdkafka", ours(publish_buffered)},
      {"publish: publish_many", "publish: librdkafka", ours(publish_many)},
      {"publish: 1,000 coroutines, awaited", "publish: librdkafka", ours(publish_awaited)},
      {"consume: librdkafka, one by one", "", [&s](const std::string& topic) { return native_consume(s, topic, 0); },
       true},
      {"consume: librdkafka, batches", "", [&s](const std::string& topic) { return native_consume_batches(s, topic, 0, false); },
       true},
      {"consume: next()", "consume: librdkafka, one by one", ours(consume_next, std::int64_t{0}), true},
      {"consume: next_batch()", "consume: librdkafka, batches", ours(consume_batches), true},
  };
  for (const std::int64_t ns : {1000, 2000, 4000}) {
    rows.push_back({fmt::format("handler of {} us: alone", ns / 1000), "",
                    [&s, ns](const std::string&) { return handler_alone(s, ns); }});
    rows.push_back({fmt::format("handler of {} us: librdkafka", ns / 1000),
                    fmt::format("handler of {} us: alone", ns / 1000),
                    [&s, ns](const std::string& topic) { return native_consume(s, topic, ns); }, true});
    rows.push_back({fmt::format("handler of {} us: librdkafka, roomy", ns / 1000),
                    fmt::format("handler of {} us: alone", ns / 1000),
                    [&s, ns](const std::string& topic) { return native_consume_batches(s, topic, ns, true); }, true});
    rows.push_back({fmt::format("handler of {} us: next()", ns / 1000),
                    fmt::format("handler of {} us: alone", ns / 1000), ours(consume_next, ns), true});
  }
  rows.push_back(
      {"sequential: librdkafka, linger 0", "", [&s](const std::string& topic) { return native_sequential(s, topic); }});
  rows.push_back({"sequential: publish()", "sequential: librdkafka, linger 0", ours(publish_sequentially)});
  for (const int rate : {1000, 10'000}) {
    rows.push_back({fmt::format("latency at {}/s: librdkafka, linger 1", rate), "",
                    [&s, rate](const std::string& topic) { return native_latency(s, topic, rate); }});
    rows.push_back({fmt::format("latency at {}/s: publish(), next()", rate),
                    fmt::format("latency at {}/s: librdkafka, linger 1", rate), ours(latency, rate)});
  }
  std::erase_if(rows, [&s](const Row& row) { return !row.name.starts_with(s.only); });
  return rows;
}

}  // namespace

int main(int argc, char** argv) {
  Setting setting;
  CLI::App app("Kafka: the library beside librdkafka");
  app.add_option("url", setting.url, "kafka://host:port")->required();
  app.add_option("--messages", setting.messages);
  app.add_option("--size", setting.size);
  app.add_option("--keys", setting.keys, "So many different keys; 0: none");
  app.add_option("--rounds", setting.rounds);
  app.add_option("--only", setting.only);
  app.add_flag("--json", setting.json);
  std::vector<std::string> options;
  app.add_option("--producer-option", options, "NAME=VALUE, of the library");
  CLI11_PARSE(app, argc, argv);
  for (const auto& each : options) {
    const auto equals = each.find('=');
    setting.producer_config.insert_or_assign(each.substr(0, equals), each.substr(equals + 1));
  }
  setting.servers = setting.url.substr(setting.url.find("://") + 3);
  set_log_level(LogLevel::off);

  auto rows = rows_of(setting);
  std::string backlog;
  if (std::ranges::any_of(rows, &Row::needs_backlog)) {
    backlog = fresh("backlog");
    create(setting, backlog);
    native_publish(setting, backlog);
  }
  for (int round = 0; round < setting.rounds; ++round) {
    for (auto& row : rows) {
      auto topic = backlog;
      if (!row.needs_backlog) create(setting, topic = fresh("topic"));
      reset_peak();
      const auto cpu = cpu_seconds();
      auto figure = row.work(topic);
      figure.cpu_seconds = cpu_seconds() - cpu;
      figure.peak_mib = peak_mib();
      row.runs.push_back(figure);
      if (!row.needs_backlog) remove(setting, topic);
      if (!setting.json) fmt::print(stderr, "{:<45} {:>12.0f}\n", row.name, figure.per_second);
    }
  }
  if (!backlog.empty()) remove(setting, backlog);
  const auto compared = [&](const Row& row) {
    const auto found = std::ranges::find(rows, row.beside, &Row::name);
    if (found == rows.end()) return 0.0;
    if (row.median(&Figure::p50_ms) > 0 && row.name.starts_with("latency"))
      return row.median(&Figure::p99_ms) / found->median(&Figure::p99_ms);
    return row.median(&Figure::per_second) / found->median(&Figure::per_second);
  };
  if (setting.json) {
    boost::json::array out;
    for (const auto& row : rows)
      out.push_back({{"name", row.name},
                     {"per_second", row.median(&Figure::per_second)},
                     {"ratio", compared(row)},
                     {"p50_ms", row.median(&Figure::p50_ms)},
                     {"p99_ms", row.median(&Figure::p99_ms)},
                     {"cpu_seconds", row.median(&Figure::cpu_seconds)},
                     {"peak_mib", row.median(&Figure::peak_mib)}});
    std::cout << boost::json::serialize(out) << '\n';
    return 0;
  }
  fmt::print("{} messages of {} bytes, {} rounds, 6 partitions; medians\n\n", setting.messages, setting.size,
             setting.rounds);
  fmt::print("{:<42} {:>11} {:>7} {:>8} {:>8} {:>7} {:>8}\n", "", "a second", "ratio", "p50 ms", "p99 ms", "CPU s",
             "peak MiB");
  for (const auto& row : rows)
    fmt::print("{:<42} {:>11.0f} {:>7} {:>8} {:>8} {:>7.2f} {:>8.0f}\n", row.name, row.median(&Figure::per_second),
               row.beside.empty() ? "" : fmt::format("{:.2f}", compared(row)),
               row.median(&Figure::p50_ms) > 0 ? fmt::format("{:.2f}", row.median(&Figure::p50_ms)) : "",
               row.median(&Figure::p50_ms) > 0 ? fmt::format("{:.2f}", row.median(&Figure::p99_ms)) : "",
               row.median(&Figure::cpu_seconds), row.median(&Figure::peak_mib));
}

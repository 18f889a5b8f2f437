// The library on Redis, streams and channels, beside the same work done with hiredis alone (two windows of 512 commands under way),
// alternating in one run.
//   bench_redis URL [--messages N] [--size BYTES] [--rounds N] [--only PART] [--json]
// PART is the beginning of a row's name. Every round has streams of its own. Figures are medians of the rounds.
#include <fmt/format.h>
#include <hiredis/hiredis.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/serialize.hpp>
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
  std::string host = "127.0.0.1";
  int port = 6379;
  std::int64_t messages = 500'000;
  std::size_t size = 100;
  int rounds = 3;
  std::string only;
  bool json = false;
};

struct Figure {
  double per_second = 0;
  double p50_us = 0;
  double p99_us = 0;
};

Figure latencies(std::vector<double> microseconds) {
  std::ranges::sort(microseconds);
  return {0, at_share(microseconds, 0.5), at_share(microseconds, 0.99)};
}

// ---- hiredis alone

using Context = std::unique_ptr<redisContext, void (*)(redisContext*)>;
using Reply = std::unique_ptr<redisReply, void (*)(void*)>;
constexpr std::int64_t window = 512;

Context native_connect(const Setting& setting) {
  Context context(redisConnect(setting.host.c_str(), setting.port), &redisFree);
  if (!context || context->err) throw std::runtime_error(context ? context->errstr : "no memory");
  return context;
}

Reply reply_of(const Context& context) {
  void* reply = nullptr;
  if (redisGetReply(context.get(), &reply) != REDIS_OK) throw std::runtime_error(context->errstr);
  Reply owned(static_cast<redisReply*>(reply), &freeReplyObject);
  if (owned->type == REDIS_REPLY_ERROR) throw std::runtime_error(owned->str);
  return owned;
}

using Send = void (*)(const Context& context, const std::string& topic, const std::string& payload);

void native_add(const Context& context, const std::string& topic, const std::string& payload) {
  const char* words[] = {"XADD", topic.c_str(), "*", "payload", payload.data()};
  const std::size_t sizes[] = {4, topic.size(), 1, 7, payload.size()};
  redisAppendCommandArgv(context.get(), 5, words, sizes);
}

void native_post(const Context& context, const std::string& topic, const std::string& payload) {
  const char* words[] = {"PUBLISH", topic.c_str(), payload.data()};
  const std::size_t sizes[] = {7, topic.size(), payload.size()};
  redisAppendCommandArgv(context.get(), 3, words, sizes);
}

void flush(const Context& context) {
  for (int done = 0; !done;)
    if (redisBufferWrite(context.get(), &done) != REDIS_OK) throw std::runtime_error(context->errstr);
}

Figure send_all(const Setting& setting, const std::string& topic, Send send) {
  const auto context = native_connect(setting);
  const std::string payload(setting.size, 'x');
  const auto began = SteadyTime::now();
  std::int64_t sent = 0;
  std::int64_t answered = 0;
  while (answered < setting.messages) {
    // The next window is written before the last is read.
    while (sent < setting.messages && sent - answered < 2 * window) {
      const auto until = std::min(sent + window, setting.messages);
      for (; sent < until; ++sent) send(context, topic, payload);
      flush(context);
    }
    for (const auto until = std::min(answered + window, setting.messages); answered < until; ++answered) reply_of(context);
  }
  return {static_cast<double>(setting.messages) / seconds_since(began)};
}

Figure native_publish(const Setting& setting) { return send_all(setting, fresh("native"), native_add); }
Figure native_channel_publish(const Setting& setting) { return send_all(setting, fresh("native"), native_post); }

void fill(const Setting& setting, const std::string& topic) { send_all(setting, topic, native_add); }

Figure native_consume(const Setting& setting) {
  const auto topic = fresh("native");
  fill(setting, topic);
  const auto context = native_connect(setting);
  const auto ask = [&](const std::string& command) { redisAppendFormattedCommand(context.get(), command.data(), command.size()); };
  const auto encode = [](const std::vector<std::string>& words) {
    std::string out = fmt::format("*{}\r\n", words.size());
    for (const auto& word : words) out += fmt::format("${}\r\n{}\r\n", word.size(), word);
    return out;
  };
  ask(encode({"XGROUP", "CREATE", topic, "g", "0"}));
  reply_of(context);
  const auto read = encode({"XREADGROUP", "GROUP", "g", "c", "COUNT", std::to_string(window), "STREAMS", topic, ">"});
  const auto began = SteadyTime::now();
  ask(read);
  flush(context);
  std::int64_t seen = 0;
  std::uint64_t bytes = 0;
  while (seen < setting.messages) {
    const auto reply = reply_of(context);
    if (reply->type == REDIS_REPLY_INTEGER) continue;  // of an XACK
    ask(read);  // before the last is acknowledged
    const auto& entries = *reply->element[0]->element[1];
    std::vector<const char*> words{"XACK", topic.c_str(), "g"};
    std::vector<std::size_t> sizes{4, topic.size(), 1};
    for (std::size_t i = 0; i < entries.elements; ++i) {
      const auto& id = *entries.element[i]->element[0];
      bytes += entries.element[i]->element[1]->element[1]->len;
      words.push_back(id.str);
      sizes.push_back(id.len);
    }
    seen += static_cast<std::int64_t>(entries.elements);
    redisAppendCommandArgv(context.get(), static_cast<int>(words.size()), words.data(), sizes.data());
    flush(context);
  }
  if (bytes != static_cast<std::uint64_t>(setting.messages) * setting.size) throw std::runtime_error("bytes are missing");
  return {static_cast<double>(setting.messages) / seconds_since(began)};
}

/// Publishes at a steady rate, one at a time; when each was published is in its payload.
template <class Publish>
void paced(double rate, std::int64_t count, Publish publish) {
  measure::paced(rate, count, [&] { publish(std::to_string(SteadyTime::now().time_since_epoch().count())); }, [] {});
}

double microseconds_since(std::string_view stamp) {
  return static_cast<double>(SteadyTime::now().time_since_epoch().count() - std::stoll(std::string(stamp))) / 1e3;
}

/// Publishes in a thread of its own, ten thousand a second.
std::thread native_pacing(const Setting& setting, const std::string& topic, Send send, std::int64_t count) {
  return std::thread([=] {
    std::this_thread::sleep_for(200ms);
    const auto context = native_connect(setting);
    std::int64_t outstanding = 0;
    paced(10'000, count, [&](const std::string& stamp) {
      send(context, topic, stamp);
      flush(context);
      if (++outstanding == 64)
        for (; outstanding > 0; --outstanding) reply_of(context);
    });
    for (; outstanding > 0; --outstanding) reply_of(context);
  });
}

constexpr std::int64_t paced_messages = 30'000;

Figure native_latency(const Setting& setting) {
  const auto topic = fresh("native");
  std::vector<double> taken;
  auto publisher = native_pacing(setting, topic, native_add, paced_messages);
  const auto context = native_connect(setting);
  reply_of((redisAppendCommand(context.get(), "XGROUP CREATE %s g 0 MKSTREAM", topic.c_str()), context));
  while (std::cmp_less(taken.size(), paced_messages)) {
    redisAppendCommand(context.get(), "XREADGROUP GROUP g c COUNT 128 BLOCK 4000 STREAMS %s >", topic.c_str());
    const auto reply = reply_of(context);
    if (reply->type != REDIS_REPLY_ARRAY) continue;
    const auto& entries = *reply->element[0]->element[1];
    std::vector<const char*> words{"XACK", topic.c_str(), "g"};
    for (std::size_t i = 0; i < entries.elements; ++i) {
      const auto& value = *entries.element[i]->element[1]->element[1];
      taken.push_back(microseconds_since({value.str, value.len}));
      words.push_back(entries.element[i]->element[0]->str);
    }
    redisAppendCommandArgv(context.get(), static_cast<int>(words.size()), words.data(), nullptr);
    reply_of(context);
  }
  publisher.join();
  return latencies(std::move(taken));
}

Context native_listen(const Setting& setting, const std::string& topic) {
  auto context = native_connect(setting);
  reply_of((redisAppendCommand(context.get(), "SUBSCRIBE %s", topic.c_str()), context));
  return context;
}

Figure native_channel_latency(const Setting& setting) {
  const auto topic = fresh("native");
  std::vector<double> taken;
  auto publisher = native_pacing(setting, topic, native_post, paced_messages);
  const auto context = native_listen(setting, topic);
  while (std::cmp_less(taken.size(), paced_messages)) {
    const auto push = reply_of(context);
    taken.push_back(microseconds_since({push->element[2]->str, push->element[2]->len}));
  }
  publisher.join();
  return latencies(std::move(taken));
}

/// The same native publisher feeds this and the library's subscriber.
Figure native_channel_receive(const Setting& setting) {
  const auto topic = fresh("native");
  const auto context = native_listen(setting, topic);
  std::thread publisher([&] { send_all(setting, topic, native_post); });
  const auto began = SteadyTime::now();
  std::uint64_t bytes = 0;
  for (std::int64_t seen = 0; seen < setting.messages; ++seen) bytes += reply_of(context)->element[2]->len;
  const auto taken = seconds_since(began);
  publisher.join();
  if (bytes != static_cast<std::uint64_t>(setting.messages) * setting.size) throw std::runtime_error("bytes are missing");
  return {static_cast<double>(setting.messages) / taken};
}

// ---- the library

MessagingConfig config(const Setting& setting, const char* mode) {
  auto made = MessagingConfig::from_url(setting.url);
  made.connection_config = {{"mode", mode}};
  return made;
}

Figure with_broker(const Setting& setting, const char* mode, const std::function<awaitable<Figure>(MessageBroker)>& body) {
  asio::io_context context{1};
  Figure figure;
  std::exception_ptr error;
  MessageBroker broker(context.get_executor(), config(setting, mode));
  asio::co_spawn(context, body(broker), [&](std::exception_ptr failure, Figure result) {
    error = failure;
    figure = result;
    context.stop();
  });
  context.run();
  if (error) std::rethrow_exception(error);
  return figure;
}

awaitable<Figure> publish_buffered(MessageBroker broker, const Setting& setting) {
  const auto topic = fresh("ours");
  const Payload payload(std::string(setting.size, 'x'));
  co_await broker.connect();
  const auto began = SteadyTime::now();
  for (std::int64_t i = 0; i < setting.messages; ++i) co_await broker.publish(topic, payload, {.confirm = false});
  const auto report = co_await broker.flush();
  if (std::cmp_not_equal(report.confirmed, setting.messages)) throw std::runtime_error("not all was confirmed");
  co_return Figure{static_cast<double>(setting.messages) / seconds_since(began)};
}

awaitable<Figure> publish_many(MessageBroker broker, const Setting& setting) {
  const auto topic = fresh("ours");
  const Payload payload(std::string(setting.size, 'x'));
  co_await broker.connect();
  const auto began = SteadyTime::now();
  std::int64_t left = setting.messages;
  const auto publisher = [&]() -> awaitable<void> {
    while (left > 0) {
      left -= 10'000;
      std::vector<OutgoingMessage> batch(10'000, OutgoingMessage{.topic = topic, .payload = payload});
      for (const auto& result : co_await broker.publish_many(std::move(batch))) result.value();
    }
  };
  // Two batches under way, as hiredis has two windows.
  using namespace asio::experimental::awaitable_operators;
  co_await (publisher() && publisher());
  co_return Figure{static_cast<double>(setting.messages) / seconds_since(began)};
}

awaitable<Figure> publish_concurrent(MessageBroker broker, const Setting& setting) {
  const auto topic = fresh("ours");
  const Payload payload(std::string(setting.size, 'x'));
  co_await broker.connect();
  constexpr int coroutines = 1000;
  int running = coroutines;
  asio::steady_timer done(co_await asio::this_coro::executor, SteadyTime::time_point::max());
  const auto each = [&]() -> awaitable<void> {
    for (std::int64_t i = 0; i < setting.messages / coroutines; ++i) co_await broker.publish(topic, payload);
    if (--running == 0) done.cancel();
  };
  const auto began = SteadyTime::now();
  for (int i = 0; i < coroutines; ++i) asio::co_spawn(broker.executor(), each(), asio::detached);
  try {
    co_await done.async_wait(asio::use_awaitable);
  } catch (const boost::system::system_error&) {
  }
  co_return Figure{static_cast<double>(setting.messages) / seconds_since(began)};
}

awaitable<Figure> consume(MessageBroker broker, const Setting& setting, std::size_t at_once) {
  const auto topic = fresh("ours");
  fill(setting, topic);
  auto subscription = co_await broker.subscribe(topic, {.group_id = "g"});
  const auto began = SteadyTime::now();
  std::int64_t seen = 0;
  std::uint64_t bytes = 0;
  while (seen < setting.messages) {
    if (at_once == 1) {
      const auto message = co_await subscription.next();
      bytes += message->body().size();
      ++seen;
    } else {
      for (const auto& message : co_await subscription.next_batch(at_once)) {
        bytes += message.body().size();
        ++seen;
      }
    }
  }
  co_await subscription.commit();
  if (bytes != static_cast<std::uint64_t>(setting.messages) * setting.size) throw std::runtime_error("bytes are missing");
  co_return Figure{static_cast<double>(setting.messages) / seconds_since(began)};
}

awaitable<Figure> receive(MessageBroker broker, const Setting& setting, std::size_t at_once) {
  const auto topic = fresh("ours");
  auto subscription = co_await broker.subscribe(topic);
  std::thread publisher([&] { send_all(setting, topic, native_post); });
  const auto began = SteadyTime::now();
  std::uint64_t bytes = 0;
  for (std::int64_t seen = 0; seen < setting.messages;) {
    if (at_once == 1) {
      bytes += (co_await subscription.next())->body().size();
      ++seen;
    } else {
      for (const auto& message : co_await subscription.next_batch(at_once)) {
        bytes += message.body().size();
        ++seen;
      }
    }
  }
  const auto taken = seconds_since(began);
  publisher.join();
  if (bytes != static_cast<std::uint64_t>(setting.messages) * setting.size) throw std::runtime_error("bytes are missing");
  co_return Figure{static_cast<double>(setting.messages) / taken};
}

awaitable<Figure> latency(MessageBroker broker, const Setting& setting, const char* mode) {
  const auto topic = fresh("ours");
  std::vector<double> taken;
  SubscribeOptions options;
  if (broker.capabilities().groups) options.group_id = "g";
  auto subscription = co_await broker.subscribe(topic, options);
  // At the pace of the native publisher, kept by the same clock: the loop turns once a message, and takes what has been answered.
  std::thread publisher([&] {
    std::this_thread::sleep_for(200ms);
    asio::io_context context{1};
    MessageBroker other(context.get_executor(), config(setting, mode));
    measure::complete(context, other.connect());
    paced(10'000, paced_messages, [&](const std::string& stamp) {
      asio::co_spawn(context, other.publish(topic, Payload(stamp), {.confirm = false}), asio::detached);
      context.poll();
    });
    measure::complete(context, other.flush());
    measure::complete(context, other.disconnect());
  });
  while (std::cmp_less(taken.size(), paced_messages)) taken.push_back(microseconds_since((co_await subscription.next())->body()));
  publisher.join();
  co_return latencies(std::move(taken));
}

struct Row {
  std::string name;
  std::string native;  // of the row that it is compared with
  std::function<Figure(const Setting&)> run;
};

std::vector<Row> rows() {
  const auto ours = [](const char* mode, auto body) {
    return [=](const Setting& setting) {
      return with_broker(setting, mode, [&](MessageBroker broker) { return body(std::move(broker), setting); });
    };
  };
  const auto by = [&](const char* mode, auto body, auto how) {
    return ours(mode, [=](MessageBroker broker, const Setting& setting) { return body(std::move(broker), setting, how); });
  };
  const auto* streams = "streams";
  const auto* pubsub = "pubsub";
  return {{"publish: hiredis", "", native_publish},
          {"publish: confirm=false, flush", "publish: hiredis", ours(streams, publish_buffered)},
          {"publish: publish_many", "publish: hiredis", ours(streams, publish_many)},
          {"publish: awaited by 1,000 coroutines", "publish: hiredis", ours(streams, publish_concurrent)},
          {"consume: hiredis", "", native_consume},
          {"consume: next()", "consume: hiredis", by(streams, consume, std::size_t{1})},
          {"consume: batches", "consume: hiredis", by(streams, consume, std::size_t{500})},
          {"latency: hiredis", "", native_latency},
          {"latency: publish to next()", "latency: hiredis", by(streams, latency, streams)},
          {"channel publish: hiredis", "", native_channel_publish},
          {"channel publish: confirm=false, flush", "channel publish: hiredis", ours(pubsub, publish_buffered)},
          {"channel publish: publish_many", "channel publish: hiredis", ours(pubsub, publish_many)},
          {"channel publish: 1,000 coroutines", "channel publish: hiredis", ours(pubsub, publish_concurrent)},
          {"channel receive: hiredis", "", native_channel_receive},
          {"channel receive: next()", "channel receive: hiredis", by(pubsub, receive, std::size_t{1})},
          {"channel receive: batches", "channel receive: hiredis", by(pubsub, receive, std::size_t{500})},
          {"channel latency: hiredis", "", native_channel_latency},
          {"channel latency: publish to next()", "channel latency: hiredis", by(pubsub, latency, pubsub)}};
}

}  // namespace

int main(int argc, char** argv) {
  Setting setting;
  CLI::App app{"Redis: the library beside hiredis"};
  app.add_option("url", setting.url, "redis://host:port")->required();
  app.add_option("--messages", setting.messages)->check(CLI::Range(10'000, 100'000'000));
  app.add_option("--size", setting.size);
  app.add_option("--rounds", setting.rounds)->check(CLI::Range(1, 100));
  app.add_option("--only", setting.only);
  app.add_flag("--json", setting.json);
  CLI11_PARSE(app, argc, argv);
  set_log_level(LogLevel::error);
  const auto address = setting.url.substr(setting.url.find("://") + 3);
  setting.host = address.substr(0, address.find(':'));
  setting.port = std::stoi(address.substr(address.find(':') + 1));
  setting.messages = setting.messages / 10'000 * 10'000;

  // The server drops no subscriber for being slower than the publisher.
  const auto generous = native_connect(setting);
  reply_of((redisAppendCommand(generous.get(), "CONFIG SET client-output-buffer-limit %s", "pubsub 0 0 0"), generous));
  // Nor does it rewrite its file in the background, which would fall on one row or another.
  reply_of((redisAppendCommand(generous.get(), "CONFIG SET auto-aof-rewrite-percentage 0"), generous));

  std::vector<std::pair<Row, std::vector<Figure>>> measured;
  for (auto& row : rows())
    if (row.name.starts_with(setting.only)) measured.push_back({std::move(row), {}});
  for (int round = 0; round < setting.rounds; ++round)
    for (auto& [row, figures] : measured) {
      figures.push_back(row.run(setting));
      const auto cleaner = native_connect(setting);
      reply_of((redisAppendCommand(cleaner.get(), "FLUSHDB"), cleaner));
    }
  const auto median = [](const std::vector<Figure>& figures, double Figure::*field) {
    std::vector<double> values;
    for (const auto& each : figures) values.push_back(each.*field);
    std::ranges::sort(values);
    return values[values.size() / 2];
  };
  boost::json::array json;
  if (!setting.json) fmt::print("{} messages of {} bytes, {} rounds; medians\n\n{:40} {:>10} {:>7} {:>8} {:>8}\n", setting.messages,
                                setting.size, setting.rounds, "", "a second", "ratio", "p50 us", "p99 us");
  for (const auto& [row, figures] : measured) {
    const auto rate = median(figures, &Figure::per_second);
    const auto p99 = median(figures, &Figure::p99_us);
    double ratio = 0;
    for (const auto& [other, its] : measured)
      if (other.name == row.native) ratio = rate > 0 ? rate / median(its, &Figure::per_second) : p99 / median(its, &Figure::p99_us);
    if (setting.json) {
      json.push_back({{"name", row.name}, {"per_second", rate}, {"ratio", ratio}, {"p50_us", median(figures, &Figure::p50_us)}, {"p99_us", p99}});
    } else {
      fmt::print("{:40} {:10.0f} {:>7} {:8.0f} {:8.0f}\n", row.name, rate, ratio > 0 ? fmt::format("{:.2f}", ratio) : "",
                 median(figures, &Figure::p50_us), p99);
    }
  }
  if (setting.json) std::cout << boost::json::serialize(json) << '\n';
}

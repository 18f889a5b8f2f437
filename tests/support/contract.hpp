#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdlib>
#include <maestro/messaging.hpp>
#include <maestro/messaging/virtual_clock.hpp>
#include <memory>
#include <random>
#include <string>

#include "runtime/notifier.hpp"
#include "support/server.hpp"

namespace maestro::messaging::testing {

namespace asio = boost::asio;
using namespace std::chrono_literals;

/// A broker that the contract suite runs against. To prove a new transport, add it to `transports()`.
struct TransportUnderTest {
  std::string name;
  /// A configuration for a broker that nobody else uses, or whose topics at least have names that nobody else uses.
  std::function<MessagingConfig(const std::string& unique)> config;
  /// A real server, on real time; else everything runs under a virtual clock.
  bool is_real = false;
};

inline void PrintTo(const TransportUnderTest& transport, std::ostream* out) { *out << transport.name; }

inline std::vector<TransportUnderTest> transports() {
  std::vector<TransportUnderTest> all;
  all.push_back({"memory", [](const std::string& unique) {
                   MessagingConfig config;
                   config.connection_string = "memory://" + unique;
                   return config;
                 }});
#if MAESTRO_TEST_KAFKA
  all.push_back({"kafka", [](const std::string&) { return MessagingConfig::from_url(server("kafka").url); }, true});
#endif
#if MAESTRO_TEST_REDIS
  all.push_back({"redis", [](const std::string&) { return MessagingConfig::from_url(server("redis").url); }, true});
#endif
  return all;
}

/// One rule of the contract on one transport. On the embedded broker the body runs under a virtual clock, so that no test waits for
/// real time.
class Contract : public ::testing::TestWithParam<TransportUnderTest> {
 public:
  using Body = std::function<awaitable<void>()>;

 protected:
  Contract() : clock_(GetParam().is_real ? Clock::real() : virtual_) {
    // For whoever looks for a mistake.
    if (!std::getenv("MESSAGING_LOG_LEVEL")) set_log_level(LogLevel::off);
  }
  ~Contract() override {
    // Coroutines that still wait are destroyed while the clock and the test's objects exist.
    context_.reset();
  }

  /// A name that no other test uses: its log can be found by it.
  std::string unique(const std::string& what = "topic") {
    static std::atomic<int> number{0};
    std::string test = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::ranges::replace(test, '/', '-');
    return what + "." + test + "-" + std::to_string(++number) + run_;
  }
  /// A group that no other test, and no earlier run, is a member of.
  std::string group(const std::string& name) { return name + run_; }

  MessagingConfig config() {
    auto made = GetParam().config(home_);
    made.clock = clock_;
    made.seed = 7;
    return made;
  }
  MessageBroker broker() { return {context_->get_executor(), config()}; }
  MessageBroker broker(ConfigMap connection, ConfigMap consumer = {}, ConfigMap producer = {}) {
    auto made = config();
    if (GetParam().is_real) {
      // A real broker has its own faults, and other tests for them.
      std::erase_if(connection, [](const auto& entry) { return entry.first.starts_with("fault_"); });
      if (auto partitions = connection.extract("partitions")) {
        partitions.key() = "auto_create_partitions";
        connection.insert(std::move(partitions));
      }
    }
    made.connection_config.merge(connection);
    made.consumer_config = std::move(consumer);
    made.producer_config = std::move(producer);
    return {context_->get_executor(), std::move(made)};
  }

  void run(const Body& body) {
    if (!GetParam().is_real) {
      run_virtual(*context_, *virtual_, body());
      return;
    }
    std::exception_ptr error;
    asio::co_spawn(*context_, body(), [&](std::exception_ptr failure) {
      error = failure;
      context_->stop();
    });
    context_->run();
    context_->restart();
    if (error) std::rethrow_exception(error);
  }

  /// Starts the consumer beside the body; `finish` stops it and waits for its end.
  struct Started {
    std::shared_ptr<bool> ended = std::make_shared<bool>(false);
    std::shared_ptr<std::exception_ptr> error = std::make_shared<std::exception_ptr>();
    std::shared_ptr<asio::cancellation_signal> cancel = std::make_shared<asio::cancellation_signal>();
  };
  Started start(EventConsumer& consumer) {
    Started started;
    asio::co_spawn(*context_, consumer.start(),
                   asio::bind_cancellation_slot(started.cancel->slot(), [started](std::exception_ptr error) {
                     *started.ended = true;
                     *started.error = error;
                   }));
    return started;
  }
  awaitable<void> finish(EventConsumer& consumer, Started started) {
    consumer.stop();
    co_await until([&] { return *started.ended; });
    if (*started.error) std::rethrow_exception(*started.error);
  }

  /// Starts the work, cancels it after so many turns of the loop and of the clock, and waits for its end. Whether it was
  /// done nevertheless.
  awaitable<bool> cancelled_after(int steps, awaitable<void> work) {
    struct Outcome {
      bool ended = false;
      std::exception_ptr error;
    };
    const auto outcome = std::make_shared<Outcome>();
    asio::cancellation_signal cancel;
    asio::co_spawn(*context_, std::move(work),
                   asio::bind_cancellation_slot(cancel.slot(), [outcome](std::exception_ptr error) { *outcome = {true, error}; }));
    for (int step = 0; step < steps && !outcome->ended; ++step) {
      if (step % 4 == 3) {
        co_await sleep(GetParam().is_real ? 20ms : 1ms);  // of the order of a round trip, for it to be cut short or not
      } else {
        co_await asio::post(*context_, asio::use_awaitable);
      }
    }
    cancel.emit(asio::cancellation_type::terminal);
    co_await until([&] { return outcome->ended; });
    if (!outcome->error) co_return true;
    try {
      std::rethrow_exception(outcome->error);
    } catch (const boost::system::system_error& failure) {
      EXPECT_EQ(failure.code(), asio::error::operation_aborted) << failure.what();
    }
    co_return false;
  }

  /// A long time, which is a hundred times shorter on a real server.
  [[nodiscard]] static Duration scaled(Duration span) { return GetParam().is_real ? span / 100 : span; }

  awaitable<void> sleep(Duration span) { co_await sleep_for(*clock_, span); }

  /// Waits for a condition: an hour of virtual time at most, or a minute of real time.
  awaitable<void> until(std::function<bool()> condition) {
    const auto deadline = clock_->now() + (GetParam().is_real ? Duration(1min) : Duration(1h));
    while (!condition()) {
      if (clock_->now() > deadline) {
        ADD_FAILURE() << "the condition did not come true";
        throw std::runtime_error("the condition did not come true");
      }
      co_await sleep(1ms);
    }
  }

  /// A real server remembers the topics and groups of earlier runs.
  std::string run_ = GetParam().is_real ? fmt::format("-{:08x}", std::random_device{}()) : "";
  std::shared_ptr<VirtualClock> virtual_ = std::make_shared<VirtualClock>(1);
  std::shared_ptr<Clock> clock_;
  std::unique_ptr<asio::io_context> context_ = std::make_unique<asio::io_context>(1);
  std::string home_ = unique("home");
};

inline std::string transport_name(const ::testing::TestParamInfo<TransportUnderTest>& info) { return info.param.name; }

/// For rules that need what only the embedded broker has: small limits, and faults on demand.
inline std::vector<TransportUnderTest> embedded() {
  auto all = transports();
  std::erase_if(all, [](const TransportUnderTest& each) { return each.name != "memory"; });
  return all;
}

#define MAESTRO_CONTRACT_ON_MEMORY(suite) \
  INSTANTIATE_TEST_SUITE_P(All, suite, ::testing::ValuesIn(embedded()), transport_name)

#define MAESTRO_CONTRACT(suite) \
  INSTANTIATE_TEST_SUITE_P(All, suite, ::testing::ValuesIn(transports()), transport_name)

/// What a coroutine throws; success when it throws nothing.
inline awaitable<boost::system::error_code> error_of(awaitable<void> work) {
  try {
    co_await std::move(work);
    co_return boost::system::error_code{};
  } catch (const boost::system::system_error& failure) {
    co_return failure.code();
  }
}

template <class T>
awaitable<void> ignore(awaitable<T> work) {
  co_await std::move(work);
}

}  // namespace maestro::messaging::testing

#pragma once

#include <fmt/format.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

/// What the benchmarks share.
namespace measure {

using SteadyTime = std::chrono::steady_clock;

inline double seconds_since(SteadyTime::time_point began) { return std::chrono::duration<double>(SteadyTime::now() - began).count(); }

/// A name that nothing else has.
inline std::string fresh(std::string_view what) { return fmt::format("bench.{}.{:08x}", what, std::random_device{}()); }

/// Of sorted values, the one below which this share lies.
inline double at_share(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
}

/// So many calls of `publish` at a steady rate. Between them `meanwhile` takes what has come, and the thread sleeps.
template <class Publish, class Meanwhile>
void paced(double rate, std::int64_t count, Publish publish, Meanwhile meanwhile) {
  const auto began = SteadyTime::now();
  for (std::int64_t i = 0; i < count; ++i) {
    const auto due = began + std::chrono::duration_cast<SteadyTime::duration>(std::chrono::duration<double>(static_cast<double>(i) / rate));
    while (SteadyTime::now() < due) {
      meanwhile();
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    publish();
  }
}

/// Runs until the work has completed.
template <class Result>
void complete(boost::asio::io_context& context, boost::asio::awaitable<Result> work) {
  bool done = false;
  boost::asio::co_spawn(context, std::move(work), [&](std::exception_ptr failure, auto&&...) {
    if (failure) std::rethrow_exception(failure);
    done = true;
  });
  while (!done) context.run_one();
}

}  // namespace measure

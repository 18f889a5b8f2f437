#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <functional>
#include <initializer_list>
#include <maestro/messaging/broker.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "command.hpp"

namespace maestro::cli {

/// A use of the command that cannot be; ends it with `exit_usage`.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Input that cannot be read, or is not what it should be; ends the command with `exit_failed`.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A topic that a verb was to look at or delete is not there; ends it with `exit_nothing`.
class NoSuchTopic : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws `UsageError` where nobody said `--yes` to what is done for good.
void require_yes(bool was_said, std::string_view what);

/// The configuration that `--broker`, `--option` and the environment ask for.
[[nodiscard]] messaging::MessagingConfig make_config(const Settings& settings);
/// Puts what `--option` says into the configuration.
void apply_options(messaging::MessagingConfig& config, const Settings& settings);
[[nodiscard]] bool is_memory(const Settings& settings);

using BrokerTask = std::function<messaging::awaitable<int>(messaging::MessageBroker)>;

/// How long a command waits, once it has ended or was interrupted, for a broker that is to hear of it.
constexpr messaging::Duration longest_goodbye = std::chrono::seconds(3);

/// Opens the broker, runs the task to its end or until SIGINT or SIGTERM cancels it, disconnects, and returns the exit
/// code. What the task throws is printed.
int with_broker(const Settings& settings, BrokerTask task);

/// Runs the task; where that misses the topic, it throws `NoSuchTopic`, which names the nearest that there is.
messaging::awaitable<int> near_topic(messaging::MessageBroker broker, std::string topic,
                                     messaging::awaitable<int> task);

/// Throws `UsageError` for those of these options that were given: the verb would take no notice of them.
void refuse_options(const messaging::MessagingConfig& config, std::initializer_list<std::string_view> names,
                    std::string_view why);
/// Whether the option was given, and does not come from the environment.
[[nodiscard]] bool is_given(const messaging::MessagingConfig& config, std::string_view name);

/// Prints what was thrown; returns the exit code for it.
int report_failure(const std::exception_ptr& failure);

/// `4 s`.
[[nodiscard]] std::string seconds_of(messaging::Duration duration);

/// Waits on the broker's clock.
messaging::awaitable<void> wait_for(messaging::MessageBroker broker, messaging::Duration duration);

/// What the work comes to; none, and it is cancelled, when it takes longer.
template <class Result>
messaging::awaitable<std::optional<Result>> within(messaging::MessageBroker broker, messaging::Duration limit,
                                                   messaging::awaitable<Result> work) {
  namespace asio = boost::asio;
  const auto executor = co_await asio::this_coro::executor;
  auto [order, failure, result, no_time] = co_await asio::experimental::make_parallel_group(
                                               asio::co_spawn(executor, std::move(work), asio::deferred),
                                               asio::co_spawn(executor, wait_for(broker, limit), asio::deferred))
                                               .async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
  if (!failure) co_return std::move(result);
  if (no_time) std::rethrow_exception(failure);  // it failed before the time was up, or both were cancelled
  co_return std::nullopt;
}

/// Eight hexadecimal digits that no other run has.
[[nodiscard]] std::string run_id();

}  // namespace maestro::cli

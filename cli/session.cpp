#include "session.hpp"

#include <fmt/format.h>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <exception>
#include <maestro/messaging/nearest.hpp>
#include <maestro/messaging/run.hpp>
#include <random>

#include "output.hpp"

namespace maestro::cli {

namespace asio = boost::asio;
using namespace messaging;

namespace {

/// Says nothing of a text that may be a secret, but for a name in front of it.
std::string what_is_wrong(std::string_view text) {
  std::string_view named;
  for (const auto& spec : option_table())
    if (text.starts_with(spec.name) && spec.name.size() > named.size()) named = spec.name;
  return named.empty() ? "one that was given has no name in front of a ="
                       : fmt::format("there is no = after '{}'", named);
}

/// `name=value`, the value read as the options table says; what is no number is left to the validation to refuse.
void apply_option(MessagingConfig& config, std::string_view text) {
  const auto equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0)
    throw UsageError(
        fmt::format("--option takes name=value; {}. `maestro config` lists the names", what_is_wrong(text)));
  const auto name = text.substr(0, equals);
  const auto value = text.substr(equals + 1);
  auto* map = &config.connection_config;
  OptionValue given{value};
  for (const auto& spec : option_table()) {
    if (spec.name != name) continue;
    if (spec.group == OptionGroup::consumer) map = &config.consumer_config;
    if (spec.group == OptionGroup::producer) map = &config.producer_config;
    if (spec.type == OptionType::boolean && (value == "true" || value == "false")) given = OptionValue(value == "true");
    std::int64_t whole = 0;
    double number = 0;
    const auto* end = value.data() + value.size();
    if (spec.type == OptionType::integer || spec.type == OptionType::duration) {
      if (const auto [at, error] = std::from_chars(value.data(), end, whole); error == std::errc{} && at == end)
        given = OptionValue(whole);
    } else if (spec.type == OptionType::number) {
      if (const auto [at, error] = std::from_chars(value.data(), end, number); error == std::errc{} && at == end)
        given = OptionValue(number);
    }
  }
  // A name that nobody knows is refused by whoever checks the configuration, with the nearest one that is known.
  map->insert_or_assign(std::string(name), std::move(given));
}

bool environment_names_a_broker() {
  for (const auto* name : {"MESSAGING_BROKER", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RABBITMQ_URL", "NATS_URL"})
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return true;
  return false;
}

int exit_code_of(const MessagingError& error) {
  switch (error.reason()) {
    case errc::connection_failed:
    case errc::authentication_failed:
    case errc::tls_failed:
      return exit_unreachable;
    case errc::topic_not_found:
      return exit_nothing;
    case errc::invalid_argument:
    case errc::invalid_topic:
    case errc::unknown_option:
    case errc::invalid_option:
    case errc::unsupported:
      return exit_usage;
    default:
      return exit_failed;
  }
}

/// What was wrong, and what the kind of error says about what to do.
std::string describe(const MessagingError& error) {
  auto advice = error.code().message();
  if (!advice.empty()) advice[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(advice[0])));
  return error.detail() + (error.detail().ends_with('?') ? " " : ". ") + advice;
}

awaitable<bool> disconnected(MessageBroker broker) {
  co_await broker.disconnect();
  co_return true;
}

awaitable<void> session(const Settings& settings, const BrokerTask& task, int& code) {
  std::exception_ptr failure;
  std::optional<MessageBroker> broker;
  try {
    broker.emplace(co_await asio::this_coro::executor, make_config(settings));
    code = co_await task(*broker);
  } catch (...) {
    failure = std::current_exception();
  }
  // An interrupted command still leaves its groups in good order.
  co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
  bool hangs = false;
  if (broker) {
    try {
      hangs = !co_await within(*broker, longest_goodbye, disconnected(*broker));
      if (hangs) print_hint(fmt::format("the broker did not hear of the end within {}", seconds_of(longest_goodbye)));
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) code = report_failure(failure);
  // The library may still wait for answers that nobody needs any more.
  const auto executor = co_await asio::this_coro::executor;
  if (auto* here = executor.target<asio::io_context::executor_type>(); here && (hangs || code == exit_unreachable))
    here->context().stop();
}

}  // namespace

int report_failure(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const UsageError& error) {
    print_error(error.what());
    return exit_usage;
  } catch (const NoSuchTopic& error) {
    print_error(error.what());
    return exit_nothing;
  } catch (const InputError& error) {
    print_error(error.what());
  } catch (const MessagingError& error) {
    print_error(describe(error));
    return exit_code_of(error);
  } catch (const boost::system::system_error& error) {
    print_error(error.code() == asio::error::operation_aborted
                    ? "interrupted before it was done. Run it again to the end"
                    : error.what());
  } catch (const std::exception& error) {
    print_error(error.what());
  }
  return exit_failed;
}

awaitable<int> near_topic(MessageBroker broker, std::string topic, awaitable<int> task) {
  std::optional<MessagingError> missed;
  try {
    co_return co_await std::move(task);
  } catch (const MessagingError& error) {
    if (error.reason() != errc::topic_not_found) throw;
    missed = error;
  }
  std::vector<std::string> topics;
  try {
    topics = co_await broker.administration().list_topics();
  } catch (const MessagingError&) {
    // Whoever may not list them is not helped.
  }
  const auto meant = near(topic, topics);
  // Not the error's own sentence, which tells a publisher what to do.
  throw NoSuchTopic(fmt::format("{}{} The topic does not exist{}", missed->detail(),
                                meant ? fmt::format("; did you mean '{}'?", *meant) : ".",
                                meant ? "" : "; `maestro topics list` names those that do"));
}

bool is_given(const MessagingConfig& config, std::string_view name) {
  return config.connection_config.contains(name) || config.consumer_config.contains(name) ||
         config.producer_config.contains(name);
}

void refuse_options(const MessagingConfig& config, std::initializer_list<std::string_view> names,
                    std::string_view why) {
  for (const auto name : names)
    if (is_given(config, name)) throw UsageError(fmt::format("{}: {}. Leave it out", name, why));
}

void apply_options(MessagingConfig& config, const Settings& settings) {
  for (const auto& option : settings.options) apply_option(config, option);
}

MessagingConfig make_config(const Settings& settings) {
  auto config = settings.broker                ? MessagingConfig::from_url(*settings.broker)
                : environment_names_a_broker() ? MessagingConfig::from_env()
                                               : MessagingConfig::from_url("memory://maestro");
  if (config.broker_type == BrokerType::kafka)
    for (const auto& option : settings.on_kafka) apply_option(config, option);
  apply_options(config, settings);
  return config;
}

void require_yes(bool was_said, std::string_view what) {
  if (!was_said) throw UsageError(fmt::format("{} for good. Say --yes if that is meant", what));
}

bool is_memory(const Settings& settings) {
  return settings.broker ? settings.broker->starts_with("memory://") : !environment_names_a_broker();
}

int with_broker(const Settings& settings, BrokerTask task) {
  int code = exit_failed;
  if (run(session(settings, task, code)) != EXIT_SUCCESS) return exit_failed;
  return code;
}

std::string seconds_of(Duration duration) {
  return fmt::format("{} s", std::chrono::duration_cast<std::chrono::seconds>(duration).count());
}

awaitable<void> wait_for(MessageBroker broker, Duration duration) {
  const auto timer = broker.clock()->make_timer(broker.executor());
  timer->expires_at(broker.clock()->now() + duration);
  co_await asio::async_initiate<const asio::use_awaitable_t<>, void(boost::system::error_code)>(
      [&timer](auto handler) { timer->async_wait(std::move(handler)); }, asio::use_awaitable);
}

std::string run_id() {
  std::random_device device;
  return fmt::format("{:08x}", device());
}

}  // namespace maestro::cli

#pragma once

#include <gmock/gmock.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <maestro/messaging.hpp>

#include "support/server.hpp"

namespace maestro::messaging::testing {

/// Runs a body on a loop of its own, on real time.
inline void run_real(const std::function<awaitable<void>(boost::asio::io_context&)>& body) {
  set_log_level(std::getenv("MESSAGING_LOG_LEVEL") ? LogLevel::info : LogLevel::off);
  boost::asio::io_context context{1};
  std::exception_ptr error;
  boost::asio::co_spawn(context, body(context), [&](std::exception_ptr failure) {
    error = failure;
    context.stop();
  });
  context.run();
  if (error) std::rethrow_exception(error);
}

/// What a coroutine throws.
inline awaitable<MessagingError> failure_of(awaitable<void> work) {
  try {
    co_await std::move(work);
  } catch (const MessagingError& failure) {
    co_return failure;
  }
  ADD_FAILURE() << "nothing was thrown";
  co_return MessagingError(errc::broker_error, "nothing was thrown");
}

}  // namespace maestro::messaging::testing

#include <maestro/messaging/run.hpp>

#include <fmt/format.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/system/system_error.hpp>
#include <csignal>
#include <cstdlib>
#include <exception>

namespace maestro::messaging {

namespace asio = boost::asio;

int run(asio::awaitable<void> work) {
  asio::io_context context(1);
  asio::cancellation_signal cancel;
  asio::signal_set signals(context, SIGINT, SIGTERM);
  signals.async_wait([&](const boost::system::error_code& error, int) {
    if (error) return;
    cancel.emit(asio::cancellation_type::all);
    // The next one takes its default course: the end of the process.
    signals.clear();
  });
  std::exception_ptr failure;
  asio::co_spawn(context, std::move(work), asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr error) {
                   failure = error;
                   signals.clear();
                   signals.cancel();
                 }));
  context.run();
  if (!failure) return EXIT_SUCCESS;
  try {
    std::rethrow_exception(failure);
  } catch (const boost::system::system_error& error) {
    if (error.code() == asio::error::operation_aborted) return EXIT_SUCCESS;
    fmt::print(stderr, "{}\n", error.what());
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
  } catch (...) {
    fmt::print(stderr, "an exception that is not derived from std::exception\n");
  }
  return EXIT_FAILURE;
}

}  // namespace maestro::messaging

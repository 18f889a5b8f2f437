#pragma once

#include <boost/asio/awaitable.hpp>

namespace maestro::messaging {

/// A main for programs that have no `io_context` of their own: runs the coroutine to its end on this thread. SIGINT and
/// SIGTERM cancel it once, so that `EventConsumer::start()` drains; a second signal ends the process. Work that the coroutine
/// left behind goes on until it ends by itself, or a signal ends the process. Returns 0, or 1 after printing what the
/// coroutine threw; a cancelled coroutine is no error.
int run(boost::asio::awaitable<void> work);

}  // namespace maestro::messaging

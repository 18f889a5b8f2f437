#pragma once

/// Everything that a program needs, in one include.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/consumer.hpp>
#include <maestro/messaging/dead_letters.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/metrics.hpp>
#include <maestro/messaging/monitoring.hpp>
#include <maestro/messaging/publisher.hpp>
#include <maestro/messaging/run.hpp>
#include <maestro/messaging/shared_deduplication.hpp>

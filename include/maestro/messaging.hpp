#pragma once

/// Everything that a program needs, in one include.
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/consumer.hpp>
#include <maestro/messaging/dead_letters.hpp>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/metrics.hpp>
#include <maestro/messaging/monitoring.hpp>
#include <maestro/messaging/publisher.hpp>
#include <maestro/messaging/run.hpp>

#pragma once

#include <exception>
#include <maestro/messaging/dead_letter.hpp>

namespace maestro::messaging {

/// What a handler's exception means for its message: the reason if it were dead-lettered now (`retries_exhausted` for
/// what may be tried again), type, text, and the chain of nested exceptions. Counts and times are the caller's.
Failure describe_failure(const std::exception_ptr& error);

}  // namespace maestro::messaging

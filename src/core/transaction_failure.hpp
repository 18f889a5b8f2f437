#pragma once

#include <maestro/messaging/error.hpp>
#include <string>

namespace maestro::messaging {

/// What a transaction that was aborted throws: the cause's own code where another try is of no use, so that nobody tries for ever.
[[nodiscard]] inline MessagingError transaction_failure(errc cause, const std::string& detail) {
  return {is_retriable(cause) ? errc::transaction_aborted : cause, detail + "; the transaction was aborted"};
}

}  // namespace maestro::messaging

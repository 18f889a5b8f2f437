#pragma once

#include <maestro/messaging/message.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace maestro::messaging {

enum class DeadLetterReason { retries_exhausted, rejected, undecodable, invalid };

[[nodiscard]] std::string_view to_string(DeadLetterReason reason) noexcept;
[[nodiscard]] std::optional<DeadLetterReason> parse_dead_letter_reason(std::string_view name) noexcept;

/// Why a message could not be handled.
struct Failure {
  DeadLetterReason reason = DeadLetterReason::retries_exhausted;
  std::string error_type;
  std::string message;
  std::string stack;
  int attempts = 1;
  Timestamp first_failed_at{};
  Timestamp failed_at{};
};

/// `{topic}.{group}.dlq`: a group's failures are its own.
[[nodiscard]] std::string dead_letter_topic(std::string_view topic, std::string_view group);

/// The copy that goes to the dead-letter topic: payload, key and headers as they were, and the `dlq-…` headers. The stack is cut
/// to 8 KiB and the error's text to 1 KiB, between characters; control characters become spaces, but for the stack's line ends
/// and tabs. A message that was dead-lettered before keeps its replay count; one that cannot be read counts as a million.
[[nodiscard]] OutgoingMessage make_dead_letter(const Message& message, std::string topic, std::string_view group,
                                               const Failure& failure);

/// A message of a dead-letter topic, read back.
struct DeadLetter {
  std::string topic;       ///< Where it came from.
  std::string group;
  std::int32_t partition = -1;
  std::string position;
  DeadLetterReason reason = DeadLetterReason::retries_exhausted;
  std::string error_type;
  std::string error_message;
  std::string error_stack;
  int attempts = 0;
  std::string first_failed_at;
  std::string failed_at;
  int replay_count = 0;
  Message message;
};

/// None when the headers do not say where it came from and why, or say it in a way that this library never writes.
[[nodiscard]] std::optional<DeadLetter> read_dead_letter(const Message& message);

/// The message that goes back to where the dead letter came from: a new message with a fresh id (the old one in
/// `dlq-message-id`), so that deduplication lets it pass. `dlq-replay-count` grows by one; the other `dlq-…` headers stay behind.
[[nodiscard]] OutgoingMessage make_replay(const Message& dead_letter, std::string new_id);

}  // namespace maestro::messaging

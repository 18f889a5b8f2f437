#pragma once

#include <maestro/messaging/time.hpp>
#include <random>

namespace maestro::messaging {

struct RetryOptions {
  int max_attempts_after_first = 3;
  Duration initial_backoff = std::chrono::milliseconds(100);
  double multiplier = 2;
  Duration max_backoff = std::chrono::seconds(30);

  /// Throws `MessagingError(invalid_option)` that names what is out of range.
  void validate() const;
};

/// When to try again: exponential backoff with full jitter, which spreads a crowd of retries over the whole pause
/// (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
class RetryPolicy {
 public:
  explicit RetryPolicy(RetryOptions options) : options_(options) {}

  /// Whether `failures` tries are all that there may be.
  [[nodiscard]] bool exhausted(int failures) const noexcept { return failures > options_.max_attempts_after_first; }
  /// The pause after the n-th failure, n from 1: uniform from 0 to `min(max_backoff, initial_backoff * multiplier^(n-1))`.
  Duration backoff(int failures, std::mt19937_64& random) const;
  /// The longest pause after the n-th failure.
  [[nodiscard]] Duration ceiling(int failures) const noexcept;
  /// The longest that all the pauses of one message can take together.
  [[nodiscard]] Duration longest_total() const noexcept;

 private:
  RetryOptions options_;
};

}  // namespace maestro::messaging

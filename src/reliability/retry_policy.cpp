#include <algorithm>
#include <cmath>
#include <maestro/messaging/retry.hpp>

#include "core/option_range.hpp"

namespace maestro::messaging {

void RetryOptions::validate() const {
  require_in_range("max_retry_attempts", max_attempts_after_first);
  require_in_range("initial_backoff", initial_backoff);
  require_in_range("backoff_multiplier", multiplier);
  require_in_range("max_backoff", max_backoff);
  require_growing_backoff(initial_backoff, max_backoff);
}

Duration RetryPolicy::ceiling(int failures) const noexcept {
  if (std::min(options_.initial_backoff, options_.max_backoff) <= Duration::zero()) return Duration::zero();
  const auto grown =
      static_cast<double>(options_.initial_backoff.count()) * std::pow(options_.multiplier, std::max(failures, 1) - 1);
  // The cap as a double may be larger than the cap: only what is below it is converted.
  if (!(grown < static_cast<double>(options_.max_backoff.count()))) return options_.max_backoff;
  return Duration(static_cast<Duration::rep>(std::max(grown, 0.0)));
}

Duration RetryPolicy::backoff(int failures, std::mt19937_64& random) const {
  return Duration(std::uniform_int_distribution<Duration::rep>(0, ceiling(failures).count())(random));
}

Duration RetryPolicy::longest_total() const noexcept {
  Duration total{};
  for (int n = 1; n <= options_.max_attempts_after_first; ++n) {
    const auto pause = ceiling(n);
    // All pauses are alike from where the cap is reached on, or where nothing grows.
    if (pause >= options_.max_backoff || pause == ceiling(options_.max_attempts_after_first)) {
      const auto left =
          static_cast<double>(options_.max_attempts_after_first - n + 1) * static_cast<double>(pause.count());
      const auto sum = static_cast<double>(total.count()) + left;
      return sum < static_cast<double>(Duration::max().count()) ? Duration(static_cast<Duration::rep>(sum))
                                                                : Duration::max();
    }
    if (total > Duration::max() - pause) return Duration::max();
    total += pause;
    if (n > 10'000) return Duration::max();
  }
  return total;
}

}  // namespace maestro::messaging

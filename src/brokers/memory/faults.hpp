#pragma once

#include <maestro/messaging/config.hpp>
#include <random>

namespace maestro::messaging::memory {

/// Faults drawn from a seed, so that a run can be repeated. Probabilities from 0 to 1, each for one operation.
class Faults {
 public:
  explicit Faults(const Options& options)
      : publish_failure_(options.number("fault_publish_failure")),
        publish_unknown_(options.number("fault_publish_unknown")),
        disconnect_(options.number("fault_disconnect")),
        duplicate_(options.number("fault_duplicate")),
        delay_(options.number("fault_delay")),
        delay_max_(options.duration("fault_delay_max")),
        random_(static_cast<std::uint64_t>(options.integer("fault_seed"))) {}

  bool publish_fails() { return strikes(publish_failure_); }
  bool outcome_gets_lost() { return strikes(publish_unknown_); }
  /// Of a publish whose outcome got lost: whether the broker has it.
  bool was_stored() { return random_() & 1U; }
  bool connection_breaks() { return strikes(disconnect_); }
  bool duplicates() { return strikes(duplicate_); }
  Duration delay() {
    return strikes(delay_) ? Duration(std::uniform_int_distribution<Duration::rep>(1, std::max<Duration::rep>(
                                 1, delay_max_.count()))(random_))
                           : Duration::zero();
  }
  [[nodiscard]] bool may_duplicate() const noexcept { return duplicate_ > 0; }
  [[nodiscard]] bool may_delay() const noexcept { return delay_ > 0; }

 private:
  bool strikes(double probability) {
    return probability > 0 && std::uniform_real_distribution<double>(0, 1)(random_) < probability;
  }

  double publish_failure_;
  double publish_unknown_;
  double disconnect_;
  double duplicate_;
  double delay_;
  Duration delay_max_;
  std::mt19937_64 random_;
};

}  // namespace maestro::messaging::memory

#pragma once

#include <array>
#include <cstdint>
#include <maestro/messaging/time.hpp>
#include <optional>

namespace maestro::messaging {

struct CircuitBreakerOptions {
  int failure_threshold = 5;      ///< Failures in a row that open it.
  double failure_rate = 0;        ///< Or this share of failures over `window`, from 0 to 1; 0 is off.
  int minimum_calls = 20;         ///< Calls in the window before the rate counts.
  Duration window = std::chrono::seconds(30);
  Duration reset_timeout = std::chrono::seconds(10);  ///< From opening to the first probe.

  /// Throws `MessagingError(invalid_option)` that names what is out of range.
  void validate() const;
};

enum class CircuitState { closed, open, half_open };

/// Opens after failures, lets one probe through after `reset_timeout`, closes when the probe succeeds. Time is passed in.
class CircuitBreaker {
 public:
  /// A call that was allowed. Whoever answers it says which one it was: the answer of a call from before the circuit
  /// opened counts as a failure or a success, and never as the probe's.
  class Call {
   public:
    Call() = default;  ///< One that was allowed while the circuit was closed.
    [[nodiscard]] bool is_probe() const noexcept { return probe_ != 0; }

   private:
    friend class CircuitBreaker;
    explicit Call(std::uint64_t probe) : probe_(probe) {}
    std::uint64_t probe_ = 0;
  };

  explicit CircuitBreaker(CircuitBreakerOptions options) : options_(options) {}

  /// A call, if one may be made now. While half open, exactly one is allowed until it is answered by one of the three below.
  [[nodiscard]] std::optional<Call> allow(TimePoint now) noexcept {
    if (state_ == CircuitState::closed) return Call();
    if (state_ == CircuitState::open && now >= open_until_) state_ = CircuitState::half_open;
    if (state_ != CircuitState::half_open || probing_) return std::nullopt;
    probing_ = true;
    return Call(++probes_);
  }
  void on_success(TimePoint now, Call call) noexcept;
  void on_failure(TimePoint now, Call call) noexcept;
  /// The call ended without a verdict (cancelled, or it failed for a reason of its own).
  void on_abandoned(Call call) noexcept {
    if (is_probe(call)) probing_ = false;
  }

  /// `half_open` from the moment on at which a probe may go.
  [[nodiscard]] CircuitState state(TimePoint now) const noexcept {
    return state_ == CircuitState::open && now >= open_until_ ? CircuitState::half_open : state_;
  }
  /// When the next probe may go; meaningless while closed.
  [[nodiscard]] TimePoint open_until() const noexcept { return open_until_; }
  /// How often it has opened.
  [[nodiscard]] unsigned opened() const noexcept { return opened_; }

 private:
  static constexpr std::size_t slices = 10;
  struct Slice {
    Duration::rep number = -1;
    int calls = 0;
    int failures = 0;
  };
  [[nodiscard]] bool is_probe(Call call) const noexcept { return probing_ && call.probe_ == probes_; }
  void count(TimePoint now, bool failed) noexcept;
  void open(TimePoint now) noexcept;
  [[nodiscard]] bool rate_exceeded(TimePoint now) const noexcept;
  [[nodiscard]] Duration::rep slice_number(TimePoint now) const noexcept;

  CircuitBreakerOptions options_;
  CircuitState state_ = CircuitState::closed;
  int in_row_ = 0;
  bool probing_ = false;
  std::uint64_t probes_ = 0;
  TimePoint open_until_{};
  unsigned opened_ = 0;
  std::array<Slice, slices> slices_{};
};

}  // namespace maestro::messaging

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <maestro/messaging/transport.hpp>
#include <vector>

#include "reliability/watermark.hpp"

namespace maestro::messaging {

/// Turns settled deliveries into what the broker is told: each of them, or the watermark of their lane.
class Acknowledger {
 public:
  explicit Acknowledger(Acknowledgement kind) : kind_(kind) {}

  /// A delivery is in someone's hands.
  void track(DeliveryTag tag) {
    if (kind_ == Acknowledgement::cumulative) watermarks_[tag.lane].track(tag.sequence);
  }

  void settle(DeliveryTag tag) {
    switch (kind_) {
      case Acknowledgement::none:
        break;
      case Acknowledgement::individual:
        accepted_.push_back(tag);
        break;
      case Acknowledgement::cumulative:
        if (const auto upto = watermarks_[tag.lane].settle(tag.sequence)) accepted_.push_back({tag.lane, *upto});
        break;
    }
  }

  [[nodiscard]] std::size_t pending() const noexcept { return accepted_.size(); }

  void flush(TransportSubscription& subscription) {
    if (accepted_.empty()) return;
    if (kind_ == Acknowledgement::cumulative) keep_highest();
    subscription.acknowledge(accepted_);
    accepted_.clear();
  }

  /// The most that is tracked above one watermark: what a crash would repeat.
  [[nodiscard]] std::size_t widest_window() const {
    std::size_t widest = 0;
    for (const auto& [lane, watermark] : watermarks_) widest = std::max(widest, watermark.window());
    return widest;
  }

 private:
  // Of each lane the last tag, in place: watermarks only grow.
  void keep_highest() {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < accepted_.size(); ++i) {
      if (kept > 0 && accepted_[kept - 1].lane == accepted_[i].lane) {
        accepted_[kept - 1] = accepted_[i];
      } else {
        accepted_[kept++] = accepted_[i];
      }
    }
    accepted_.resize(kept);
  }

  Acknowledgement kind_;
  boost::unordered_flat_map<std::uint64_t, Watermark> watermarks_;
  std::vector<DeliveryTag> accepted_;
};

}  // namespace maestro::messaging

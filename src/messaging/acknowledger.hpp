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
    if (kind_ == Acknowledgement::cumulative) watermark(tag.lane).track(tag.sequence);
  }

  void settle(DeliveryTag tag) {
    switch (kind_) {
      case Acknowledgement::none:
        break;
      case Acknowledgement::individual:
        accepted_.push_back(tag);
        ++pending_;
        break;
      case Acknowledgement::cumulative:
        if (const auto upto = watermark(tag.lane).settle(tag.sequence)) {
          ++pending_;
          // Watermarks only grow: of one lane the last says all.
          if (!accepted_.empty() && accepted_.back().lane == tag.lane) {
            accepted_.back().sequence = *upto;
          } else {
            accepted_.push_back({tag.lane, *upto});
          }
        }
        break;
    }
  }

  /// What was delivered of this lane and is not flushed will not be.
  void forget(std::uint64_t lane) {
    if (const auto found = by_lane_.find(lane); found != by_lane_.end()) watermarks_[found->second] = {};
    std::erase_if(accepted_, [lane](DeliveryTag tag) { return tag.lane == lane; });
  }

  /// Settled since the last flush.
  [[nodiscard]] std::size_t pending() const noexcept { return pending_; }

  void flush(TransportSubscription& subscription) {
    if (accepted_.empty()) return;
    subscription.acknowledge(accepted_);
    accepted_.clear();
    pending_ = 0;
  }

  /// The most that is tracked above one watermark: what a crash would repeat.
  [[nodiscard]] std::size_t widest_window() const {
    std::size_t widest = 0;
    for (const auto& watermark : watermarks_) widest = std::max(widest, watermark.window());
    return widest;
  }

 private:
  Watermark& watermark(std::uint64_t lane) {
    if (watermarks_.empty() || lane != last_lane_) {
      const auto [found, is_new] = by_lane_.try_emplace(lane, watermarks_.size());
      if (is_new) watermarks_.emplace_back();
      last_lane_ = lane;
      last_ = found->second;
    }
    return watermarks_[last_];
  }

  Acknowledgement kind_;
  std::vector<Watermark> watermarks_;
  boost::unordered_flat_map<std::uint64_t, std::size_t> by_lane_;
  std::uint64_t last_lane_ = 0;  // messages of a lane come in runs
  std::size_t last_ = 0;
  std::vector<DeliveryTag> accepted_;
  std::size_t pending_ = 0;
};

}  // namespace maestro::messaging

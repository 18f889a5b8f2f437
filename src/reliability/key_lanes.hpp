#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <deque>
#include <map>
#include <maestro/messaging/time.hpp>
#include <optional>
#include <utility>
#include <vector>

namespace maestro::messaging {

/// Queues by key: of each lane one item at a time is in work, the others wait their turn; lanes take turns. A lane exists
/// while it has items, so there are as many as keys in flight, and no key waits for another. Pure: no clock, no threads.
template <class Item>
class KeyLanes {
 public:
  using LaneId = std::uint32_t;

  void push(std::uint64_t key, Item item) {
    const auto [found, is_new] = by_key_.try_emplace(key, 0);
    if (is_new) {
      found->second = new_lane(key);
      runnable_.push_back(found->second);
    }
    const auto node = new_node(std::move(item));
    auto& lane = lanes_[found->second];
    if (lane.first == none) {
      lane.first = node;
    } else {
      nodes_[lane.last].next = node;
    }
    lane.last = node;
    ++size_;
  }

  [[nodiscard]] bool has_runnable() const noexcept { return !runnable_.empty(); }

  /// The lane whose turn it is; it is the caller's until `finish` or `park`. There must be one.
  LaneId take_runnable() {
    const auto lane = runnable_.front();
    runnable_.pop_front();
    ++running_;
    lanes_[lane].state = State::running;
    return lane;
  }

  /// The item in work. The reference stays valid until the lane is finished, whatever is pushed meanwhile.
  Item& front(LaneId lane) { return *nodes_[lanes_[lane].first].item; }

  /// The item is done with; the lane queues up again for its next one, or is gone.
  void finish(LaneId id) {
    auto& lane = lanes_[id];
    --running_;
    const auto node = lane.first;
    lane.first = nodes_[node].next;
    free_node(node);
    if (lane.first == none) {
      free_lane(id);
    } else {
      lane.state = State::runnable;
      runnable_.push_back(id);
    }
  }

  /// The lane waits until `due` with the same item in front.
  void park(LaneId id, TimePoint due) {
    --running_;
    lanes_[id].state = State::parked;
    parked_.emplace(due, id);
  }

  void unpark_due(TimePoint now) {
    while (!parked_.empty() && parked_.begin()->first <= now) {
      const auto id = parked_.begin()->second;
      parked_.erase(parked_.begin());
      lanes_[id].state = State::runnable;
      runnable_.push_back(id);
    }
  }

  [[nodiscard]] std::optional<TimePoint> next_due() const {
    return parked_.empty() ? std::nullopt : std::optional(parked_.begin()->first);
  }

  /// Takes out every item that is not in work.
  template <class OnItem>
  void clear_waiting(OnItem&& on_item) {
    runnable_.clear();
    parked_.clear();
    for (LaneId id = 0; id < lanes_.size(); ++id) {
      auto& lane = lanes_[id];
      if (lane.state == State::free) continue;
      auto node = lane.first;
      if (lane.state == State::running) {
        node = std::exchange(nodes_[lane.first].next, none);
        lane.last = lane.first;
      } else {
        lane.first = none;
      }
      while (node != none) {
        const auto next = nodes_[node].next;
        on_item(*nodes_[node].item);
        free_node(node);
        node = next;
      }
      if (lane.first == none) free_lane(id);
    }
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t running() const noexcept { return running_; }
  [[nodiscard]] std::size_t parked() const noexcept { return parked_.size(); }
  [[nodiscard]] std::size_t lanes() const noexcept { return by_key_.size(); }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  enum class State : std::uint8_t { free, runnable, running, parked };
  struct Lane {
    std::uint64_t key = 0;
    std::uint32_t first = none;
    std::uint32_t last = none;
    State state = State::free;
  };
  struct Node {
    std::optional<Item> item;
    std::uint32_t next = none;
  };

  std::uint32_t new_node(Item item) {
    std::uint32_t node;
    if (free_nodes_.empty()) {
      node = static_cast<std::uint32_t>(nodes_.size());
      nodes_.emplace_back();
    } else {
      node = free_nodes_.back();
      free_nodes_.pop_back();
    }
    nodes_[node].item.emplace(std::move(item));
    nodes_[node].next = none;
    return node;
  }

  void free_node(std::uint32_t node) {
    nodes_[node].item.reset();
    free_nodes_.push_back(node);
    --size_;
  }

  LaneId new_lane(std::uint64_t key) {
    LaneId id;
    if (free_lanes_.empty()) {
      id = static_cast<LaneId>(lanes_.size());
      lanes_.emplace_back();
    } else {
      id = free_lanes_.back();
      free_lanes_.pop_back();
    }
    lanes_[id] = {key, none, none, State::runnable};
    return id;
  }

  void free_lane(LaneId id) {
    by_key_.erase(lanes_[id].key);
    lanes_[id].state = State::free;
    free_lanes_.push_back(id);
  }

  boost::unordered_flat_map<std::uint64_t, LaneId> by_key_;
  std::vector<Lane> lanes_;
  std::deque<Node> nodes_;  // a deque, so that an item in work never moves
  std::vector<LaneId> free_lanes_;
  std::vector<std::uint32_t> free_nodes_;
  std::deque<LaneId> runnable_;
  std::multimap<TimePoint, LaneId> parked_;
  std::size_t size_ = 0;
  std::size_t running_ = 0;
};

}  // namespace maestro::messaging

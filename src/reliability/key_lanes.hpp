#pragma once

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstddef>
#include <cstdint>
#include <maestro/messaging/time.hpp>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace maestro::messaging {

/// Queues by key: of each lane one item at a time is in work, the others wait their turn; lanes take turns. A lane
/// exists while it has items, so there are as many as keys in flight, and no key waits for another. Pure: no clock, no
/// threads. Everything but the hash table is a list through pools that only grow, so that a steady flow allocates
/// nothing.
template <class Item>
class KeyLanes {
 public:
  using LaneId = std::uint32_t;

  /// Makes the item, of these arguments, the last of its key's lane.
  template <class... Arguments>
  void emplace(std::uint64_t key, Arguments&&... arguments) {
    const auto node = new_node(std::forward<Arguments>(arguments)...);
    auto& id = lane_of(key);
    if (id == none) {
      id = new_lane(key, node);
      make_runnable(id);
    } else {
      auto& lane = lanes_[id];
      at(lane.last).next = node;
      lane.last = node;
    }
    ++size_;
  }

  void push(std::uint64_t key, Item item) { emplace(key, std::move(item)); }

  [[nodiscard]] bool has_runnable() const noexcept { return runnable_first_ != none; }

  /// The lane whose turn it is; it is the caller's until `finish` or `park`. There must be one.
  LaneId take_runnable() {
    const auto id = runnable_first_;
    auto& lane = lanes_[id];
    runnable_first_ = lane.next;
    lane.state = State::running;
    ++running_;
    return id;
  }

  /// The item in work. The reference stays valid until the lane is finished, whatever is pushed meanwhile.
  Item& front(LaneId lane) { return *at(lanes_[lane].first).item; }

  /// The item is done with; the lane queues up again for its next one, or is gone.
  void finish(LaneId id) {
    auto& lane = lanes_[id];
    --running_;
    lane.first = free_node(lane.first);
    if (lane.first == none) {
      free_lane(id);
    } else {
      make_runnable(id);
    }
  }

  /// The lane waits until `due` with the same item in front.
  void park(LaneId id, TimePoint due) {
    --running_;
    lanes_[id].state = State::parked;
    parked_.push_back({due, parkings_++, id});
    std::ranges::push_heap(parked_, later);
  }

  /// Lanes whose time has come queue up, the earliest first; of those due at once, the one that was parked first.
  void unpark_due(TimePoint now) {
    while (!parked_.empty() && parked_.front().due <= now) {
      std::ranges::pop_heap(parked_, later);
      make_runnable(parked_.back().lane);
      parked_.pop_back();
    }
  }

  [[nodiscard]] std::optional<TimePoint> next_due() const {
    return parked_.empty() ? std::nullopt : std::optional(parked_.front().due);
  }

  /// Takes out every item that is not in work. `on_item` must neither call the lanes nor throw.
  template <class OnItem>
  void clear_waiting(OnItem&& on_item) {
    remove_waiting([](const Item&) { return true; }, on_item);
  }

  /// Takes out the items that are not in work and for which `predicate(item)` is true (those of a partition that went
  /// to another member, say). A parked lane whose front went is runnable: the pause was that item's. Costs a look at
  /// every item. Neither function may call the lanes or throw.
  template <class Predicate, class OnItem>
  void remove_waiting(Predicate&& predicate, OnItem&& on_item) {
    for (LaneId id = 0; id < lanes_.size(); ++id)
      if (lanes_[id].state != State::free) remove_from(lanes_[id], predicate, on_item);

    auto next = std::exchange(runnable_first_, none);
    while (next != none) {
      const auto id = std::exchange(next, lanes_[next].next);
      if (lanes_[id].first == none) {
        free_lane(id);
      } else {
        make_runnable(id);
      }
    }
    auto parked = std::exchange(parked_, {});
    std::ranges::sort(parked, {}, &Parked::order);
    for (const auto& each : parked) {
      const auto& lane = lanes_[each.lane];
      if (lane.first == none) {
        free_lane(each.lane);
      } else if (lane.lost_front) {
        make_runnable(each.lane);
      } else {
        parked_.push_back(each);
      }
    }
    std::ranges::make_heap(parked_, later);
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t running() const noexcept { return running_; }
  /// Items that are not in work.
  [[nodiscard]] std::size_t queued() const noexcept { return size_ - running_; }
  [[nodiscard]] std::size_t parked() const noexcept { return parked_.size(); }
  [[nodiscard]] std::size_t lanes() const noexcept { return lane_count_; }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  static constexpr std::uint32_t page_bits = 6;
  static constexpr std::uint32_t page_size = 1U << page_bits;

  enum class State : std::uint8_t { free, runnable, running, parked };
  struct Lane {
    std::uint64_t key = 0;
    std::uint32_t first = none;
    std::uint32_t last = none;
    LaneId next = none;  // runnable or free
    State state = State::free;
    bool lost_front = false;  // while `remove_waiting` is at work
  };
  struct Node {
    std::optional<Item> item;
    std::uint32_t next = none;
  };
  struct Parked {
    TimePoint due;
    std::uint64_t order;
    LaneId lane;
  };
  static constexpr auto later = [](const Parked& a, const Parked& b) {
    return a.due != b.due ? a.due > b.due : a.order > b.order;
  };

  Node& at(std::uint32_t node) { return pages_[node >> page_bits][node & (page_size - 1)]; }

  template <class... Arguments>
  std::uint32_t new_node(Arguments&&... arguments) {
    if (free_nodes_ == none) add_page();
    const auto id = free_nodes_;
    auto& node = at(id);
    node.item.emplace(std::forward<Arguments>(arguments)...);
    free_nodes_ = std::exchange(node.next, none);
    return id;
  }

  // Pages, so that an item in work never moves.
  void add_page() {
    const auto first = static_cast<std::uint32_t>(pages_.size() * page_size);
    pages_.push_back(std::make_unique<Node[]>(page_size));
    for (std::uint32_t i = page_size; i-- > 0;) pages_.back()[i].next = std::exchange(free_nodes_, first + i);
  }

  /// Returns the one after it.
  std::uint32_t free_node(std::uint32_t id) {
    auto& node = at(id);
    node.item.reset();
    --size_;
    return std::exchange(node.next, std::exchange(free_nodes_, id));
  }

  LaneId new_lane(std::uint64_t key, std::uint32_t node) {
    auto id = free_lanes_;
    if (id == none) {
      id = static_cast<LaneId>(lanes_.size());
      lanes_.emplace_back();
    } else {
      free_lanes_ = lanes_[id].next;
    }
    lanes_[id] = {.key = key, .first = node, .last = node};
    ++lane_count_;
    return id;
  }

  /// The lane of a key, or `none` in the place where its lane is to be written.
  LaneId& lane_of(std::uint64_t key) {
    auto& place = places_[key % places];
    if (place.lane != none && place.key == key) return place.lane;
    if (!crowded_.empty())
      if (const auto found = crowded_.find(key); found != crowded_.end()) return found->second;
    if (place.lane != none) return crowded_.try_emplace(key, none).first->second;
    place.key = key;
    return place.lane;
  }

  void forget(std::uint64_t key) {
    auto& place = places_[key % places];
    if (place.lane != none && place.key == key) {
      place.lane = none;
    } else {
      crowded_.erase(key);
    }
  }

  void free_lane(LaneId id) {
    auto& lane = lanes_[id];
    forget(lane.key);
    --lane_count_;
    lane.state = State::free;
    lane.next = std::exchange(free_lanes_, id);
  }

  void make_runnable(LaneId id) {
    auto& lane = lanes_[id];
    lane.state = State::runnable;
    lane.next = none;
    (runnable_first_ == none ? runnable_first_ : lanes_[runnable_last_].next) = id;
    runnable_last_ = id;
  }

  template <class Predicate, class OnItem>
  void remove_from(Lane& lane, Predicate& predicate, OnItem& on_item) {
    const bool running = lane.state == State::running;
    const auto front = lane.first;
    auto* link = running ? &at(front).next : &lane.first;
    auto last = running ? front : none;
    while (*link != none) {
      auto& node = at(*link);
      if (predicate(std::as_const(*node.item))) {
        on_item(*node.item);
        *link = free_node(*link);
      } else {
        last = *link;
        link = &node.next;
      }
    }
    lane.last = last;
    lane.lost_front = lane.first != front;
  }

  // Keys come and go with each message, which a hash table makes dear: a key has one place in a table, and only those whose place is
  // taken by another are in a map.
  static constexpr std::size_t places = 4096;
  struct Place {
    std::uint64_t key = 0;
    LaneId lane = none;
  };
  std::vector<Place> places_ = std::vector<Place>(places);
  boost::unordered_flat_map<std::uint64_t, LaneId> crowded_;
  std::size_t lane_count_ = 0;
  std::vector<Lane> lanes_;
  std::vector<std::unique_ptr<Node[]>> pages_;
  std::vector<Parked> parked_;  // a heap, the earliest in front
  std::uint32_t free_nodes_ = none;
  LaneId free_lanes_ = none;
  LaneId runnable_first_ = none;
  LaneId runnable_last_ = none;
  std::uint64_t parkings_ = 0;
  std::size_t size_ = 0;
  std::size_t running_ = 0;
};

}  // namespace maestro::messaging

#include <fmt/format.h>

#include <list>
#include <maestro/messaging/deduplication.hpp>
#include <maestro/messaging/error.hpp>
#include <mutex>
#include <set>
#include <unordered_map>

#include "core/option_range.hpp"

namespace maestro::messaging {

namespace asio = boost::asio;

struct MemoryDeduplicationStore::State {
  struct Entry {
    bool done = false;
    std::uint64_t token = 0;
    TimePoint until{};                            ///< End of the lease, or of the memory.
    std::list<const std::string*>::iterator age;  ///< Place among the done ones.
  };

  std::shared_ptr<Clock> clock;
  MemoryDeduplicationOptions options;
  mutable std::mutex mutex;
  std::unordered_map<std::string, Entry> entries;
  std::list<const std::string*> done;                         ///< Oldest first.
  std::set<std::pair<TimePoint, const std::string*>> leases;  ///< Of the claims, by their end.
  std::uint64_t next_token = 1;

  /// The length keeps "a" + "bc" and "ab" + "c" apart.
  static std::string key(const std::string& scope, const std::string& id) {
    return fmt::format("{}:{}{}", scope.size(), scope, id);
  }

  void forget_oldest() {
    const auto found = entries.find(*done.front());
    done.pop_front();
    entries.erase(found);
  }

  void forget_expired(TimePoint now) {
    while (!done.empty() && entries.at(*done.front()).until <= now) forget_oldest();
  }

  /// Claims that nobody finished go first, for nothing is known by them; live ones never.
  void make_room(TimePoint now) {
    while (entries.size() >= options.capacity && !leases.empty() && leases.begin()->first <= now) {
      const auto found = entries.find(*leases.begin()->second);
      leases.erase(leases.begin());
      entries.erase(found);
    }
    while (entries.size() >= options.capacity && !done.empty()) forget_oldest();
  }

  Claim claim(const std::string& scope, const std::string& id, Duration lease) {
    const std::lock_guard lock(mutex);
    const auto now = clock->now();
    forget_expired(now);
    auto wanted = key(scope, id);
    auto found = entries.find(wanted);
    if (found == entries.end()) {
      make_room(now);
      found = entries.try_emplace(std::move(wanted)).first;
    } else {
      if (found->second.done) return {Claim::Outcome::duplicate, 0, {}};
      if (found->second.until > now) return {Claim::Outcome::busy, 0, found->second.until};
      leases.erase({found->second.until, &found->first});
    }
    auto& entry = found->second;
    entry.token = next_token++;
    entry.until = now + lease;
    leases.emplace(entry.until, &found->first);
    return {Claim::Outcome::claimed, entry.token, {}};
  }

  void complete(const std::string& scope, const std::string& id, std::uint64_t token) {
    const std::lock_guard lock(mutex);
    const auto found = entries.find(key(scope, id));
    if (found == entries.end() || found->second.done || found->second.token != token) return;
    leases.erase({found->second.until, &found->first});
    found->second.done = true;
    found->second.until = clock->now() + options.window;
    found->second.age = done.insert(done.end(), &found->first);
  }

  void abandon(const std::string& scope, const std::string& id, std::uint64_t token) {
    const std::lock_guard lock(mutex);
    const auto found = entries.find(key(scope, id));
    if (found == entries.end() || found->second.done || found->second.token != token) return;
    leases.erase({found->second.until, &found->first});
    entries.erase(found);
  }
};

MemoryDeduplicationStore::MemoryDeduplicationStore(std::shared_ptr<Clock> clock, MemoryDeduplicationOptions options)
    : state_(std::make_unique<State>()) {
  if (options.capacity == 0) throw MessagingError(errc::invalid_option, "capacity: 0; allowed is 1 and more");
  require_span("window", options.window, std::chrono::milliseconds(1), std::chrono::days(366));
  if (!clock) throw MessagingError(errc::invalid_argument, "clock: none; allowed is Clock::real() or another one");
  state_->clock = std::move(clock);
  state_->options = options;
}

MemoryDeduplicationStore::~MemoryDeduplicationStore() = default;

asio::awaitable<Claim> MemoryDeduplicationStore::claim(std::string scope, std::string id, Duration lease) {
  co_return state_->claim(scope, id, lease);
}

asio::awaitable<void> MemoryDeduplicationStore::complete(std::string scope, std::string id, std::uint64_t token) {
  state_->complete(scope, id, token);
  co_return;
}

asio::awaitable<void> MemoryDeduplicationStore::abandon(std::string scope, std::string id, std::uint64_t token) {
  state_->abandon(scope, id, token);
  co_return;
}

std::size_t MemoryDeduplicationStore::size() const {
  const std::lock_guard lock(state_->mutex);
  return state_->entries.size();
}

}  // namespace maestro::messaging

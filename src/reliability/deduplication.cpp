#include <fmt/format.h>

#include <list>
#include <maestro/messaging/deduplication.hpp>
#include <maestro/messaging/error.hpp>
#include <mutex>
#include <unordered_map>

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
  std::list<const std::string*> done;             ///< Oldest first.
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

  void make_room(TimePoint now) {
    while (!done.empty() && entries.at(*done.front()).until <= now) forget_oldest();
    while (!done.empty() && entries.size() >= options.capacity) forget_oldest();
  }

  Claim claim(const std::string& scope, const std::string& id, Duration lease) {
    const std::lock_guard lock(mutex);
    const auto now = clock->now();
    make_room(now);
    auto [found, is_new] = entries.try_emplace(key(scope, id));
    auto& entry = found->second;
    if (!is_new && entry.done) return {Claim::Outcome::duplicate, 0, {}};
    if (!is_new && entry.until > now) return {Claim::Outcome::busy, 0, entry.until};
    entry.token = next_token++;
    entry.until = now + lease;
    return {Claim::Outcome::claimed, entry.token, {}};
  }

  void complete(const std::string& scope, const std::string& id, std::uint64_t token) {
    const std::lock_guard lock(mutex);
    const auto found = entries.find(key(scope, id));
    if (found == entries.end() || found->second.done || found->second.token != token) return;
    found->second.done = true;
    found->second.until = clock->now() + options.window;
    found->second.age = done.insert(done.end(), &found->first);
  }

  void abandon(const std::string& scope, const std::string& id, std::uint64_t token) {
    const std::lock_guard lock(mutex);
    const auto found = entries.find(key(scope, id));
    if (found != entries.end() && !found->second.done && found->second.token == token) entries.erase(found);
  }
};

MemoryDeduplicationStore::MemoryDeduplicationStore(std::shared_ptr<Clock> clock, MemoryDeduplicationOptions options)
    : state_(std::make_unique<State>()) {
  if (options.capacity == 0) throw MessagingError(errc::invalid_option, "capacity: 0; allowed is 1 and more");
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

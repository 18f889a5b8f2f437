#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <maestro/messaging/time.hpp>
#include <memory>
#include <string>

namespace maestro::messaging {

/// What a store says to someone who wants to handle a message.
struct Claim {
  enum class Outcome {
    claimed,    ///< Handle it, then `complete` or `abandon` with the token.
    duplicate,  ///< It was handled: settle it.
    busy,       ///< Someone else has it, until `retry_at` at the latest.
  };
  Outcome outcome = Outcome::busy;
  std::uint64_t token = 0;
  TimePoint retry_at{};
};

/// Deduplication in two phases: claim with a lease, handle, record as done. A lease that runs out frees the id, so that a
/// crash between the two never loses the message.
class DeduplicationStore {
 public:
  virtual ~DeduplicationStore() = default;
  /// `scope` is the group: two groups that handle the same message are no duplicates of each other.
  virtual boost::asio::awaitable<Claim> claim(std::string scope, std::string id, Duration lease) = 0;
  /// Records it as done. A token whose lease has passed to someone else changes nothing.
  virtual boost::asio::awaitable<void> complete(std::string scope, std::string id, std::uint64_t token) = 0;
  /// Frees the id at once.
  virtual boost::asio::awaitable<void> abandon(std::string scope, std::string id, std::uint64_t token) = 0;
};

struct MemoryDeduplicationOptions {
  std::size_t capacity = 1'000'000;         ///< Ids kept at most, 1 or more; the oldest done goes first, a live claim never.
  Duration window = std::chrono::hours(1);  ///< How long a done id is remembered: 366 days at most.
};

/// A store in this process, for any number of consumers and threads. Forgets everything when the process ends.
class MemoryDeduplicationStore final : public DeduplicationStore {
 public:
  /// Throws `MessagingError(invalid_option)` for what is out of range.
  explicit MemoryDeduplicationStore(std::shared_ptr<Clock> clock = Clock::real(), MemoryDeduplicationOptions options = {});
  ~MemoryDeduplicationStore() override;

  boost::asio::awaitable<Claim> claim(std::string scope, std::string id, Duration lease) override;
  boost::asio::awaitable<void> complete(std::string scope, std::string id, std::uint64_t token) override;
  boost::asio::awaitable<void> abandon(std::string scope, std::string id, std::uint64_t token) override;

  [[nodiscard]] std::size_t size() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace maestro::messaging

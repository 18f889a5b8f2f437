#pragma once

#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/deduplication.hpp>
#include <memory>
#include <string>

namespace maestro::messaging {

struct SharedDeduplicationOptions {
  Duration window = std::chrono::hours(24);              ///< How long a done id is remembered: 366 days at most.
  Duration look_again = std::chrono::milliseconds(500);  ///< How often it is looked whether another's claim has ended.
};

/// A store that every process shares which reaches the same broker, for consumers on any broker: a claim is a key that ends with its
/// lease, a done id one that ends with the window. It survives what the broker's keys survive.
class SharedDeduplicationStore final : public DeduplicationStore {
 public:
  /// Throws `unsupported` for a broker without such keys (today: all but Redis), `invalid_option` for a time out of
  /// range.
  explicit SharedDeduplicationStore(MessageBroker broker, SharedDeduplicationOptions options = {});
  ~SharedDeduplicationStore() override;

  boost::asio::awaitable<Claim> claim(std::string scope, std::string id, Duration lease) override;
  boost::asio::awaitable<void> complete(std::string scope, std::string id, std::uint64_t token) override;
  boost::asio::awaitable<void> abandon(std::string scope, std::string id, std::uint64_t token) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace maestro::messaging

#include <fmt/format.h>

#include <maestro/messaging/atomic_keys.hpp>
#include <maestro/messaging/shared_deduplication.hpp>

#include "core/option_range.hpp"
#include "messaging/broker_state.hpp"

namespace maestro::messaging {

namespace asio = boost::asio;

namespace {

constexpr std::string_view done = "done";

std::string key_of(std::string_view scope, std::string_view id) { return fmt::format("maestro:handled:{{{}}}:{}", scope, id); }
std::string claim_of(std::uint64_t token) { return fmt::format("claim {:016x}", token); }

}  // namespace

struct SharedDeduplicationStore::State {
  MessageBroker broker;
  SharedDeduplicationOptions options;
  AtomicKeys* keys;
};

SharedDeduplicationStore::SharedDeduplicationStore(MessageBroker broker, SharedDeduplicationOptions options) {
  auto* keys = dynamic_cast<AtomicKeys*>(broker.state()->transport.get());
  if (!keys)
    throw MessagingError(errc::unsupported, fmt::format("{} has no keys that could be shared; give the store a broker of Redis",
                                                        broker.capabilities().broker));
  require_span("window", options.window, std::chrono::milliseconds(1), std::chrono::days(366));
  require_span("look_again", options.look_again, std::chrono::milliseconds(1), std::chrono::hours(24));
  state_ = std::make_unique<State>(State{std::move(broker), options, keys});
}

SharedDeduplicationStore::~SharedDeduplicationStore() = default;

asio::awaitable<Claim> SharedDeduplicationStore::claim(std::string scope, std::string id, Duration lease) {
  auto broker = state_->broker;
  const auto options = state_->options;
  auto& keys = *state_->keys;
  co_await broker.connect();
  Claim claim;
  claim.token = broker.state()->random();
  const auto there = co_await keys.put_if_absent(key_of(scope, id), claim_of(claim.token), lease);
  if (!there) {
    claim.outcome = Claim::Outcome::claimed;
  } else if (*there == done) {
    claim.outcome = Claim::Outcome::duplicate;
  } else {
    // The other's clock is not ours: the key ends by itself, and is looked for again.
    claim.outcome = Claim::Outcome::busy;
    claim.retry_at = broker.clock()->now() + std::min(lease, options.look_again);
  }
  co_return claim;
}

asio::awaitable<void> SharedDeduplicationStore::complete(std::string scope, std::string id, std::uint64_t token) {
  auto broker = state_->broker;
  const auto window = state_->options.window;
  auto& keys = *state_->keys;
  co_await broker.connect();
  const auto key = key_of(scope, id);
  if (co_await keys.replace_if(key, claim_of(token), std::string(done), window)) co_return;
  // The lease has ended. Where nobody else has claimed it, it is done all the same.
  co_await keys.put_if_absent(key, std::string(done), window);
}

asio::awaitable<void> SharedDeduplicationStore::abandon(std::string scope, std::string id, std::uint64_t token) {
  auto broker = state_->broker;
  auto& keys = *state_->keys;
  co_await broker.connect();
  co_await keys.remove_if(key_of(scope, id), claim_of(token));
}

}  // namespace maestro::messaging

#pragma once

#include <functional>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/dead_letter.hpp>
#include <maestro/messaging/error.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace maestro::messaging {

struct DeadLetterFilter {
  std::optional<DeadLetterReason> reason = std::nullopt;
  std::optional<std::string> error_contains = std::nullopt;  ///< In the error's type or message.
  std::optional<std::string> key = std::nullopt;
  int min_replays = 0;  ///< Replayed so often at least.
};

/// A dead letter that could not be published again.
struct ReplayFailure {
  std::string position;  ///< In the dead-letter topic, as `Position::to_string()` shows it.
  errc error = errc::invalid_argument;
  std::string detail;
};

struct ReplayReport {
  std::size_t seen = 0;
  std::size_t replayed = 0;
  std::size_t filtered = 0;       ///< Did not match.
  std::size_t refused = 0;        ///< Had been replayed `max_replays` times.
  std::size_t foreign = 0;        ///< No dead letter: its headers do not say where it came from.
  std::size_t held = 0;           ///< Still in the hands of another replay when this one ended.
  /// Could not be published, for a reason of their own: too large for the topic that they came from, which is not there, has a
  /// name that is not allowed, or is the broker's own. Passed over as what did not match is: they stay in the dead-letter topic.
  std::size_t failed = 0;
  std::optional<ReplayFailure> first_failure = std::nullopt;  ///< Of those that failed.
};

struct ReplayOptions {
  DeadLetterFilter filter = {};
  bool dry_run = false;  ///< Counts what would be replayed, from where the last replay stopped, and changes nothing.
  std::optional<double> per_second = std::nullopt;  ///< 0.001 and more; not for a dry run, which publishes nothing.
  /// A message replayed this often is passed over, and a later replay of the same filter goes on behind it. To go back
  /// to those alone, replay with this number as the filter's `min_replays`, and a higher one here. 0 and more.
  int max_replays = 3;
  std::optional<std::size_t> limit = std::nullopt;
  /// How long to wait, at the end, for what another replay of the same filter holds or has left. Brokers that settle
  /// each message by itself give it to this one when the other is gone.
  Duration wait_for_others = std::chrono::minutes(1);
  /// Called after each message, for a progress display.
  std::function<void(std::size_t done, std::size_t total)> progress = nullptr;
  /// Where the report is made, so that it is there too when the replay ends early by an error.
  std::shared_ptr<ReplayReport> so_far = nullptr;
};

/// The dead-letter console of one topic, on any broker that can list its topics.
class DeadLetters {
 public:
  DeadLetters(MessageBroker broker, std::string dead_letter_topic);

  /// The dead-letter topics of the broker: those that end in `.dlq`, with how many messages they keep.
  static awaitable<std::vector<TopicInfo>> topics(MessageBroker broker);

  /// At most `limit` dead letters, oldest first in each partition, read privately: nothing is settled. Of those that a purge
  /// takes away meanwhile, those that it had read already. `left_out` is called for each message that is no dead letter: its headers do not say where it came from.
  awaitable<std::vector<DeadLetter>> list(DeadLetterFilter filter = {}, std::size_t limit = 100,
                                          std::function<void(const Message&)> left_out = nullptr);
  /// The dead letter at `partition/offset`, whole. None when there is none.
  awaitable<std::optional<DeadLetter>> show(std::int32_t partition, std::int64_t offset);
  /// The same for a place as `Position::to_string()` shows it. Throws `invalid_argument` for what is no place of this
  /// broker's.
  awaitable<std::optional<DeadLetter>> show(std::string position);
  /// Publishes each matching dead letter to the topic it came from, under a fresh id, and commits after each confirmed
  /// copy, so that a replay that was cut short goes on where it stopped; each filter has a place of its own,
  /// and replays again what another one replayed. One that cannot be published for a reason of its own is passed over,
  /// and counted as `failed`. A broker that is away is waited for as long as a publish waits for one
  /// (`publish_timeout`); what was published already and comes again then is only settled. Any other error ends the
  /// replay. Looks only at what is there when it starts, so that a message that fails again is not replayed twice in
  /// one run.
  awaitable<ReplayReport> replay(ReplayOptions options = {});
  /// Removes everything in the topic; returns how many there were.
  awaitable<std::int64_t> purge();

 private:
  MessageBroker broker_;
  std::string topic_;
};

}  // namespace maestro::messaging

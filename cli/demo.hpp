#pragma once

#include <boost/describe.hpp>
#include <boost/json/object.hpp>
#include <cstdint>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/dead_letters.hpp>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace maestro::cli {

struct DemoArguments {
  std::size_t records = 0;  ///< 0: all that there are.
  std::optional<std::size_t> concurrency;  ///< Default: the option's if that was given, else 8.
  std::uint64_t seed = 7;
  bool fast = false;
};

// The event as the handlers get it: one line of examples/data/earthquakes.jsonl and its number.
struct Coordinates {
  double longitude = 0;
  double latitude = 0;
  double depth_km = 0;
};
BOOST_DESCRIBE_STRUCT(Coordinates, (), (longitude, latitude, depth_km))

enum class QuakeKind { earthquake, explosion, quarry_blast };
BOOST_DESCRIBE_ENUM(QuakeKind, earthquake, explosion, quarry_blast)

struct Quake {
  std::int64_t number = 0;
  std::string id;
  std::string time;
  std::string region;
  std::string place;
  double magnitude = 0;
  QuakeKind kind = QuakeKind::earthquake;
  Coordinates at;
  std::optional<std::int64_t> felt;
  std::optional<bool> tsunami;
};
BOOST_DESCRIBE_STRUCT(Quake, (), (number, id, time, region, place, magnitude, kind, at, felt, tsunami))

/// The header that tells a record even where its payload is broken.
inline constexpr std::string_view record_header = "demo-record";

/// What is to happen to each record, the same for the same seed.
class DemoPlan {
 public:
  enum class Damage { none, truncated, wrong_types, not_json };

  DemoPlan(std::size_t records, std::uint64_t seed);

  [[nodiscard]] std::size_t records() const noexcept { return regions_.size(); }
  [[nodiscard]] const std::string& region(std::size_t record) const { return regions_[record]; }
  [[nodiscard]] Damage damage(std::size_t record) const;
  /// The bytes to be published, damaged or not.
  [[nodiscard]] std::string payload(std::size_t record) const;
  /// How often the handler of a group fails on a record before it succeeds.
  [[nodiscard]] int transient_failures(std::string_view group, std::size_t record) const;
  /// How long the handler of a group takes.
  [[nodiscard]] messaging::Duration work(std::string_view group, std::size_t record) const;
  /// The archive of this region is down until it is mended.
  static constexpr std::string_view broken_region = "Puerto Rico";

 private:
  [[nodiscard]] std::uint64_t chance(std::string_view what, std::size_t record) const;

  std::vector<std::string_view> lines_;
  std::vector<std::string> regions_;
  std::uint64_t seed_;
};

/// What one group did, by record and by region; filled in by its handler, and by what its dead-letter topic holds at
/// the end.
struct DemoLedger {
  DemoLedger(std::string group_name, std::size_t records)
      : group(std::move(group_name)), tries(records), handled(records) {}

  std::string group;
  std::vector<std::uint32_t> tries;  ///< By record: calls of the handler until it had succeeded.
  std::vector<bool> handled;         ///< By record: the handler returned.
  std::map<std::string, std::int64_t, std::less<>>
      last_first;                              ///< By region: the last record tried for the first time.
  std::set<std::string, std::less<>> running;  ///< Regions whose handler runs.
  std::size_t handled_count = 0;
  std::size_t handled_by_replay = 0;
  std::size_t duplicates = 0;  ///< Told apart by the library, by message id.
  std::size_t repeats = 0;     ///< Calls for records that were done already; recognised by their number.
  std::size_t failures = 0;
  std::size_t order_broken = 0;
  std::size_t overlaps = 0;
  std::size_t most_at_once = 0;
  std::set<std::size_t> dead;  ///< Records that were ever seen in the dead-letter topic.
  std::map<std::string, std::size_t, std::less<>> dead_by_reason;
  std::set<std::string> dead_letters;  ///< Their positions: a record that is there twice has two.
  std::size_t replayed = 0;
  std::string example_reason;
  std::string example_error;

  /// To be called first and last in each call of the handler. False when the record was done already.
  bool enter(const Quake& quake);
  void leave(const Quake& quake, bool success, bool after_replay);
  /// Adds what the dead-letter topic holds now; a letter that was noted before counts once.
  void note_dead_letters(const std::vector<messaging::DeadLetter>& letters);
};

/// The account of one group. Every record is in exactly one of the first four counts.
struct DemoAccount {
  std::size_t published = 0;
  std::size_t handled_first = 0;
  std::size_t handled_by_replay = 0;
  std::size_t in_dead_letters = 0;
  std::size_t lost = 0;
  std::size_t not_malformed = 0;       ///< Records that a handler can take; all of them have to be handled in the end.
  std::size_t wrong_dead_letters = 0;  ///< Records that are dead and should not be, or the other way round.
  std::size_t both = 0;                ///< Handled, and dead without a replay.
};

[[nodiscard]] DemoAccount account_for(const DemoPlan& plan, const DemoLedger& ledger, bool outage);

/// Whether each record was handled or is in the dead letters.
[[nodiscard]] bool all_settled(const DemoLedger& ledger);

/// Prints the table and the verdict, or the JSON object; returns whether every promise was kept.
bool report_demo(const DemoPlan& plan, const std::vector<const DemoLedger*>& ledgers, const std::string& broker,
                 double seconds, bool json);

}  // namespace maestro::cli

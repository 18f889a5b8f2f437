#include <fmt/format.h>

#include <boost/json/array.hpp>

#include "demo.hpp"
#include "output.hpp"

namespace maestro::cli {

namespace {

struct Row {
  const DemoLedger* ledger;
  DemoAccount account;
  bool outage;
};

bool kept(const Row& row, std::size_t replayed) {
  const auto& [ledger, account, outage] = row;
  const bool complete = account.lost == 0 && account.both == 0 && account.wrong_dead_letters == 0 &&
                        account.handled_first + account.handled_by_replay == account.not_malformed &&
                        account.not_malformed + account.in_dead_letters == account.published;
  // The replay goes to the topic, so the group that had no outage has to see all of it again.
  const bool replay_seen = outage || ledger->repeats >= replayed;
  return complete && replay_seen && ledger->order_broken == 0 && ledger->overlaps == 0;
}

boost::json::object as_json(const Row& row) {
  const auto& [ledger, account, outage] = row;
  boost::json::object reasons;
  for (const auto& [reason, count] : ledger->dead_by_reason) reasons[reason] = count;
  return {{"group", ledger->group},
          {"published", account.published},
          {"handled", account.handled_first},
          {"handled_by_replay", account.handled_by_replay},
          {"in_dead_letters", account.in_dead_letters},
          {"lost", account.lost},
          {"wrong_dead_letters", account.wrong_dead_letters},
          {"handled_and_dead", account.both},
          {"failed_tries", ledger->failures},
          {"dead_lettered", std::move(reasons)},
          {"dead_letters_repeated", ledger->dead_letters.size() - ledger->dead.size()},
          {"replayed", ledger->replayed},
          {"duplicates", ledger->duplicates},
          {"repeats_recognised", ledger->repeats},
          {"order_broken", ledger->order_broken},
          {"overlaps_within_a_key", ledger->overlaps},
          {"most_at_once", ledger->most_at_once}};
}

std::size_t reason_count(const DemoLedger& ledger, std::string_view reason) {
  const auto found = ledger.dead_by_reason.find(reason);
  return found == ledger.dead_by_reason.end() ? 0 : found->second;
}

void print_table(const std::vector<Row>& rows) {
  std::vector<std::string> titles{"every message accounted for"};
  for (const auto& row : rows) titles.push_back(">" + row.ledger->group);
  Table table(std::move(titles));
  const auto add = [&](const char* title, auto value) {
    std::vector<std::string> cells{title};
    for (const auto& row : rows) cells.push_back(thousands(static_cast<std::int64_t>(value(row))));
    table.add(std::move(cells));
  };
  add("published", [](const Row& row) { return row.account.published; });
  table.rule();
  add("handled", [](const Row& row) { return row.account.handled_first; });
  add("handled after the replay", [](const Row& row) { return row.account.handled_by_replay; });
  add("left in dead letters, malformed", [](const Row& row) { return row.account.in_dead_letters; });
  add("lost", [](const Row& row) { return row.account.lost; });
  table.rule();
  add("tries that failed", [](const Row& row) { return row.ledger->failures; });
  add("dead letters: not JSON", [](const Row& row) { return reason_count(*row.ledger, "undecodable"); });
  add("dead letters: wrong fields", [](const Row& row) { return reason_count(*row.ledger, "invalid"); });
  add("dead letters: retries exhausted", [](const Row& row) { return reason_count(*row.ledger, "retries_exhausted"); });
  add("dead letters replayed", [](const Row& row) { return row.ledger->replayed; });
  add("dead letters written again",
      [](const Row& row) { return row.ledger->dead_letters.size() - row.ledger->dead.size(); });
  add("duplicates told by their id", [](const Row& row) { return row.ledger->duplicates; });
  add("repeats told by their number", [](const Row& row) { return row.ledger->repeats; });
  table.rule();
  add("handlers at once, at most", [](const Row& row) { return row.ledger->most_at_once; });
  add("out of order within a region", [](const Row& row) { return row.ledger->order_broken; });
  add("overlaps within a region", [](const Row& row) { return row.ledger->overlaps; });
  add("dead letters amiss", [](const Row& row) { return row.account.wrong_dead_letters + row.account.both; });
  table.print();
}

}  // namespace

bool report_demo(const DemoPlan& plan, const std::vector<const DemoLedger*>& ledgers, const std::string& broker,
                 double seconds, bool json) {
  std::vector<Row> rows;
  std::size_t replayed = 0;
  for (const auto* ledger : ledgers) {
    const bool outage = ledger->group == "archive";
    rows.push_back({ledger, account_for(plan, *ledger, outage), outage});
    replayed += ledger->replayed;
  }
  bool all_kept = true;
  boost::json::array groups;
  for (const auto& row : rows) {
    all_kept = all_kept && kept(row, replayed);
    groups.push_back(as_json(row));
  }
  if (json) {
    print_json(boost::json::object{{"broker", broker},
                                   {"records", plan.records()},
                                   {"replayed", replayed},
                                   {"groups", std::move(groups)},
                                   {"seconds", seconds},
                                   {"kept", all_kept}});
    return all_kept;
  }
  print_line("");
  print_table(rows);
  print_line("");
  print_line(
      all_kept
          ? fmt::format("Every message is accounted for: published = handled + dead-lettered, none lost, order kept "
                        "within each region. {:.1f} s on {}.",
                        seconds, broker)
          : fmt::format("A promise was NOT kept on {}: see the table above.", broker));
  return all_kept;
}

}  // namespace maestro::cli

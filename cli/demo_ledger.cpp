#include <fmt/format.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>

#include "demo.hpp"
#include "demo_data.hpp"

namespace maestro::cli {

using namespace messaging;

namespace {

/// splitmix64: the same numbers on every machine.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

DemoPlan::DemoPlan(std::size_t records, std::uint64_t seed) : seed_(seed) {
  auto data = demo_data();
  while (!data.empty() && (records == 0 || lines_.size() < records)) {
    const auto line = data.substr(0, data.find('\n'));
    data.remove_prefix(std::min(data.size(), line.size() + 1));
    lines_.push_back(line);
    regions_.emplace_back(boost::json::parse(line).at("region").as_string());
  }
}

std::uint64_t DemoPlan::chance(std::string_view what, std::size_t record) const {
  auto state = mix(seed_);
  for (const char c : what) state = mix(state ^ static_cast<unsigned char>(c));
  return mix(state ^ record);
}

DemoPlan::Damage DemoPlan::damage(std::size_t record) const {
  const auto drawn = chance("damage", record);
  if (drawn % 50 != 0) return Damage::none;
  return static_cast<Damage>(1 + (drawn / 50) % 3);
}

std::string DemoPlan::payload(std::size_t record) const {
  auto object = boost::json::parse(lines_[record]).as_object();
  object["number"] = record;
  switch (damage(record)) {
    case Damage::none:
      break;
    case Damage::wrong_types:
      object["magnitude"] = "strong";
      object["kind"] = "meteorite";
      object["at"].as_object().erase("latitude");
      break;
    case Damage::truncated: {
      const auto whole = boost::json::serialize(object);
      return whole.substr(0, whole.size() / 2);
    }
    case Damage::not_json:
      return "<quake id=\"" + std::string(object["id"].as_string()) + "\"/>";
  }
  return boost::json::serialize(object);
}

int DemoPlan::transient_failures(std::string_view group, std::size_t record) const {
  const auto drawn = chance(group, record);
  return drawn % 25 == 0 ? static_cast<int>(1 + (drawn / 25) % 2) : 0;
}

Duration DemoPlan::work(std::string_view group, std::size_t record) const {
  return std::chrono::microseconds(500 + chance(group, record) / 7 % 3000);
}

bool DemoLedger::enter(const Quake& quake) {
  const auto record = static_cast<std::size_t>(quake.number);
  if (!running.insert(quake.region).second) ++overlaps;
  most_at_once = std::max(most_at_once, running.size());
  if (handled.at(record)) {
    ++repeats;
    return false;
  }
  if (tries[record]++ == 0) {
    const auto [last, fresh] = last_first.try_emplace(quake.region, quake.number);
    if (!fresh) {
      if (last->second >= quake.number) ++order_broken;
      last->second = quake.number;
    }
  }
  return true;
}

void DemoLedger::leave(const Quake& quake, bool success, bool after_replay) {
  running.erase(quake.region);
  if (!success) {
    ++failures;
  } else if (!handled[static_cast<std::size_t>(quake.number)]) {
    handled[static_cast<std::size_t>(quake.number)] = true;
    ++handled_count;
    if (after_replay) ++handled_by_replay;
  }
}

void DemoLedger::note_dead_letters(const std::vector<DeadLetter>& letters) {
  for (const auto& letter : letters) {
    if (!dead_letters.insert(letter.message.position().to_string()).second) continue;
    const auto text = letter.message.header(record_header).value_or(std::string_view());
    std::size_t record = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), record).ec == std::errc{}) dead.insert(record);
    ++dead_by_reason[std::string(to_string(letter.reason))];
    if (letter.reason == DeadLetterReason::invalid && example_error.empty())
      example_error = letter.error_message, example_reason = text;
  }
}

bool all_settled(const DemoLedger& ledger) {
  for (std::size_t record = 0; record < ledger.handled.size(); ++record)
    if (!ledger.handled[record] && !ledger.dead.contains(record)) return false;
  return true;
}

DemoAccount account_for(const DemoPlan& plan, const DemoLedger& ledger, bool outage) {
  DemoAccount account{.published = plan.records()};
  for (std::size_t record = 0; record < plan.records(); ++record) {
    const bool dead = ledger.dead.contains(record);
    const bool broken = plan.damage(record) != DemoPlan::Damage::none;
    const bool down = outage && plan.region(record) == DemoPlan::broken_region;
    if (!broken) ++account.not_malformed;
    if (dead != (broken || down)) ++account.wrong_dead_letters;
    if (ledger.handled[record] && dead && down && !broken)
      ++account.handled_by_replay;
    else if (ledger.handled[record])
      ++account.handled_first;
    else if (dead)
      ++account.in_dead_letters;
    else
      ++account.lost;
    if (ledger.handled[record] && dead && !down) ++account.both;
  }
  return account;
}

}  // namespace maestro::cli

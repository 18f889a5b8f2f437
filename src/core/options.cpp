#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/nearest.hpp>
#include <maestro/messaging/topic.hpp>

#include "core/boolean_text.hpp"
#include "core/option_range.hpp"
#include "core/readable.hpp"

namespace maestro::messaging {
namespace {

constexpr std::string_view raw_prefix = "raw.";

std::string_view map_name(OptionGroup group) {
  switch (group) {
    case OptionGroup::connection:
      return "connection_config";
    case OptionGroup::consumer:
      return "consumer_config";
    case OptionGroup::producer:
      return "producer_config";
  }
  return "";
}

std::string show(const OptionValue& value) {
  return std::visit(
      [](const auto& held) -> std::string {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<Held, std::string>) {
          return fmt::format("\"{}\"", readable(held));
        } else {
          return fmt::format("{}", held);
        }
      },
      value.get());
}

/// The same without quotes.
std::string plain(const OptionValue& value) {
  const auto* text = std::get_if<std::string>(&value.get());
  return text ? readable(*text) : show(value);
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// Milliseconds, as a number or as text with a unit.
std::optional<std::int64_t> parse_milliseconds(std::string_view text) {
  static constexpr std::pair<std::string_view, std::int64_t> units[] = {
      {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}};
  for (const auto& [unit, factor] : units) {
    if (!text.ends_with(unit)) continue;
    const auto number = parse_number<double>(text.substr(0, text.size() - unit.size()));
    if (!number || !std::isfinite(*number) || std::abs(*number) > 1e12) return std::nullopt;
    return std::llround(*number * static_cast<double>(factor));
  }
  return parse_number<std::int64_t>(text);
}

/// The value as the type that the option has. Text is read as an environment variable would be.
std::optional<OptionValue> convert(const OptionSpec& spec, const OptionValue& given) {
  const auto* text = std::get_if<std::string>(&given.get());
  switch (spec.type) {
    case OptionType::text:
    case OptionType::name:
      return text ? std::optional(given) : std::nullopt;
    case OptionType::boolean:
      if (std::holds_alternative<bool>(given.get())) return given;
      if (text)
        if (const auto flag = parse_boolean(*text)) return OptionValue(*flag);
      return std::nullopt;
    case OptionType::integer:
      if (std::holds_alternative<std::int64_t>(given.get())) return given;
      if (text)
        if (const auto number = parse_number<std::int64_t>(*text)) return OptionValue(*number);
      return std::nullopt;
    case OptionType::duration:
      if (std::holds_alternative<std::int64_t>(given.get())) return given;
      if (text)
        if (const auto milliseconds = parse_milliseconds(*text)) return OptionValue(*milliseconds);
      return std::nullopt;
    case OptionType::number:
      if (std::holds_alternative<double>(given.get())) return given;
      if (const auto* whole = std::get_if<std::int64_t>(&given.get())) return OptionValue(static_cast<double>(*whole));
      if (text)
        if (const auto number = parse_number<double>(*text)) return OptionValue(*number);
      return std::nullopt;
  }
  return std::nullopt;
}

bool in_range(const OptionSpec& spec, const OptionValue& value) {
  if (const auto* text = std::get_if<std::string>(&value.get())) {
    if (spec.type == OptionType::name) return is_group(*text) && text->size() <= max_topic_length;
    if (!spec.allowed.empty()) return std::ranges::find(spec.allowed, *text) != spec.allowed.end();
    // A native client would take a NUL for the end.
    return !text->empty() && text->find('\0') == std::string::npos;
  }
  if (spec.least == spec.most || std::holds_alternative<bool>(value.get())) return true;
  const auto* whole = std::get_if<std::int64_t>(&value.get());
  const auto number = whole ? static_cast<double>(*whole) : std::get<double>(value.get());
  return number >= spec.least && number <= spec.most;  // false for NaN
}

OptionValue check(const OptionSpec& spec, const OptionValue& given, std::string_view source) {
  auto value = convert(spec, given);
  if (value && in_range(spec, *value)) return *std::move(value);
  const auto allowed = allowed_values(spec);
  const auto* text = std::get_if<std::string>(&given.get());
  const auto hidden = text && text->empty() ? "it is empty" : "***";
  throw MessagingError(errc::invalid_option, fmt::format("{} in {}: {}; allowed is {}{}", spec.name, source,
                                                         spec.secret ? hidden : show(given), to_string(spec.type),
                                                         allowed.empty() ? "" : fmt::format(", {}", allowed)));
}

/// Such a variable speaks to a broker of Kafka alone, whoever else has the option.
bool is_kafkas(std::string_view variable) {
  return variable.starts_with("KAFKA_");
}

bool applies(const OptionSpec& spec, BrokerType broker) {
  return spec.brokers.empty() || std::ranges::find(spec.brokers, broker) != spec.brokers.end();
}

/// Those three are everybody's, and the brief has them in either map.
bool belongs(const OptionSpec& spec, OptionGroup map) {
  return spec.group == map || (map == OptionGroup::consumer && (spec.name == "auto_offset_reset" ||
                                                                spec.name == "group_id" || spec.name == "client_id"));
}

/// The nearest key of this broker in any map, for what was meant may be right there; or that of another broker, if it
/// is much nearer. Empty where none is near.
std::string what_was_meant(std::string_view key, OptionGroup map, BrokerType broker) {
  constexpr std::size_t much_nearer = 3;
  std::vector<std::string_view> own;
  std::vector<std::string_view> others;
  for (const auto& each : option_table()) (applies(each, broker) ? own : others).push_back(each.name);
  const auto distance = [key](std::string_view name) { return edit_distance(key.substr(0, 64), name); };
  auto meant = nearest(key, own);
  if (const auto other = nearest(key, others); distance(other) + much_nearer <= distance(meant)) meant = other;
  if (!is_near(key, meant)) return "";
  const auto& its = *std::ranges::find(option_table(), meant, &OptionSpec::name);
  return fmt::format(" did you mean \"{}\"{}{}?", meant,
                     belongs(its, map) ? "" : fmt::format(" in {}", map_name(its.group)),
                     applies(its, broker)
                         ? ""
                         : fmt::format(", an option of {} (this broker is {})", broker_names(its), to_string(broker)));
}

}  // namespace

std::string_view to_string(OptionType type) noexcept {
  switch (type) {
    case OptionType::text:
      return "text";
    case OptionType::name:
      return "name";
    case OptionType::integer:
      return "whole number";
    case OptionType::number:
      return "number";
    case OptionType::boolean:
      return "true or false";
    case OptionType::duration:
      return "duration";
  }
  return "";
}

std::string allowed_values(const OptionSpec& spec) {
  if (!spec.allowed.empty()) return fmt::format("{}", fmt::join(spec.allowed, ", "));
  if (spec.type == OptionType::name)
    return "what can be part of a topic: tokens joined by '.', without white space, control characters or * > # /";
  if (spec.least == spec.most) return "";
  return fmt::format("{} to {}{}", spec.least, spec.most,
                     spec.type == OptionType::duration ? " " + std::string(spec.unit) : "");
}

namespace {
std::int64_t milliseconds(Duration value) {
  return std::chrono::floor<std::chrono::milliseconds>(value).count();
}

template <class Number>
void require_in_range_of(std::string_view option, Number value, std::string_view argument) {
  const auto& spec = *std::ranges::find(option_table(), option, &OptionSpec::name);
  const auto number = static_cast<double>(value);
  if (number >= spec.least && number <= spec.most) return;
  throw MessagingError(errc::invalid_option,
                       fmt::format("{}: {}{}; allowed is {}", argument.empty() ? option : argument, value,
                                   spec.type == OptionType::duration ? " ms" : "", allowed_values(spec)));
}
}  // namespace

void require_in_range(std::string_view option, std::uint64_t value, std::string_view argument) {
  require_in_range_of(option, value, argument);
}

void require_in_range(std::string_view option, int value, std::string_view argument) {
  require_in_range_of(option, value, argument);
}

void require_in_range(std::string_view option, double value, std::string_view argument) {
  require_in_range_of(option, value, argument);
}

void require_in_range(std::string_view option, Duration value, std::string_view argument) {
  require_in_range_of(option, milliseconds(value), argument);
}

void require_span(std::string_view argument, Duration value, Duration least, Duration most) {
  if (value >= least && value <= most) return;
  throw MessagingError(errc::invalid_option, fmt::format("{}: {} ms; allowed is {} to {} ms", argument,
                                                         milliseconds(value), milliseconds(least), milliseconds(most)));
}

void require_growing_backoff(Duration initial, Duration most) {
  if (initial <= most) return;
  throw MessagingError(errc::invalid_option,
                       fmt::format("initial_backoff: {} ms; allowed is max_backoff at most, and that is {} ms",
                                   milliseconds(initial), milliseconds(most)));
}

void require_one_of(std::string_view argument, int value, std::initializer_list<std::string_view> names) {
  if (value >= 0 && static_cast<std::size_t>(value) < names.size()) return;
  throw MessagingError(errc::invalid_option,
                       fmt::format("{}: {}; allowed are {}", argument, value, fmt::join(names, ", ")));
}

std::string environment_variable(const OptionSpec& spec, std::string_view quote) {
  if (spec.environment.empty()) return "";
  const bool of_kafka_alone =
      is_kafkas(spec.environment) && !std::ranges::equal(spec.brokers, std::array{BrokerType::kafka});
  return fmt::format("{}{}{}{}", quote, spec.environment, quote, of_kafka_alone ? " (Kafka only)" : "");
}

std::string broker_names(const OptionSpec& spec) {
  if (spec.brokers.empty()) return "all";
  std::vector<std::string_view> names;
  for (const auto broker : spec.brokers) names.push_back(to_string(broker));
  return fmt::format("{}", fmt::join(names, ", "));
}

Options::Options(const MessagingConfig& config) {
  require_one_of("broker_type", static_cast<int>(config.broker_type), {"memory", "kafka", "redis", "rabbitmq", "nats"});
  const auto table = option_table();
  for (const auto& spec : table) {
    if (!applies(spec, config.broker_type)) continue;
    if (!spec.default_value.empty())
      entries_.insert_or_assign(std::string(spec.name),
                                Entry{&spec, check(spec, OptionValue(spec.default_value), "the table"), "default"});
    if (spec.environment.empty()) continue;
    if (is_kafkas(spec.environment) && config.broker_type != BrokerType::kafka) continue;
    if (const auto* value = std::getenv(std::string(spec.environment).c_str()); value && *value)
      entries_.insert_or_assign(std::string(spec.name),
                                Entry{&spec, check(spec, OptionValue(value), spec.environment), "environment"});
  }
  const auto read = [&](const ConfigMap& map, OptionGroup group) {
    for (const auto& [key, value] : map) {
      if (key.starts_with(raw_prefix)) {
        if (config.broker_type == BrokerType::memory || config.broker_type == BrokerType::redis)
          throw MessagingError(errc::unknown_option, fmt::format("{} in {}: the {} broker has no native client", key, map_name(group),
                                                                 to_string(config.broker_type)));
        const auto* text = std::get_if<std::string>(&value.get());
        raw_.insert_or_assign(key.substr(raw_prefix.size()), text ? *text : show(value));
        continue;
      }
      const auto spec = std::ranges::find(table, key, &OptionSpec::name);
      if (spec == table.end()) {
        std::vector<std::string_view> allowed;
        for (const auto& each : table)
          if (applies(each, config.broker_type) && belongs(each, group)) allowed.push_back(each.name);
        throw MessagingError(
            errc::unknown_option,
            fmt::format("\"{}\" in {}: there is no such option;{} allowed are {}", readable(key), map_name(group),
                        what_was_meant(key, group, config.broker_type), fmt::join(allowed, ", ")));
      }
      if (!belongs(*spec, group))
        throw MessagingError(errc::unknown_option,
                             fmt::format("{} in {}: it belongs into {}", key, map_name(group), map_name(spec->group)));
      if (!applies(*spec, config.broker_type))
        throw MessagingError(errc::unknown_option,
                             fmt::format("{} in {}: an option of {}, and this broker is {}", key, map_name(group),
                                         broker_names(*spec), to_string(config.broker_type)));
      entries_.insert_or_assign(key, Entry{&*spec, check(*spec, value, map_name(group)), "config"});
    }
  };
  read(config.connection_config, OptionGroup::connection);
  read(config.consumer_config, OptionGroup::consumer);
  read(config.producer_config, OptionGroup::producer);
  require_growing_backoff(duration("initial_backoff"), duration("max_backoff"));
}

const Options::Entry* Options::find(std::string_view name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second;
}

std::optional<std::string> Options::text_if(std::string_view name) const {
  const auto* entry = find(name);
  return entry ? std::optional(std::get<std::string>(entry->value.get())) : std::nullopt;
}

std::string Options::text(std::string_view name) const {
  return text_if(name).value_or("");
}

namespace {
[[noreturn]] void no_value(std::string_view name) {
  throw MessagingError(errc::invalid_option, fmt::format("{} has no value for this broker", name));
}
}  // namespace

std::int64_t Options::integer(std::string_view name) const {
  if (const auto* entry = find(name)) return std::get<std::int64_t>(entry->value.get());
  no_value(name);
}

double Options::number(std::string_view name) const {
  if (const auto* entry = find(name)) return std::get<double>(entry->value.get());
  no_value(name);
}

bool Options::boolean(std::string_view name) const {
  if (const auto* entry = find(name)) return std::get<bool>(entry->value.get());
  no_value(name);
}

Duration Options::duration(std::string_view name) const {
  return std::chrono::milliseconds(integer(name));
}

bool Options::is_set(std::string_view name) const {
  const auto* entry = find(name);
  return entry && entry->origin != "default";
}

std::vector<Options::Shown> Options::shown() const {
  std::vector<Shown> rows;
  for (const auto& [name, entry] : entries_)
    rows.push_back({entry.spec, entry.spec->secret ? "***" : plain(entry.value), std::string(entry.origin)});
  return rows;
}

}  // namespace maestro::messaging

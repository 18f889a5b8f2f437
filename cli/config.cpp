#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/nearest.hpp>
#include <map>
#include <memory>

#include "output.hpp"
#include "session.hpp"

namespace maestro::cli {

using namespace messaging;

namespace {

constexpr std::array all_brokers{BrokerType::memory, BrokerType::kafka, BrokerType::redis, BrokerType::rabbitmq,
                                 BrokerType::nats};

std::string_view name_of(OptionGroup group) {
  return group == OptionGroup::connection ? "connection" : group == OptionGroup::consumer ? "consumer" : "producer";
}

bool applies(const OptionSpec& spec, std::optional<BrokerType> broker) {
  return !broker || spec.brokers.empty() ||
         std::find(spec.brokers.begin(), spec.brokers.end(), *broker) != spec.brokers.end();
}

/// The configuration of the broker that was named here, else of the one that a verb would use.
MessagingConfig wanted_config(const Settings& settings, std::optional<BrokerType> broker) {
  if (!broker) return make_config(settings);
  MessagingConfig config;
  if (settings.broker) config = MessagingConfig::from_url(*settings.broker);
  if (config.broker_type != *broker) config = MessagingConfig{.broker_type = *broker};
  apply_options(config, settings);
  return config;
}

boost::json::object as_json(const OptionSpec& spec, const Options::Shown* in_force) {
  boost::json::array brokers, allowed;
  for (const auto broker : spec.brokers) brokers.emplace_back(to_string(broker));
  for (const auto value : spec.allowed) allowed.emplace_back(value);
  boost::json::object row{{"name", spec.name}, {"group", name_of(spec.group)}, {"type", to_string(spec.type)}};
  row["default"] = spec.default_value.empty() ? boost::json::value(nullptr) : boost::json::value(spec.default_value);
  row["value"] = in_force ? boost::json::value(in_force->value) : boost::json::value(nullptr);
  row["origin"] = in_force ? boost::json::value(in_force->origin) : boost::json::value(nullptr);
  row["unit"] = spec.unit;
  row["brokers"] = std::move(brokers);
  row["allowed"] = std::move(allowed);
  if (spec.least != spec.most) row["least"] = spec.least, row["most"] = spec.most;
  row["environment"] = spec.environment;
  row["doc"] = spec.doc;
  return row;
}

/// A broker, or an option: what the table is about.
struct Subject {
  std::optional<BrokerType> broker;
  const OptionSpec* option = nullptr;
};

Subject subject_of(const std::string& name) {
  std::vector<std::string_view> known;
  for (const auto type : all_brokers) {
    if (name == to_string(type)) return {.broker = type};
    known.push_back(to_string(type));
  }
  const auto all = fmt::format("Brokers are {}; `maestro config` shows all options", fmt::join(known, ", "));
  for (const auto& spec : option_table()) {
    if (name == spec.name) return {.option = &spec};
    known.push_back(spec.name);
  }
  const auto meant = near(name, known);
  throw UsageError(fmt::format("there is no broker and no option '{}'. {}", printable(name),
                               meant ? fmt::format("Did you mean '{}'?", *meant) : all));
}

int show(const Settings& settings, const std::optional<std::string>& name, bool markdown) {
  if (markdown) {
    fmt::print("{}", options_reference());
    return exit_ok;
  }
  auto [broker, option] = name ? subject_of(*name) : Subject{};
  const Options options(wanted_config(settings, broker));
  const auto shown = options.shown();
  std::map<std::string_view, const Options::Shown*> in_force;
  for (const auto& each : shown) in_force[each.spec->name] = &each;
  if (settings.broker && !broker && !option) broker = MessagingConfig::from_url(*settings.broker).broker_type;
  Table table({"option", ">value", "origin", ">default", "unit", "group", "type", "allowed", "brokers", "environment",
               "what it does"});
  for (const auto& spec : option_table()) {
    if (!applies(spec, broker) || (option && option != &spec)) continue;
    const auto found = in_force.find(spec.name);
    const auto* value = found == in_force.end() ? nullptr : found->second;
    if (settings.json) {
      print_json(as_json(spec, value));
      continue;
    }
    table.add({std::string(spec.name), value ? value->value : "", value ? value->origin : "",
               std::string(spec.default_value), std::string(spec.unit), std::string(name_of(spec.group)),
               std::string(to_string(spec.type)), allowed_values(spec), broker_names(spec), environment_variable(spec),
               std::string(spec.doc)});
  }
  // A property of the native client may be a secret, which only that client knows.
  for (const auto& [property, value] : options.raw()) {
    if (option) break;
    if (settings.json)
      print_json(boost::json::object{{"name", "raw." + property}, {"value", "***"}, {"origin", "config"}});
    else
      table.add({"raw." + property, "***", "config", "", "", "", "", "", "", "", "A property of the native client."});
  }
  if (!settings.json) table.print();
  return exit_ok;
}

}  // namespace

void add_config(CLI::App& app, const Settings& settings, Action& action) {
  auto* verb =
      app.add_subcommand("config", "Show the options: what is in force and where from, default, what each does");
  auto name = std::make_shared<std::optional<std::string>>();
  auto markdown = std::make_shared<bool>(false);
  verb->fallthrough();
  auto* subject = verb->add_option(
      "NAME", *name,
      "A broker: only the options that it takes; or an option: only this one. Default: all, and what is in "
      "force for the broker that a verb would use");
  verb->add_flag("--markdown", *markdown, "The whole reference page, as in docs/options.md")->excludes(subject);
  verb->callback([=, &settings, &action] { action = [=, &settings] { return show(settings, *name, *markdown); }; });
}

}  // namespace maestro::cli

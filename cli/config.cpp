#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <maestro/messaging/config.hpp>
#include <memory>

#include "command.hpp"
#include "output.hpp"

namespace maestro::cli {

using namespace messaging;

namespace {

std::string_view name_of(OptionGroup group) {
  return group == OptionGroup::connection ? "connection" : group == OptionGroup::consumer ? "consumer" : "producer";
}

bool applies(const OptionSpec& spec, std::optional<BrokerType> broker) {
  return !broker || spec.brokers.empty() ||
         std::find(spec.brokers.begin(), spec.brokers.end(), *broker) != spec.brokers.end();
}

boost::json::object as_json(const OptionSpec& spec) {
  boost::json::array brokers, allowed;
  for (const auto broker : spec.brokers) brokers.emplace_back(to_string(broker));
  for (const auto value : spec.allowed) allowed.emplace_back(value);
  boost::json::object row{{"name", spec.name}, {"group", name_of(spec.group)}, {"type", to_string(spec.type)}};
  row["default"] = spec.default_value.empty() ? boost::json::value(nullptr) : boost::json::value(spec.default_value);
  row["unit"] = spec.unit;
  row["brokers"] = std::move(brokers);
  row["allowed"] = std::move(allowed);
  if (spec.least != spec.most) row["least"] = spec.least, row["most"] = spec.most;
  row["environment"] = spec.environment;
  row["doc"] = spec.doc;
  return row;
}

int show(const Settings& settings, const std::string& broker_name, bool markdown) {
  std::optional<BrokerType> broker;
  if (!broker_name.empty()) {
    try {
      broker = parse_broker_type(broker_name);
    } catch (const MessagingError& error) {
      print_error(error.what());
      return exit_usage;
    }
  }
  if (markdown) {
    fmt::print("{}", options_reference());
    return exit_ok;
  }
  Table table({"option", "group", "type", ">default", "unit", "allowed", "brokers", "environment", "what it does"});
  for (const auto& spec : option_table()) {
    if (!applies(spec, broker)) continue;
    if (settings.json) {
      print_json(as_json(spec));
      continue;
    }
    table.add({std::string(spec.name), std::string(name_of(spec.group)), std::string(to_string(spec.type)),
               std::string(spec.default_value), std::string(spec.unit), allowed_values(spec), broker_names(spec),
               std::string(spec.environment), std::string(spec.doc)});
  }
  if (!settings.json) table.print();
  return exit_ok;
}

}  // namespace

void add_config(CLI::App& app, const Settings& settings, Action& action) {
  auto* verb = app.add_subcommand("config", "Show the table of options: name, type, default, brokers, what each does");
  auto broker = std::make_shared<std::string>();
  auto markdown = std::make_shared<bool>(false);
  verb->fallthrough();
  verb->add_option("BROKER", *broker, "Only the options that this broker takes");
  verb->add_flag("--markdown", *markdown, "The whole reference page, as in docs/options.md");
  verb->callback([=, &settings, &action] { action = [=, &settings] { return show(settings, *broker, *markdown); }; });
}

}  // namespace maestro::cli

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <maestro/messaging/broker.hpp>
#include <maestro/messaging/topic.hpp>
#include <memory>

#include "checks.hpp"
#include "output.hpp"
#include "session.hpp"

namespace maestro::cli {

using namespace messaging;

namespace {

boost::json::object as_json(const TopicInfo& info) {
  boost::json::array partitions, groups;
  for (const auto& each : info.partitions)
    partitions.push_back({{"partition", each.partition}, {"first", each.first}, {"next", each.next}});
  for (const auto& each : info.groups)
    groups.push_back({{"group", each.group}, {"members", each.members}, {"lag", each.lag}});
  return {{"topic", info.name},
          {"messages", info.messages},
          {"partitions", std::move(partitions)},
          {"groups", std::move(groups)}};
}

awaitable<int> list(MessageBroker broker, const Settings& settings) {
  co_await broker.connect();
  const auto names = co_await broker.administration().list_topics();
  Table table({"topic", ">messages", ">partitions", ">groups"});
  for (const auto& name : names) {
    const auto info = co_await broker.administration().describe_topic(name);
    if (settings.json) print_json(as_json(info));
    table.add({printable(info.name), thousands(info.messages), std::to_string(info.partitions.size()),
               std::to_string(info.groups.size())});
  }
  if (!settings.json && !table.empty()) table.print();
  if (names.empty()) {
    print_hint(is_memory(settings) ? "no topics: memory:// lives inside one process. Give --broker to see a server's"
                                   : "no topics. `maestro topics create NAME` makes one");
    co_return exit_nothing;
  }
  co_return exit_ok;
}

awaitable<int> describe(MessageBroker broker, const Settings& settings, std::string topic) {
  co_await broker.connect();
  const auto info = co_await broker.administration().describe_topic(std::move(topic));
  if (settings.json) {
    print_json(as_json(info));
    co_return exit_ok;
  }
  print_line(printable(info.name) + ": " + thousands(info.messages) + " messages kept\n");
  Table partitions({">partition", ">first", ">next", ">kept"});
  for (const auto& each : info.partitions)
    partitions.add({std::to_string(each.partition), std::to_string(each.first), std::to_string(each.next),
                    // Without partitions, offsets are no count.
                    thousands(each.partition < 0 ? info.messages : each.next - each.first)});
  partitions.print();
  if (info.groups.empty()) co_return exit_ok;
  Table groups({"group", ">members", ">lag"});
  for (const auto& each : info.groups)
    groups.add({printable(each.group), std::to_string(each.members), thousands(each.lag)});
  print_line("");
  groups.print();
  co_return exit_ok;
}

awaitable<int> create(MessageBroker broker, const Settings& settings, std::string topic,
                      TopicSettings wanted) {
  validate_topic(topic);
  co_await broker.connect();
  co_await broker.administration().create_topic(topic, std::move(wanted));
  const auto info = co_await broker.administration().describe_topic(topic);
  if (settings.json) {
    print_json(as_json(info));
  } else {
    print_line("created " + topic + " with " + std::to_string(info.partitions.size()) + " partitions");
    if (is_memory(settings)) print_hint("memory:// lives inside one process, so the topic is gone with it");
  }
  co_return exit_ok;
}

awaitable<int> remove(MessageBroker broker, const Settings& settings, std::string topic, bool is_meant) {
  require_yes(is_meant, fmt::format("delete removes the topic '{}' and every message in it", topic));
  co_await broker.connect();
  co_await broker.administration().delete_topic(topic);
  if (settings.json)
    print_json(boost::json::object{{"topic", topic}, {"deleted", true}});
  else
    print_line("deleted " + topic);
  co_return exit_ok;
}

}  // namespace

void add_topics(CLI::App& app, const Settings& settings, Action& action) {
  auto* verb = app.add_subcommand("topics", "List, describe, create and delete topics");
  verb->require_subcommand(1);
  verb->fallthrough();
  auto topic = std::make_shared<std::string>();
  auto partitions = std::make_shared<std::optional<int>>();
  auto configuration = std::make_shared<std::vector<std::string>>();
  auto yes = std::make_shared<bool>(false);
  const auto add = [&](const char* name, const char* help, bool takes_topic, auto task) {
    auto* command = verb->add_subcommand(name, help);
    command->fallthrough();
    if (takes_topic) command->add_option("TOPIC", *topic, "The topic's name")->required();
    command->callback([=, &settings, &action] {
      action = [=, &settings] {
        return with_broker(settings, [=](MessageBroker broker) { return task(std::move(broker)); });
      };
    });
    return command;
  };
  add("list", "Every topic, with how much it keeps", false,
      [&settings](MessageBroker broker) { return list(std::move(broker), settings); });
  const auto of_one_that_is_there = [&settings, topic](auto task) {
    return [&settings, topic, task](MessageBroker broker) {
      validate_topic(*topic);
      return near_topic(broker, *topic, task(broker, settings, *topic));
    };
  };
  add("describe", "Partitions, positions, groups and their lag", true, of_one_that_is_there(describe));
  auto* create_command = add("create", "Make a topic", true, [=, &settings](MessageBroker broker) {
    TopicSettings wanted{*partitions};
    for (const auto& each : *configuration) {
      const auto equals = each.find('=');
      wanted.configuration.insert_or_assign(each.substr(0, equals), each.substr(equals + 1));
    }
    return create(std::move(broker), settings, *topic, std::move(wanted));
  });
  create_command
      ->add_option("--partitions", *partitions, "How many; default: the option auto_create_partitions on Kafka, partitions in memory, which takes 65535 at most. A topic of Redis is one stream")
      ->check(whole_number(1, 100'000));
  create_command->add_option("--config", *configuration, "NAME=VALUE in the broker's own words, such as retention.ms=60000; may be repeated")
      ->check([](const std::string& given) {
        return given.find('=') == std::string::npos || given.front() == '=' ? "\"" + given + "\"; allowed is NAME=VALUE" : std::string();
      });
  const auto remove_if_meant = [yes](MessageBroker broker, const Settings& its_settings, std::string name) {
    return remove(std::move(broker), its_settings, std::move(name), *yes);
  };
  add("delete", "Delete a topic and all that it keeps", true, of_one_that_is_there(remove_if_meant))->add_flag("--yes", *yes, "It is meant");
}

}  // namespace maestro::cli

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <maestro/messaging/broker.hpp>

#include "output.hpp"
#include "session.hpp"

namespace maestro::cli {

using namespace messaging;

namespace {

std::string_view name_of(CircuitState state) {
  return state == CircuitState::closed ? "closed" : state == CircuitState::open ? "open" : "half open";
}

boost::json::object as_json(const BrokerStatus& status, const Capabilities& can, const std::string& address,
                            bool healthy, double round_trip_ms) {
  boost::json::array lag;
  for (const auto& each : status.lag)
    lag.push_back({{"topic", each.topic},
                   {"partition", each.partition},
                   {"lag", each.lag},
                   {"group", each.group ? boost::json::value(*each.group) : boost::json::value(nullptr)}});
  return {{"broker", can.broker},
          {"address", address},
          {"connected", status.connected},
          {"healthy", healthy},
          {"round_trip_ms", round_trip_ms},
          {"circuit", name_of(status.circuit)},
          {"subscriptions", status.subscription_count},
          {"messages_sent", status.messages_sent},
          {"messages_received", status.messages_received},
          {"lag", std::move(lag)},
          {"last_error", status.last_error},
          {"acknowledged_means", status.acknowledged_means},
          {"capabilities", boost::json::object{{"groups", can.groups},
                                               {"patterns", can.patterns},
                                               {"partitions", can.partitions},
                                               {"persistent_topics", can.persistent_topics},
                                               {"release_with_delay", can.release_with_delay},
                                               {"counts_deliveries", can.counts_deliveries},
                                               {"transactions", can.transactions},
                                               {"administration", can.administration},
                                               {"survives_restart", can.survives_restart},
                                               {"max_message_bytes", can.max_message_bytes}}}};
}

std::string abilities(const Capabilities& can) {
  std::string text;
  const auto add = [&](bool has, std::string_view name) {
    if (has) text += (text.empty() ? "" : ", ") + std::string(name);
  };
  add(can.groups, "groups");
  add(can.partitions, "partitions");
  add(can.patterns, "patterns");
  add(can.persistent_topics, "persistent topics");
  add(can.release_with_delay, "delayed redelivery");
  add(can.transactions, "transactions");
  add(can.administration, "administration");
  return text;
}

awaitable<int> show(MessageBroker broker, const Settings& settings) {
  co_await broker.connect();
  const auto asked = broker.clock()->now();
  const bool healthy = co_await broker.health_check();
  const double round_trip_ms = std::chrono::duration<double, std::milli>(broker.clock()->now() - asked).count();
  const auto status = co_await broker.get_status();
  const auto can = broker.capabilities();
  const auto address = redact(broker.config().connection_string);
  if (settings.json) {
    print_json(as_json(status, can, address, healthy, round_trip_ms));
  } else {
    Table table({"broker", can.broker + " at " + address});
    table.add(
        {"health", healthy ? fmt::format("well, round trip {:.2f} ms", round_trip_ms) : "sick: " + status.last_error});
    table.add({"circuit", std::string(name_of(status.circuit))});
    table.add({"an acknowledged publish", status.acknowledged_means});
    table.add({"abilities", abilities(can)});
    table.add({"largest message", can.max_message_bytes == 0
                                      ? std::string("no limit of the broker's")
                                      : thousands(static_cast<std::int64_t>(can.max_message_bytes)) + " bytes"});
    table.print();
    if (is_memory(settings))
      print_hint(
          "memory:// lives inside one process, so this broker was made for this command. Give --broker to see a "
          "server");
  }
  co_return healthy ? exit_ok : exit_unreachable;
}

}  // namespace

void add_status(CLI::App& app, const Settings& settings, Action& action) {
  auto* verb = app.add_subcommand("status", "Connect, and show whether the broker is well and what it can do");
  verb->fallthrough();
  verb->callback([&settings, &action] {
    action = [&settings] {
      return with_broker(settings, [&settings](MessageBroker broker) { return show(std::move(broker), settings); });
    };
  });
}

}  // namespace maestro::cli

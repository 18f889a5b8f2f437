#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/error.hpp>

#include "core/nearest.hpp"

namespace maestro::messaging {
namespace {

constexpr std::array<std::string_view, 5> names{"memory", "kafka", "redis", "rabbitmq", "nats"};

struct Address {
  BrokerType broker;
  const char* variable;
};
constexpr std::array<Address, 4> addresses{{{BrokerType::kafka, "KAFKA_BOOTSTRAP_SERVERS"},
                                            {BrokerType::redis, "REDIS_URL"},
                                            {BrokerType::rabbitmq, "RABBITMQ_URL"},
                                            {BrokerType::nats, "NATS_URL"}}};

std::string_view environment(const char* name) {
  const auto* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

std::string_view to_string(BrokerType type) noexcept { return names[static_cast<std::size_t>(type)]; }

BrokerType parse_broker_type(std::string_view name) {
  const auto found = std::ranges::find(names, name);
  if (found != names.end()) return static_cast<BrokerType>(found - names.begin());
  throw MessagingError(errc::invalid_option, fmt::format("broker_type: \"{}\"; did you mean \"{}\"? Allowed are {}", name,
                                                         nearest(name, names), fmt::join(names, ", ")));
}

MessagingConfig MessagingConfig::from_env() {
  MessagingConfig config;
  if (const auto monitoring = environment("MESSAGING_ENABLE_MONITORING"); !monitoring.empty()) {
    if (monitoring != "true" && monitoring != "false" && monitoring != "1" && monitoring != "0")
      throw MessagingError(errc::invalid_option,
                           fmt::format("MESSAGING_ENABLE_MONITORING: \"{}\"; allowed are true and false", monitoring));
    config.enable_monitoring = monitoring == "true" || monitoring == "1";
  }
  std::optional<BrokerType> decided;
  if (const auto broker = environment("MESSAGING_BROKER"); !broker.empty()) decided = parse_broker_type(broker);
  std::vector<Address> set;
  for (const auto& address : addresses)
    if (!environment(address.variable).empty()) set.push_back(address);
  if (decided == BrokerType::memory || (!decided && set.empty() && !environment("MESSAGING_BROKER").empty())) {
    config.connection_string = "memory://maestro";
    return config;
  }
  if (decided) std::erase_if(set, [&](const Address& address) { return address.broker != *decided; });
  if (set.size() != 1)
    throw MessagingError(
        errc::invalid_option,
        set.empty() ? "no broker's address is set; set one of KAFKA_BOOTSTRAP_SERVERS, REDIS_URL, RABBITMQ_URL, NATS_URL, or "
                      "MESSAGING_BROKER=memory"
                    : "several brokers' addresses are set; MESSAGING_BROKER says which one is meant");
  config.broker_type = set.front().broker;
  config.connection_string = environment(set.front().variable);
  return config;
}

MessagingConfig MessagingConfig::from_url(std::string_view url) {
  static constexpr std::array<std::pair<std::string_view, BrokerType>, 8> schemes{{{"memory://", BrokerType::memory},
                                                                                  {"kafka://", BrokerType::kafka},
                                                                                  {"redis://", BrokerType::redis},
                                                                                  {"rediss://", BrokerType::redis},
                                                                                  {"amqp://", BrokerType::rabbitmq},
                                                                                  {"amqps://", BrokerType::rabbitmq},
                                                                                  {"nats://", BrokerType::nats},
                                                                                  {"tls://", BrokerType::nats}}};
  MessagingConfig config;
  const auto scheme = std::ranges::find_if(schemes, [&](const auto& each) { return url.starts_with(each.first); });
  if (scheme != schemes.end()) {
    config.broker_type = scheme->second;
  } else if (url.find("://") == std::string_view::npos && url.find(':') != std::string_view::npos) {
    config.broker_type = BrokerType::kafka;
  } else {
    throw MessagingError(errc::invalid_option,
                         fmt::format("connection string \"{}\"; allowed are memory://name, kafka://host:port[,host:port] or "
                                     "bare host:port, redis:// and rediss://, amqp:// and amqps://, nats:// and tls://",
                                     redact(url)));
  }
  if (config.broker_type == BrokerType::memory) {
    if (const auto query = url.find('?'); query != std::string_view::npos) {
      for (auto rest = url.substr(query + 1); !rest.empty();) {
        const auto pair = rest.substr(0, rest.find('&'));
        rest = pair.size() < rest.size() ? rest.substr(pair.size() + 1) : std::string_view{};
        const auto equals = pair.find('=');
        if (equals == std::string_view::npos)
          throw MessagingError(errc::invalid_option, fmt::format("\"{}\" in {}: not key=value", pair, redact(url)));
        config.connection_config.insert_or_assign(std::string(pair.substr(0, equals)),
                                                  OptionValue(pair.substr(equals + 1)));
      }
      url = url.substr(0, query);
    }
  }
  config.connection_string = url;
  return config;
}

std::string redact(std::string_view text) {
  std::string shown(text);
  const auto scheme = shown.find("://");
  const auto from = scheme == std::string::npos ? 0 : scheme + 3;
  // The last @ before the path: a password may hold one that nobody escaped.
  const auto end = std::min(shown.find_first_of("/?", from), shown.size());
  auto at = shown.rfind('@', end);
  if (const auto anywhere = shown.rfind('@'); at == std::string::npos || at < from) at = anywhere;
  if (at != std::string::npos && at >= from) {
    const auto colon = shown.find(':', from);
    if (colon != std::string::npos && colon < at) shown.replace(colon + 1, at - colon - 1, "***");
  }
  if (const auto query = shown.find('?'); query != std::string::npos) {
    for (auto equals = shown.find('=', query); equals != std::string::npos; equals = shown.find('=', equals + 1)) {
      const auto name_at = shown.find_last_of("?&", equals) + 1;
      const auto name = std::string_view(shown).substr(name_at, equals - name_at);
      if (name.find("pass") == std::string_view::npos && name.find("secret") == std::string_view::npos &&
          name.find("token") == std::string_view::npos)
        continue;
      const auto stop = std::min(shown.find('&', equals), shown.size());
      shown.replace(equals + 1, stop - equals - 1, "***");
    }
  }
  return shown;
}

}  // namespace maestro::messaging

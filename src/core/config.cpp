#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <maestro/messaging/config.hpp>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/nearest.hpp>
#include <ranges>
#include <set>
#include <utility>

#include "core/boolean_text.hpp"
#include "core/readable.hpp"

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

constexpr std::array<std::pair<std::string_view, BrokerType>, 9> schemes{{{"memory", BrokerType::memory},
                                                                          {"kafka", BrokerType::kafka},
                                                                          {"redis", BrokerType::redis},
                                                                          {"rediss", BrokerType::redis},
                                                                          {"unix", BrokerType::redis},
                                                                          {"amqp", BrokerType::rabbitmq},
                                                                          {"amqps", BrokerType::rabbitmq},
                                                                          {"nats", BrokerType::nats},
                                                                          {"tls", BrokerType::nats}}};

/// What stands before `://`; empty without it.
std::string_view scheme_of(std::string_view url) {
  const auto end = url.find("://");
  return end == std::string_view::npos ? std::string_view{} : url.substr(0, end);
}

std::optional<BrokerType> broker_of_scheme(std::string_view url) {
  const auto found = std::ranges::find(schemes, scheme_of(url), &std::pair<std::string_view, BrokerType>::first);
  return found == schemes.end() ? std::nullopt : std::optional(found->second);
}

/// What was probably meant by a scheme that nobody has, or that is not followed by `//`.
std::string scheme_hint(std::string_view url) {
  const auto meant = near(url.substr(0, url.find(':')), std::views::keys(schemes));
  return meant ? fmt::format(" did you mean {}://?", *meant) : "";
}

/// `host:port[,host:port]`, of which one at least has its port.
bool names_a_port(std::string_view hosts) {
  if (hosts.find("://") != std::string_view::npos) return false;
  for (std::size_t from = 0; from <= hosts.size();) {
    const auto host = hosts.substr(from, std::min(hosts.find(',', from), hosts.size()) - from);
    const auto colon = host.rfind(':');
    if (colon != std::string_view::npos && colon > 0 && colon + 1 < host.size() &&
        host.find_first_not_of("0123456789", colon + 1) == std::string_view::npos)
      return true;
    from += host.size() + 1;
  }
  return false;
}

std::string_view environment(const char* name) {
  const auto* value = std::getenv(name);
  return value ? value : "";
}

struct Range {
  std::size_t from;
  std::size_t to;
};

/// Behind the scheme, or at the front where there is none.
std::size_t address_start(std::string_view text) {
  const auto scheme = text.find("://");
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  return scheme != std::string_view::npos && std::ranges::all_of(text.substr(0, scheme), is_letter) ? scheme + 3 : 0;
}

/// A "port" that is no number, in an address without an @, is a password whose end nobody can tell.
void hide_what_is_no_port(std::string_view text, std::size_t from, std::vector<Range>& hidden) {
  const auto stop = std::min(text.find_first_of("?#", from), text.size());
  while (from < stop) {
    const auto comma = std::min(text.find(',', from), stop);
    from += address_start(text.substr(from, comma - from));
    const auto end = std::min(text.find('/', from), comma);
    const auto bracket =
        from < end && text[from] == '[' ? text.substr(from, end - from).find(']') : std::string_view::npos;
    const auto colon = text.find(':', bracket == std::string_view::npos ? from : from + bracket);
    if (colon < end &&
        text.substr(colon + 1, end - colon - 1).find_first_not_of("0123456789") != std::string_view::npos)
      hidden.push_back({colon + 1, comma});
    from = comma + 1;
  }
}

bool names_a_secret(std::string_view name) {
  std::string lower(name);
  for (auto& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  static constexpr std::array<std::string_view, 7> words{"pass", "pwd", "secret", "token", "cred", "auth", "key"};
  return std::ranges::any_of(words, [&](std::string_view word) { return lower.find(word) != std::string::npos; });
}

std::vector<Range> secret_parameters(std::string_view text) {
  std::vector<Range> found;
  const auto query = text.find_first_of("?#");
  if (query == std::string_view::npos) return found;
  for (auto equals = text.find('=', query); equals != std::string_view::npos; equals = text.find('=', equals + 1)) {
    const auto name_at = text.find_last_of("?&;#", equals) + 1;
    if (!names_a_secret(text.substr(name_at, equals - name_at))) continue;
    // What follows an & without a = is no parameter but the rest of a value that nobody escaped.
    auto stop = text.find('&', equals);
    while (stop != std::string_view::npos && text.find('=', stop) > text.find('&', stop + 1))
      stop = text.find('&', stop + 1);
    if (stop != std::string_view::npos && text.find('=', stop) == std::string_view::npos) stop = std::string_view::npos;
    found.push_back({equals + 1, std::min(stop, text.size())});
  }
  return found;
}

std::string hide_secrets(std::string_view text) {
  auto hidden = secret_parameters(text);
  const auto from = address_start(text);
  // A password may hold an @, / or ? that nobody escaped: what stands before the last @ may be part of one.
  if (const auto at = text.rfind('@'); at != std::string_view::npos && at >= from) {
    const auto colon = text.find(':', from);
    hidden.push_back({colon < at ? colon + 1 : from, at});
  } else {
    hide_what_is_no_port(text, from, hidden);
  }
  std::ranges::sort(hidden, {}, &Range::from);
  std::string shown;
  std::size_t done = 0;
  for (const auto& [first, last] : hidden) {
    if (last <= done) continue;
    if (first >= done) shown.append(text, done, first - done).append("***");
    done = last;
  }
  return shown.append(text, std::min(done, text.size()));
}

}  // namespace

std::string_view to_string(BrokerType type) noexcept {
  const auto at = static_cast<std::size_t>(type);
  return at < names.size() ? names[at] : "unknown";
}

namespace {
BrokerType parse_broker(std::string_view name, std::string_view origin) {
  const auto found = std::ranges::find(names, name);
  if (found != names.end()) return static_cast<BrokerType>(found - names.begin());
  const auto meant = near(name, names);
  throw MessagingError(errc::invalid_option,
                       fmt::format("{}: \"{}\";{} allowed are {}", origin, readable(name),
                                   meant ? fmt::format(" did you mean \"{}\"?", *meant) : "", fmt::join(names, ", ")));
}
}  // namespace

BrokerType parse_broker_type(std::string_view name) {
  return parse_broker(name, "broker_type");
}

MessagingConfig MessagingConfig::from_env(std::optional<BrokerType> broker) {
  MessagingConfig config;
  if (const auto monitoring = environment("MESSAGING_ENABLE_MONITORING"); !monitoring.empty()) {
    const auto flag = parse_boolean(monitoring);
    if (!flag)
      throw MessagingError(errc::invalid_option,
                           fmt::format("MESSAGING_ENABLE_MONITORING: \"{}\"; allowed are true and false", monitoring));
    config.enable_monitoring = *flag;
  }
  auto decided = broker;
  if (const auto name = environment("MESSAGING_BROKER"); !decided && !name.empty())
    decided = parse_broker(name, "MESSAGING_BROKER");
  std::vector<Address> set;
  for (const auto& address : addresses)
    if (!environment(address.variable).empty()) set.push_back(address);
  if (decided == BrokerType::memory) {
    config.connection_string = "memory://maestro";
    return config;
  }
  if (decided) {
    std::erase_if(set, [&](const Address& address) { return address.broker != *decided; });
    if (set.empty())
      throw MessagingError(errc::invalid_option,
                           fmt::format("{} is {}, but {} is not set", broker ? "the broker" : "MESSAGING_BROKER", to_string(*decided),
                                       std::ranges::find(addresses, *decided, &Address::broker)->variable));
  }
  if (set.empty())
    throw MessagingError(errc::invalid_option,
                         "no broker's address is set; set one of KAFKA_BOOTSTRAP_SERVERS, REDIS_URL, RABBITMQ_URL, "
                         "NATS_URL, or MESSAGING_BROKER=memory");
  if (set.size() > 1) {
    std::vector<std::string_view> variables;
    for (const auto& address : set) variables.emplace_back(address.variable);
    throw MessagingError(errc::invalid_option, fmt::format("{} are set; MESSAGING_BROKER says which broker is meant",
                                                           fmt::join(variables, " and ")));
  }
  config.broker_type = set.front().broker;
  config.connection_string = environment(set.front().variable);
  return config;
}

MessagingConfig MessagingConfig::from_url(std::string_view url) {
  MessagingConfig config;
  if (const auto broker = broker_of_scheme(url)) {
    config.broker_type = *broker;
  } else if (names_a_port(url)) {
    config.broker_type = BrokerType::kafka;
  } else {
    throw MessagingError(
        errc::invalid_option,
        fmt::format("connection string \"{}\";{} allowed are memory://name, kafka://host:port[,host:port] or "
                    "bare host:port, redis:// and rediss://, amqp:// and amqps://, nats:// and tls://",
                    readable(redact(url)), scheme_hint(url)));
  }
  config.connection_string = url;
  return with_options_of_url(std::move(config));
}

MessagingConfig with_options_of_url(MessagingConfig config) {
  const auto query = config.connection_string.find('?');
  if (config.broker_type != BrokerType::memory || query == std::string::npos) return config;
  const auto url = std::exchange(config.connection_string, config.connection_string.substr(0, query));
  std::set<std::string> seen;
  for (auto rest = std::string_view(url).substr(query + 1); !rest.empty();) {
    const auto pair = rest.substr(0, rest.find('&'));
    rest = pair.size() < rest.size() ? rest.substr(pair.size() + 1) : std::string_view{};
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos)
      throw MessagingError(errc::invalid_option,
                           fmt::format("\"{}\" in {}: not key=value", readable(pair), readable(redact(url))));
    const std::string key(pair.substr(0, equals));
    if (!seen.insert(key).second)
      throw MessagingError(errc::invalid_option,
                           fmt::format("{} in {}: it is there twice", readable(key), readable(redact(url))));
    config.connection_config.try_emplace(key, OptionValue(pair.substr(equals + 1)));
  }
  return config;
}

void require_scheme_of(BrokerType type, std::string_view connection_string) {
  const auto scheme = scheme_of(connection_string);
  const auto broker = broker_of_scheme(connection_string);
  // Kafka's own client takes schemes of its own; a name in memory has none but memory://.
  if (scheme.empty() || broker == type || (!broker && type != BrokerType::memory)) return;
  throw MessagingError(
      errc::invalid_option,
      fmt::format("connection string \"{}\": {}, and this broker is {}", readable(redact(connection_string)),
                  broker ? fmt::format("it is one of {}", to_string(*broker)) : "its scheme is none of memory",
                  to_string(type)));
}

std::string redact(std::string_view text) {
  // What is hidden may make the rest look like another secret: until nothing changes any more.
  auto shown = hide_secrets(text);
  for (auto again = hide_secrets(shown); again != shown; again = hide_secrets(shown)) shown = std::move(again);
  return shown;
}

}  // namespace maestro::messaging

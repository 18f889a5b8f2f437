#include "brokers/redis/address.hpp"

#include <fmt/format.h>

#include <charconv>
#include <maestro/messaging/error.hpp>

namespace maestro::messaging::redis {

namespace {

MessagingError refused(std::string_view connection_string, std::string_view why) {
  return {
      errc::invalid_option,
      fmt::format(
          "connection string \"{}\": {}; allowed are redis://[user[:password]@]host[:port][/database], the same with "
          "rediss:// for TLS, and unix:///path[?db=database]",
          redact(connection_string), why)};
}

template <class Number>
std::optional<Number> number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::int64_t database_of(std::string_view connection_string, std::string_view text) {
  const auto database = number<std::int64_t>(text);
  if (!database || *database < 0) throw refused(connection_string, "the database is no number from 0");
  return *database;
}

std::optional<std::string> unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      plain += text[i];
      continue;
    }
    unsigned value = 0;
    if (i + 2 >= text.size()) return std::nullopt;
    const auto [end, error] = std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
    if (error != std::errc{} || end != text.data() + i + 3) return std::nullopt;
    plain += static_cast<char>(value);
    i += 2;
  }
  return plain;
}

}  // namespace

std::string Address::shown() const { return socket.empty() ? fmt::format("{}:{}", host, port) : socket; }

Address parse_address(const std::string& connection_string, const Options& options) {
  Address address;
  address.user = options.text_if("username").value_or("");
  address.password = options.text_if("password");
  address.database = options.integer("database");
  std::string_view rest = connection_string;
  if (rest.starts_with("unix://")) {
    rest.remove_prefix(7);
    const auto query = rest.find('?');
    address.socket = rest.substr(0, query);
    if (query != std::string_view::npos) {
      constexpr std::string_view name = "db=";
      const auto given = rest.substr(query + 1);
      if (!given.starts_with(name)) throw refused(connection_string, "options belong into connection_config");
      address.database = database_of(connection_string, given.substr(name.size()));
    }
    if (address.socket.empty() || address.socket.front() != '/') throw refused(connection_string, "no absolute path");
    return address;
  }
  if (rest.starts_with("rediss://")) {
    address.tls = true;
    rest.remove_prefix(9);
  } else if (rest.starts_with("redis://")) {
    rest.remove_prefix(8);
  } else if (rest.find("://") != std::string_view::npos) {
    throw refused(connection_string, "an unknown scheme");
  }
  if (const auto at = rest.rfind('@'); at != std::string_view::npos) {
    const auto login = rest.substr(0, at);
    rest.remove_prefix(at + 1);
    const auto colon = login.find(':');
    const auto user = unescape(login.substr(0, colon));
    const bool has_password = colon != std::string_view::npos;
    const auto password = has_password ? unescape(login.substr(colon + 1)) : std::nullopt;
    if (!user || (has_password && !password)) throw refused(connection_string, "a % that is followed by no two hexadecimal digits");
    if (!user->empty()) address.user = *user;
    if (password) address.password = *password;
  }
  if (rest.find('?') != std::string_view::npos) throw refused(connection_string, "options belong into connection_config");
  if (const auto slash = rest.find('/'); slash != std::string_view::npos) {
    const auto name = rest.substr(slash + 1);
    rest = rest.substr(0, slash);
    if (!name.empty()) address.database = database_of(connection_string, name);
  }
  auto host = rest;
  std::optional<std::string_view> port;
  if (rest.starts_with('[')) {
    const auto end = rest.find(']');
    if (end == std::string_view::npos) throw refused(connection_string, "a [ without its ]");
    host = rest.substr(1, end - 1);
    if (end + 1 < rest.size()) {
      if (rest[end + 1] != ':') throw refused(connection_string, "something else than a port behind the ]");
      port = rest.substr(end + 2);
    }
  } else if (const auto colon = rest.rfind(':'); colon != std::string_view::npos) {
    host = rest.substr(0, colon);
    port = rest.substr(colon + 1);
  }
  if (host.empty()) throw refused(connection_string, "no host");
  address.host = host;
  if (port) {
    const auto given = number<std::uint16_t>(*port);
    if (!given || *given == 0) throw refused(connection_string, "the port is no number from 1 to 65535");
    address.port = *given;
  }
  return address;
}

}  // namespace maestro::messaging::redis

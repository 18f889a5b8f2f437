#include "output.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/beast/core/detail/base64.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <maestro/messaging/utf8.hpp>
#include <utility>

namespace maestro::cli {

using messaging::is_utf8;

namespace {

/// The length of the well-formed UTF-8 sequence at the beginning, 0 when there is none.
std::size_t sequence_length(std::string_view bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = at(0);
  const std::size_t length = lead < 0x80                   ? 1
                             : lead >= 0xC2 && lead < 0xE0 ? 2
                             : (lead & 0xF0) == 0xE0       ? 3
                             : lead >= 0xF0 && lead < 0xF5 ? 4
                                                           : 0;
  if (length == 0 || length > bytes.size()) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((at(i) & 0xC0) != 0x80) return 0;
  if ((lead == 0xE0 && at(1) < 0xA0) || (lead == 0xED && at(1) > 0x9F)) return 0;
  if ((lead == 0xF0 && at(1) < 0x90) || (lead == 0xF4 && at(1) > 0x8F)) return 0;
  return length;
}

/// Columns on a terminal, as far as one column a code point is right.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

/// As Boost.JSON writes it, but numbers as people write them: 0.0169 and not 1.69E-2.
void append_json(std::string& text, const boost::json::value& value) {
  if (const auto* object = value.if_object()) {
    text += '{';
    for (bool first = true; const auto& [name, member] : *object) {
      if (!std::exchange(first, false)) text += ',';
      text += boost::json::serialize(boost::json::string(name)) + ':';
      append_json(text, member);
    }
    text += '}';
  } else if (const auto* array = value.if_array()) {
    text += '[';
    for (const auto& element : *array) {
      if (&element != array->data()) text += ',';
      append_json(text, element);
    }
    text += ']';
  } else if (const auto* number = value.if_double(); number != nullptr && std::isfinite(*number)) {
    const auto shown = fmt::format("{}", *number);
    text += shown;
    if (shown.find_first_of(".e") == std::string::npos) text += ".0";
  } else {
    text += boost::json::serialize(value);
  }
}

}  // namespace

bool standard_output_is_terminal() {
  return ::isatty(STDOUT_FILENO) == 1;
}
bool standard_error_is_terminal() {
  return ::isatty(STDERR_FILENO) == 1;
}

void print_error(std::string_view text) {
  fmt::print(stderr, "maestro: {}\n", text);
}
void print_hint(std::string_view text) {
  fmt::print(stderr, "maestro: {}\n", text);
}

void print_line(std::string_view text) {
  fmt::print("{}\n", text);
}

void print_json(const boost::json::value& value) {
  std::string text;
  append_json(text, value);
  print_line(text);
}

std::string thousands(std::int64_t number) {
  auto digits = std::to_string(number);
  const std::ptrdiff_t first = number < 0 ? 1 : 0;
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > first; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

std::string iso_time(messaging::Timestamp time) {
  const auto milliseconds = std::chrono::floor<std::chrono::milliseconds>(time);
  const auto seconds = std::chrono::floor<std::chrono::seconds>(milliseconds);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)),
                     (milliseconds - seconds).count());
}

std::string printable(std::string_view bytes) {
  std::string shown;
  shown.reserve(bytes.size());
  while (!bytes.empty()) {
    const auto length = sequence_length(bytes);
    const auto byte = static_cast<unsigned char>(bytes[0]);
    // C1 controls (U+0080 to U+009F) steer some terminals, too.
    const bool c1 = length == 2 && byte == 0xC2 && static_cast<unsigned char>(bytes[1]) < 0xA0;
    if (length == 0 || byte < 0x20 || byte == 0x7F || c1) {
      shown += fmt::format("\\x{:02x}", byte);
      bytes.remove_prefix(1);
    } else {
      shown += bytes.substr(0, length);
      bytes.remove_prefix(length);
    }
  }
  return shown;
}

boost::json::value payload_json(std::string_view bytes) {
  boost::system::error_code error;
  auto value = boost::json::parse(bytes, error);
  return error ? text_json(bytes) : value;
}

boost::json::value text_json(std::string_view bytes) {
  if (is_utf8(bytes)) return boost::json::string(bytes);
  namespace base64 = boost::beast::detail::base64;
  std::string text(base64::encoded_size(bytes.size()), '\0');
  text.resize(base64::encode(text.data(), bytes.data(), bytes.size()));
  return boost::json::object{{"base64", text}};
}

boost::json::object message_json(const messaging::Message& message) {
  boost::json::object headers;
  for (const auto [name, value] : message.headers()) {
    const auto [at, is_new] = headers.emplace(is_utf8(name) ? std::string(name) : printable(name), text_json(value));
    if (is_new) continue;
    if (!at->value().is_array()) at->value() = boost::json::array{at->value()};
    at->value().as_array().push_back(text_json(value));
  }
  boost::json::object object{{"topic", message.topic()}};
  object["position"] = message.position().to_string();
  object["partition"] = message.position().partition;
  object["offset"] = message.position().offset;
  object["key"] = message.key() ? text_json(*message.key()) : boost::json::value(nullptr);
  object["id"] = text_json(message.id());
  object["timestamp"] = iso_time(message.timestamp());
  object["delivery_count"] = message.delivery_count();
  object["headers"] = std::move(headers);
  object["value"] = payload_json(message.body());
  return object;
}

std::string Table::text() const {
  std::vector<std::size_t> widths;
  std::vector<std::string> titles = titles_;
  std::vector<bool> right;
  for (auto& title : titles) {
    right.push_back(title.starts_with('>'));
    if (right.back()) title.erase(0, 1);
    widths.push_back(width(title));
  }
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  std::string text;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string out;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string padding(widths[i] - width(cells[i]), ' ');
      out += (i ? "  " : "") + (right[i] ? padding + cells[i] : cells[i] + padding);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + '\n';
  };
  const auto rule = [&] {
    for (std::size_t i = 0; i < widths.size(); ++i) {
      text += i ? "  " : "";
      for (std::size_t column = 0; column < widths[i]; ++column) text += "─";
    }
    text += '\n';
  };
  line(titles);
  rule();
  for (const auto& row : rows_) row.empty() ? rule() : line(row);
  return text;
}

void Table::print() const {
  fmt::print("{}", text());
}

}  // namespace maestro::cli

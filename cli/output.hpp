#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <maestro/messaging/message.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace maestro::cli {

[[nodiscard]] bool standard_output_is_terminal();
[[nodiscard]] bool standard_error_is_terminal();

/// `maestro: what was wrong. what to do` on standard error.
void print_error(std::string_view text);
/// `maestro: …` on standard error, for what is no error but good to know.
void print_hint(std::string_view text);
/// One line on standard output.
void print_line(std::string_view text);
void print_json(const boost::json::value& value);

/// 1234567 as `1,234,567`.
[[nodiscard]] std::string thousands(std::int64_t number);
[[nodiscard]] std::string iso_time(messaging::Timestamp time);
/// What may be shown on a terminal: control characters and bytes that are no UTF-8 are escaped.
[[nodiscard]] std::string printable(std::string_view bytes);
/// A string; bytes that are no UTF-8 as base64 under `{"base64": …}`.
[[nodiscard]] boost::json::value text_json(std::string_view bytes);
/// The payload as JSON where it is JSON, else as `text_json`.
[[nodiscard]] boost::json::value payload_json(std::string_view bytes);
[[nodiscard]] boost::json::object message_json(const messaging::Message& message);

/// Columns as wide as their widest cell. A column whose title starts with `>` is right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> titles) : titles_(std::move(titles)) {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  /// A line between two rows.
  void rule() { rows_.emplace_back(); }
  [[nodiscard]] bool empty() const noexcept { return rows_.empty(); }
  [[nodiscard]] std::string text() const;
  void print() const;

 private:
  std::vector<std::string> titles_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace maestro::cli

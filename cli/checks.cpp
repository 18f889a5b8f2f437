#include "checks.hpp"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string_view>

#include "output.hpp"

namespace maestro::cli {

namespace {

template <class Number>
std::optional<Number> parse(std::string_view text) {
  Number number{};
  const auto* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  return error == std::errc{} && at == end ? std::optional(number) : std::nullopt;
}

template <class Number>
CLI::Validator in_range(Number least, Number most, std::string_view kind) {
  const auto check = [least, most](std::string& given) {
    const auto number = parse<Number>(given);
    if (number && *number >= least && *number <= most) return std::string();  // not for NaN
    return fmt::format("Value {} not in range {} to {}", printable(std::string_view(given).substr(0, 40)), least, most);
  };
  return {check, fmt::format("{} in [{} - {}]", kind, least, most), ""};
}

}  // namespace

CLI::Validator whole_number(std::uint64_t least, std::uint64_t most) {
  return in_range(least, most, "INT");
}

CLI::Validator seconds_or_rate() {
  return in_range(0.001, 1e9, "FLOAT");
}

}  // namespace maestro::cli

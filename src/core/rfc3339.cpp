#include <maestro/messaging/time.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace maestro::messaging {
namespace {

void write_decimal(char* to, unsigned value, int count) {
  for (int i = count - 1; i >= 0; --i, value /= 10) to[i] = static_cast<char>('0' + value % 10);
}

/// `count` digits off the front, as a number.
std::optional<int> take_number(std::string_view& text, std::size_t count) noexcept {
  if (text.size() < count) return std::nullopt;
  int number = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    number = number * 10 + (text[i] - '0');
  }
  text.remove_prefix(count);
  return number;
}

bool take(std::string_view& text, char wanted) noexcept {
  if (text.empty() || text.front() != wanted) return false;
  text.remove_prefix(1);
  return true;
}

void append(std::string& to, Timestamp time, int fraction_digits) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  char text[] = "0000-00-00T00:00:00.000000000Z";
  write_decimal(text, static_cast<unsigned>(static_cast<int>(date.year())), 4);
  write_decimal(text + 5, static_cast<unsigned>(date.month()), 2);
  write_decimal(text + 8, static_cast<unsigned>(date.day()), 2);
  write_decimal(text + 11, static_cast<unsigned>(clock.hours().count()), 2);
  write_decimal(text + 14, static_cast<unsigned>(clock.minutes().count()), 2);
  write_decimal(text + 17, static_cast<unsigned>(clock.seconds().count()), 2);
  write_decimal(text + 20, static_cast<unsigned>(clock.subseconds().count()), 9);
  text[20 + fraction_digits] = 'Z';
  to.append(text, static_cast<std::size_t>(21 + fraction_digits));
}

}  // namespace

void append_rfc3339(std::string& to, Timestamp time) {
  append(to, time, 3);
}

void append_exact_rfc3339(std::string& to, Timestamp time) {
  const auto nanoseconds = time.time_since_epoch().count();
  append(to, time, nanoseconds % 1'000'000 == 0 ? 3 : nanoseconds % 1'000 == 0 ? 6 : 9);
}

std::optional<Timestamp> parse_rfc3339(std::string_view text) noexcept {
  const auto year = take_number(text, 4);
  if (!year || !take(text, '-')) return std::nullopt;
  const auto month = take_number(text, 2);
  if (!month || !take(text, '-')) return std::nullopt;
  const auto day = take_number(text, 2);
  if (!day || !(take(text, 'T') || take(text, 't'))) return std::nullopt;
  const auto hour = take_number(text, 2);
  if (!hour || !take(text, ':')) return std::nullopt;
  const auto minute = take_number(text, 2);
  if (!minute || !take(text, ':')) return std::nullopt;
  const auto second = take_number(text, 2);
  if (!second) return std::nullopt;
  std::chrono::nanoseconds fraction{};
  if (take(text, '.')) {
    std::int64_t unit = 100'000'000;
    bool any = false;
    while (const auto digit = take_number(text, 1)) {
      fraction += std::chrono::nanoseconds(*digit * unit);
      unit /= 10;
      any = true;
    }
    if (!any) return std::nullopt;
  }
  std::chrono::minutes offset{};
  if (!take(text, 'Z') && !take(text, 'z')) {
    const bool ahead = take(text, '+');
    if (!ahead && !take(text, '-')) return std::nullopt;
    const auto hours = take_number(text, 2);
    if (!hours || !take(text, ':')) return std::nullopt;
    const auto minutes = take_number(text, 2);
    if (!minutes || *hours > 23 || *minutes > 59) return std::nullopt;
    offset = std::chrono::minutes(*hours * 60 + *minutes) * (ahead ? 1 : -1);
  }
  const std::chrono::year_month_day date{std::chrono::year(*year), std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  // A leap second is taken as the first second of the next minute. Nanoseconds since 1970 reach from 1678 to 2261.
  if (!text.empty() || !date.ok() || *hour > 23 || *minute > 59 || *second > 60 || *year < 1678 || *year > 2261)
    return std::nullopt;
  return Timestamp(std::chrono::sys_days(date).time_since_epoch()) + std::chrono::hours(*hour) +
         std::chrono::minutes(*minute) + std::chrono::seconds(*second) + fraction - offset;
}

}  // namespace maestro::messaging

#include <algorithm>
#include <charconv>
#include <cstring>
#include <maestro/messaging/event.hpp>

namespace maestro::messaging {
namespace {

constexpr std::string_view digits = "0123456789abcdef";

constexpr auto hex_pairs = [] {
  std::array<char, 512> pairs{};
  for (std::size_t i = 0; i < 256; ++i) {
    pairs[2 * i] = digits[i >> 4U];
    pairs[2 * i + 1] = digits[i & 0xFU];
  }
  return pairs;
}();

/// `count` digits, an even number of them.
void write_hex(char* to, std::uint64_t value, int count) {
  for (int i = count - 2; i >= 0; i -= 2, value >>= 8U) std::memcpy(to + i, &hex_pairs[2 * (value & 0xFFU)], 2);
}

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

}  // namespace

const Value& Event::operator[](std::string_view field) const {
  const auto* object = data_.if_object();
  const auto* found = object ? object->if_contains(field) : nullptr;
  if (!found) throw MessagingError(errc::invalid_event, fmt::format("{}: missing", field));
  return *found;
}

std::optional<Timestamp> Event::time() const noexcept { return parse_rfc3339(text("ce_time")); }

void write_event_headers(Headers& headers, const EventAttributes& attributes, std::string_view content_type) {
  headers.reserve(384);
  headers.add("ce_specversion", "1.0");
  if (attributes.id) headers.add("ce_id", *attributes.id);
  if (attributes.source) headers.add("ce_source", *attributes.source);
  if (attributes.type) headers.add("ce_type", *attributes.type);
  if (attributes.subject) headers.add("ce_subject", *attributes.subject);
  if (attributes.time) {
    std::string text;
    append_rfc3339(text, *attributes.time);
    headers.add("ce_time", text);
  }
  headers.add("content-type", content_type);
}

std::string_view event_type_of(const Value& data, std::string_view topic) noexcept {
  if (const auto* object = data.if_object())
    for (const auto* name : {"event_type", "type"})
      if (const auto* found = object->if_contains(name))
        if (const auto* text = found->if_string()) return *text;
  return topic;
}

void append_rfc3339(std::string& to, Timestamp time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(std::chrono::floor<std::chrono::milliseconds>(time - day));
  char text[] = "0000-00-00T00:00:00.000Z";
  write_decimal(text, static_cast<unsigned>(static_cast<int>(date.year())), 4);
  write_decimal(text + 5, static_cast<unsigned>(date.month()), 2);
  write_decimal(text + 8, static_cast<unsigned>(date.day()), 2);
  write_decimal(text + 11, static_cast<unsigned>(clock.hours().count()), 2);
  write_decimal(text + 14, static_cast<unsigned>(clock.minutes().count()), 2);
  write_decimal(text + 17, static_cast<unsigned>(clock.seconds().count()), 2);
  write_decimal(text + 20, static_cast<unsigned>(clock.subseconds().count()), 3);
  to.append(text, sizeof text - 1);
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
  return Timestamp(std::chrono::sys_days(date).time_since_epoch()) + std::chrono::hours(*hour) + std::chrono::minutes(*minute) +
         std::chrono::seconds(*second) + fraction - offset;
}

// The 12 bits after the version count within a millisecond (RFC 9562 section 6.2, method 1), and spill into the time.
void IdGenerator::write(char* to, Timestamp now) {
  auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  if (ms > last_ms_) {
    last_ms_ = ms;
    counter_ = 0;
  } else if (++counter_ == 0x1000) {
    ++last_ms_;
    counter_ = 0;
  }
  const auto random = random_();
  write_hex(to, static_cast<std::uint64_t>(last_ms_) >> 16U, 8);
  write_hex(to + 9, static_cast<std::uint64_t>(last_ms_) & 0xFFFFU, 4);
  write_hex(to + 14, 0x7000U | counter_, 4);
  write_hex(to + 19, 0x8000U | (random >> 48U & 0x3FFFU), 4);
  write_hex(to + 24, random, 12);
  for (const auto dash : {8, 13, 18, 23}) to[dash] = '-';
}

std::string IdGenerator::next(Timestamp now) {
  std::string id(36, '-');
  write(id.data(), now);
  return id;
}

std::array<char, 55> make_traceparent(std::mt19937_64& random) {
  std::array<char, 55> text;
  std::ranges::copy(std::string_view("00-"), text.data());
  write_hex(text.data() + 3, random(), 16);
  write_hex(text.data() + 19, random() | 1U, 16);
  text[35] = '-';
  write_hex(text.data() + 36, random() | 1U, 16);
  std::ranges::copy(std::string_view("-01"), text.data() + 52);
  return text;
}

bool is_traceparent(std::string_view text) noexcept {
  if (text.size() != 55 || !text.starts_with("00-") || text[35] != '-' || text[52] != '-') return false;
  const auto hex = [&](std::size_t from, std::size_t count) {
    const auto part = text.substr(from, count);
    return part.find_first_not_of(digits) == std::string_view::npos;
  };
  return hex(3, 32) && hex(36, 16) && hex(53, 2) && text.substr(3, 32).find_first_not_of('0') != std::string_view::npos &&
         text.substr(36, 16).find_first_not_of('0') != std::string_view::npos;
}

}  // namespace maestro::messaging

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <maestro/messaging/typed.hpp>
#include <maestro/messaging/utf8.hpp>

#include "core/readable.hpp"

namespace maestro::messaging {

void FieldErrors::add(const std::string& path, std::string_view problem) {
  if (++count_ > listed) return;
  if (!text_.empty()) text_ += "; ";
  text_ += fmt::format("{}: {}", path.empty() ? "the event" : path, problem);
}

void FieldErrors::expected(const std::string& path, std::string_view what, const Value& got) {
  constexpr std::size_t shown = 40;
  const auto text = boost::json::serialize(got);
  const bool cut = text.size() > shown;
  add(path, fmt::format("expected {}, got {}{}", what, cut ? cut_utf8(text, shown) : std::string_view(text), cut ? "…" : ""));
}

void FieldErrors::raise() const {
  if (count_ == 0) return;
  throw MessagingError(errc::invalid_event,
                       count_ > listed ? fmt::format("{}; and {} more", text_, count_ - listed) : text_);
}

namespace detail {
std::string nested(const std::string& path, std::string_view field) {
  return path.empty() ? std::string(field) : fmt::format("{}.{}", path, field);
}

std::string at_key(const std::string& path, std::string_view key) {
  const auto is_plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-'; };
  return std::ranges::all_of(key, is_plain) && !key.empty() ? nested(path, key) : fmt::format("{}[\"{}\"]", path, readable(key));
}

void refuse_unnamed(std::string_view field, const std::string& number, const std::string& names) {
  throw MessagingError(errc::invalid_argument, fmt::format("{}: {} has no name; allowed are {}",
                                                        field.empty() ? "the event" : field, number, names));
}
}  // namespace detail

}  // namespace maestro::messaging

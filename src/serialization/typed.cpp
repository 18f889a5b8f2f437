#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <maestro/messaging/typed.hpp>
#include <maestro/messaging/utf8.hpp>

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

void refuse_unnamed(std::string_view field, const std::string& number, const std::string& names) {
  throw MessagingError(errc::invalid_argument, fmt::format("{}: {} has no name; allowed are {}",
                                                        field.empty() ? "the event" : field, number, names));
}
}  // namespace detail

}  // namespace maestro::messaging

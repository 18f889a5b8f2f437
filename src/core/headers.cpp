#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/headers.hpp>

namespace maestro::messaging {
namespace {

void check_name(std::string_view name) {
  const auto bad = [](char c) { return static_cast<unsigned char>(c) < 0x21 || c == ':' || c == 0x7f; };
  if (name.empty() || std::ranges::any_of(name, bad))
    throw MessagingError(errc::invalid_argument,
                         fmt::format("header name \"{}\"; allowed is text without white space, control characters or ':'",
                                     name.substr(0, 80)));
}

}  // namespace

void Headers::add(std::string_view name, std::string_view value) {
  check_name(name);
  if (name.size() > std::numeric_limits<std::uint32_t>::max() || value.size() > std::numeric_limits<std::uint32_t>::max())
    throw MessagingError(errc::message_too_large, fmt::format("header \"{}\" has 4 GiB or more", name.substr(0, 80)));
  const std::uint32_t lengths[2] = {static_cast<std::uint32_t>(name.size()), static_cast<std::uint32_t>(value.size())};
  block_.append(reinterpret_cast<const char*>(lengths), sizeof lengths);
  block_.append(name);
  block_.append(value);
}

void Headers::set(std::string_view name, std::string_view value) {
  if (find(name)) remove(name);
  add(name, value);
}

void Headers::remove(std::string_view name) {
  const Headers before = *this;
  block_.clear();
  for (const auto& [each, value] : before)
    if (each != name) add(each, value);
}

}  // namespace maestro::messaging

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/headers.hpp>

#include "core/readable.hpp"

namespace maestro::messaging {
namespace {

void check_name(std::string_view name) {
  const auto bad = [](char c) { return static_cast<unsigned char>(c) < 0x21 || c == ':' || c == 0x7f; };
  if (name.empty() || std::ranges::any_of(name, bad))
    throw MessagingError(
        errc::invalid_argument,
        fmt::format("header name \"{}\"; allowed is text without white space, control characters or ':'",
                    readable(name)));
}

}  // namespace

void Headers::add(std::string_view name, std::string_view value) {
  check_name(name);
  if (name.size() > std::numeric_limits<std::uint32_t>::max() ||
      value.size() > std::numeric_limits<std::uint32_t>::max())
    throw MessagingError(errc::message_too_large, fmt::format("header \"{}\" has 4 GiB or more", readable(name)));
  const std::uint32_t lengths[2] = {static_cast<std::uint32_t>(name.size()), static_cast<std::uint32_t>(value.size())};
  const auto append_to = [&](std::string& block) {
    block.append(reinterpret_cast<const char*>(lengths), sizeof lengths).append(name).append(value);
  };
  const auto size = block_.size() + sizeof lengths + name.size() + value.size();
  if (size <= block_.capacity()) {
    append_to(block_);
    return;
  }
  // The name and the value may be views into the old block, which has to live until they are copied.
  std::string grown;
  grown.reserve(std::max(size, 2 * block_.size()));
  grown.append(block_);
  append_to(grown);
  block_ = std::move(grown);
}

void Headers::set(std::string_view name, std::string_view value) {
  check_name(name);
  if (!find(name)) {
    add(name, value);
    return;
  }
  const std::string kept_name(name);  // either may be a view into this block
  const std::string kept_value(value);
  remove(kept_name);
  add(kept_name, kept_value);
}

void Headers::remove(std::string_view name) {
  // Byte by byte, for another program may have chosen names that `add` would refuse; and `name` may be one of ours.
  std::string kept;
  kept.reserve(block_.size());
  for (auto each = begin(); each != end();) {
    const auto* from = each.at_;
    const bool stays = (*each).first != name;
    ++each;
    if (stays) kept.append(from, each.at_);
  }
  block_ = std::move(kept);
}

}  // namespace maestro::messaging

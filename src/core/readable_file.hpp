#pragma once

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>

namespace maestro::messaging {

/// Why the file cannot be read; empty when it can. Reads nothing, for it may be a pipe.
inline std::string why_unreadable(const std::string& path) {
  if (::access(path.c_str(), R_OK) != 0) return std::generic_category().message(errno);
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored) ? std::generic_category().message(EISDIR) : std::string();
}

}  // namespace maestro::messaging

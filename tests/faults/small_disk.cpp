#include "faults/small_disk.hpp"

#include <fmt/format.h>
#include <sys/mount.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace maestro::messaging::testing {

SmallDisk::SmallDisk(int mebibytes) : before_(std::filesystem::temp_directory_path()) {
  auto name = (before_ / "maestro-disk-XXXXXX").string();
  if (!::mkdtemp(name.data())) return;
  folder_ = name;
  mounted_ = ::mount("tmpfs", folder_.c_str(), "tmpfs", 0, fmt::format("size={}m", mebibytes).c_str()) == 0;
  if (mounted_) ::setenv("TMPDIR", folder_.c_str(), 1);
}

SmallDisk::~SmallDisk() {
  if (mounted_) {
    ::setenv("TMPDIR", before_.c_str(), 1);
    ::umount2(folder_.c_str(), MNT_DETACH);
  }
  std::error_code ignored;
  std::filesystem::remove(folder_, ignored);
}

void SmallDisk::fill() {
  for (const std::size_t size : {1U << 20U, 1U << 12U, 1U}) {
    std::ofstream file(filler(), std::ios::app | std::ios::binary);
    const std::string piece(size, 'x');
    while (file.write(piece.data(), static_cast<std::streamsize>(size)).flush()) {
    }
  }
}

void SmallDisk::empty() {
  std::filesystem::remove(filler());
}

}  // namespace maestro::messaging::testing

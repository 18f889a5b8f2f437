#pragma once

#include <filesystem>

namespace maestro::messaging::testing {

/// A file system of a few MiB in memory, for servers that begin while it exists: it is where temporary files go. Only
/// who may mount has one.
class SmallDisk {
 public:
  explicit SmallDisk(int mebibytes);
  ~SmallDisk();
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  [[nodiscard]] bool mounted() const { return mounted_; }
  /// Nothing more can be written, until `empty()`.
  void fill();
  void empty();

 private:
  [[nodiscard]] std::filesystem::path filler() const { return folder_ / "filler"; }

  std::filesystem::path before_;
  std::filesystem::path folder_;
  bool mounted_ = false;
};

}  // namespace maestro::messaging::testing

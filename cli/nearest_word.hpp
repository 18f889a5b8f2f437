#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace maestro::cli {

/// The word that takes the fewest edits to become `given`, or nothing when all of them take more than a third of it.
[[nodiscard]] std::string nearest_word(std::string_view given, const std::vector<std::string>& words);

}  // namespace maestro::cli

#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

namespace maestro::cli {

/// What a number on the command line may be: a whole one, in decimal digits.
[[nodiscard]] CLI::Validator whole_number(std::uint64_t least, std::uint64_t most);
/// The most of what has no limit but that of sense.
inline constexpr std::uint64_t any_count = 1'000'000'000'000;

/// Seconds, or how often a second: from 0.001 to 1,000,000,000.
[[nodiscard]] CLI::Validator seconds_or_rate();

}  // namespace maestro::cli

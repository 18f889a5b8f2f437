#pragma once

#include <string_view>

namespace maestro::cli {

/// `examples/data/earthquakes.jsonl`: one seismic event a line.
[[nodiscard]] std::string_view demo_data();

}  // namespace maestro::cli

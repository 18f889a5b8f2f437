#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace maestro::messaging {

enum class MetricKind { counter, gauge, histogram };

struct MetricFamilySpec {
  std::string_view name;
  MetricKind kind;
  std::string_view help;
  std::vector<std::string_view> labels;
};

/// Every family that the library may count into; a new one is one more line in this table.
std::span<const MetricFamilySpec> metric_families();
std::string_view metric_kind_name(MetricKind kind) noexcept;

}  // namespace maestro::messaging

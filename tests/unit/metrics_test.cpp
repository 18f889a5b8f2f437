#include <fstream>
#include <iterator>
#include <maestro/messaging/log.hpp>
#include <maestro/messaging/metrics.hpp>
#include <thread>

#include "observability/metric_families.hpp"
#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using unit::refusal;

MetricLabels retries(const std::string& topic) {
  return {{"broker", "memory"}, {"topic", topic}, {"group", "g"}};
}

TEST(Metrics, ExposesExactlyWhatWasCounted) {
  MetricsRegistry registry;
  EXPECT_EQ(registry.expose(), "");
  registry.counter("messaging_reconnects_total", {{"broker", "memory"}}).add(3);
  registry.gauge("messaging_broker_health", {{"broker", "memory"}}).set(1);
  registry.counter("messaging_retries_total", retries("say \"hi\"\\\n")).add();
  EXPECT_EQ(registry.expose(),
            "# HELP messaging_broker_health 1 when the broker answers and subscriptions make progress.\n"
            "# TYPE messaging_broker_health gauge\n"
            "messaging_broker_health{broker=\"memory\"} 1\n"
            "# HELP messaging_reconnects_total Connections made anew.\n"
            "# TYPE messaging_reconnects_total counter\n"
            "messaging_reconnects_total{broker=\"memory\"} 3\n"
            "# HELP messaging_retries_total Tries after the first.\n"
            "# TYPE messaging_retries_total counter\n"
            "messaging_retries_total{broker=\"memory\",topic=\"say \\\"hi\\\"\\\\\\n\",group=\"g\"} 1\n");
}

TEST(Metrics, HistogramsAreCumulative) {
  MetricsRegistry registry;
  auto& histogram = registry.histogram("messaging_publish_duration_seconds", {{"broker", "memory"}, {"topic", "t"}});
  histogram.observe(50us);  // on a bound counts into it
  histogram.observe(51us);
  histogram.observe(2s);
  histogram.observe(61s);
  const auto text = registry.expose();
  const std::string series = "messaging_publish_duration_seconds";
  const std::string labels = "{broker=\"memory\",topic=\"t\"";
  EXPECT_THAT(text, HasSubstr("# TYPE messaging_publish_duration_seconds histogram\n"));
  EXPECT_THAT(text, HasSubstr(series + "_bucket" + labels + ",le=\"0.0001\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(series + "_bucket" + labels + ",le=\"1\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(series + "_bucket" + labels + ",le=\"2.5\"} 3\n"));
  EXPECT_THAT(text, HasSubstr(series + "_bucket" + labels + ",le=\"60\"} 3\n"));
  EXPECT_THAT(text, HasSubstr(series + "_bucket" + labels + ",le=\"+Inf\"} 4\n"));
  EXPECT_THAT(text, HasSubstr(series + "_count" + labels + "} 4\n"));
  EXPECT_EQ(histogram.bucket(0), 1U);
  EXPECT_NEAR(histogram.sum_seconds(), 63.000101, 1e-9);
}

TEST(Metrics, TheSameLabelsAreTheSameCell) {
  MetricsRegistry registry;
  auto& cell = registry.counter("messaging_retries_total", retries("t"));
  EXPECT_EQ(&registry.counter("messaging_retries_total", retries("t")), &cell);
  EXPECT_NE(&registry.counter("messaging_retries_total", retries("u")), &cell);
}

TEST(Metrics, WrongFamiliesKindsAndLabelsAreRefused) {
  MetricsRegistry registry;
  EXPECT_THAT(refusal(errc::invalid_argument, [&] { registry.counter("my_total", {}); }), HasSubstr("\"my_total\""));
  refusal(errc::invalid_argument, [&] { registry.gauge("messaging_retries_total", retries("t")); });
  refusal(errc::invalid_argument, [&] { registry.histogram("messaging_broker_health", {{"broker", "m"}}); });
  EXPECT_THAT(refusal(errc::invalid_argument, [&] { registry.counter("messaging_reconnects_total", {}); }),
              HasSubstr("its labels are broker"));
  EXPECT_THAT(
      refusal(errc::invalid_argument,
              [&] { registry.counter("messaging_retries_total", {{"topic", "t"}, {"broker", "m"}, {"group", "g"}}); }),
      HasSubstr("its labels are broker, topic, group"));
  EXPECT_EQ(registry.expose(), "");
}

TEST(Metrics, LabelsAreMadeUtf8) {
  MetricsRegistry registry;
  registry.counter("messaging_reconnects_total", {{"broker", "\xff"}}).add();
  EXPECT_THAT(registry.expose(), HasSubstr("broker=\"\uFFFD\""));
}

TEST(Metrics, SeriesAreBounded) {
  int warnings = 0;
  set_log_sink([&](const LogRecord&) { ++warnings; });
  MetricsRegistry registry;
  for (std::size_t i = 0; i < MetricsRegistry::series_limit; ++i)
    registry.counter("messaging_retries_total", retries(std::to_string(i))).add();
  EXPECT_EQ(warnings, 0);
  auto& other = registry.counter("messaging_retries_total", retries("one too many"));
  EXPECT_EQ(&registry.counter("messaging_retries_total", retries("two too many")), &other);
  EXPECT_EQ(warnings, 1);
  EXPECT_NE(&registry.counter("messaging_retries_total", retries("0")), &other);
  other.add(5);
  const auto text = registry.expose();
  EXPECT_THAT(text, HasSubstr("{broker=\"other\",topic=\"other\",group=\"other\"} 5\n"));
  EXPECT_THAT(text, testing::Not(HasSubstr("too many")));
  registry.counter("messaging_reconnects_total", {{"broker", "memory"}}).add();  // each family has a bound of its own
  EXPECT_THAT(registry.expose(), HasSubstr("messaging_reconnects_total{broker=\"memory\"} 1\n"));
  set_log_sink(make_log_sink(LogFormat::text));
}

TEST(Metrics, ThreadsCountTogether) {
  MetricsRegistry registry;
  constexpr int threads = 4;
  constexpr int rounds = 2000;
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t)
    all.emplace_back([&registry] {
      for (int i = 0; i < rounds; ++i) {
        registry.counter("messaging_retries_total", retries(std::to_string(i % 10))).add();
        registry.gauge("messaging_in_flight", retries("t")).add(1);
        registry.histogram("messaging_publish_duration_seconds", {{"broker", "m"}, {"topic", "t"}}).observe(1ms);
        if (i % 500 == 0) (void)registry.expose();
      }
    });
  for (auto& each : all) each.join();
  std::uint64_t sum = 0;
  for (int i = 0; i < 10; ++i) sum += registry.counter("messaging_retries_total", retries(std::to_string(i))).value();
  EXPECT_EQ(sum, static_cast<std::uint64_t>(threads * rounds));
  EXPECT_EQ(registry.gauge("messaging_in_flight", retries("t")).value(), threads * rounds);
  EXPECT_EQ(registry.histogram("messaging_publish_duration_seconds", {{"broker", "m"}, {"topic", "t"}}).bucket(4),
            static_cast<std::uint64_t>(threads * rounds));
}

TEST(Metrics, CellsOfOnesOwnAreAddedToTheirSeriesAndStayInIt) {
  MetricsRegistry registry;
  constexpr int threads = 4;
  constexpr int rounds = 20'000;
  const MetricLabels labels{{"broker", "m"}, {"topic", "t"}};
  registry.counter("messaging_retries_total", retries("t")).add(5);
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t)
    all.emplace_back([&] {
      std::shared_ptr<Counter> counter;
      for (int i = 0; i < rounds; ++i) {
        if (i % 1000 == 0) counter = registry.own_counter("messaging_retries_total", retries("t"));
        counter->add_alone();
        if (i % 5000 == 0) (void)registry.expose();
      }
      const auto gauge = registry.own_gauge("messaging_in_flight", retries("t"));
      const auto histogram = registry.own_histogram("messaging_publish_duration_seconds", labels);
      for (int i = 0; i < rounds; ++i) {
        gauge->add_alone(i % 2 == 0 ? 2 : -1);
        histogram->observe_alone(2500us);
      }
    });
  for (auto& each : all) each.join();
  const auto kept = registry.own_counter("messaging_retries_total", retries("t"));
  kept->add_alone(7);
  for (int i = 0; i < 2; ++i) {
    const auto text = registry.expose();
    EXPECT_THAT(text, HasSubstr("messaging_retries_total{broker=\"memory\",topic=\"t\",group=\"g\"} 80012\n"));
    EXPECT_THAT(text, HasSubstr("messaging_in_flight{broker=\"memory\",topic=\"t\",group=\"g\"} 40000\n"));
    EXPECT_THAT(text, HasSubstr("messaging_publish_duration_seconds_bucket{broker=\"m\",topic=\"t\",le=\"0.001\"} 0\n"));
    EXPECT_THAT(text, HasSubstr("messaging_publish_duration_seconds_bucket{broker=\"m\",topic=\"t\",le=\"0.0025\"} 80000\n"));
    EXPECT_THAT(text, HasSubstr("messaging_publish_duration_seconds_sum{broker=\"m\",topic=\"t\"} 200\n"));
  }
}

TEST(Metrics, TheProcessHasOneRegistry) {
  EXPECT_EQ(metrics_registry().get(), metrics_registry().get());
}

TEST(Metrics, ThePageListsEveryFamilyWithItsLabels) {
  std::ifstream file(MAESTRO_DOCS "/metrics.md");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  for (const auto& family : metric_families()) {
    std::string labels;
    for (const auto label : family.labels) labels += fmt::format("{}`{}`", labels.empty() ? "" : ", ", label);
    EXPECT_THAT(page, testing::HasSubstr(
                          fmt::format("| `{}` | {} | {} |", family.name, metric_kind_name(family.kind), labels)));
  }
}

}  // namespace
}  // namespace maestro::messaging

#include <maestro/messaging/event.hpp>
#include <random>
#include <set>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using namespace std::chrono_literals;
using unit::message_of;
using unit::refusal;

std::string rfc3339(Timestamp time) {
  std::string text;
  append_rfc3339(text, time);
  return text;
}

TEST(Rfc3339, FormatsUtcWithMilliseconds) {
  EXPECT_EQ(rfc3339(Timestamp(0s)), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(rfc3339(Timestamp(1'767'225'600'123ms)), "2026-01-01T00:00:00.123Z");
  EXPECT_EQ(rfc3339(Timestamp(-1ms)), "1969-12-31T23:59:59.999Z");
  EXPECT_EQ(rfc3339(Timestamp(-1ns)), "1969-12-31T23:59:59.999Z");
  EXPECT_EQ(rfc3339(Timestamp(951'782'400s)), "2000-02-29T00:00:00.000Z");
}

TEST(Rfc3339, ParsesEveryFormOfIt) {
  const Timestamp noon(1'769'860'800s);
  for (const auto* text :
       {"2026-01-31T12:00:00Z", "2026-01-31t12:00:00z", "2026-01-31T12:00:00.0Z", "2026-01-31T14:00:00+02:00",
        "2026-01-31T06:30:00-05:30", "2026-02-01T00:00:00+12:00", "2026-01-31T12:00:00-00:00", "2026-01-31T11:59:60Z"})
    EXPECT_EQ(parse_rfc3339(text), noon) << text;
  EXPECT_EQ(parse_rfc3339("2026-01-31T12:00:00.5Z"), noon + 500ms);
  EXPECT_EQ(parse_rfc3339("2026-01-31T12:00:00.123456789Z"), noon + 123'456'789ns);
  EXPECT_EQ(parse_rfc3339("2026-01-31T12:00:00.1234567899999999Z"), noon + 123'456'789ns);
}

TEST(Rfc3339, RefusesWhatIsNotIt) {
  for (const auto* text : {"",
                           "2026-01-31",
                           "2026-01-31T12:00:00",
                           "2026-01-31 12:00:00Z",
                           "2026-1-31T12:00:00Z",
                           "2026-13-01T00:00:00Z",
                           "2026-02-29T00:00:00Z",
                           "2026-00-01T00:00:00Z",
                           "2026-01-00T00:00:00Z",
                           "2026-01-31T24:00:00Z",
                           "2026-01-31T12:60:00Z",
                           "2026-01-31T12:00:61Z",
                           "2026-01-31T12:00Z",
                           "2026-01-31T12:00:00.Z",
                           "2026-01-31T12:00:00,5Z",
                           "2026-01-31T12:00:00+0200",
                           "2026-01-31T12:00:00+24:00",
                           "2026-01-31T12:00:00+02:60",
                           "2026-01-31T12:00:00ZZ",
                           "2026-01-31T12:00:00Z ",
                           " 2026-01-31T12:00:00Z",
                           "+026-01-31T12:00:00Z",
                           "20260131T120000Z",
                           "0000-01-01T00:00:00Z",
                           "9999-12-31T23:59:59Z"})
    EXPECT_EQ(parse_rfc3339(text), std::nullopt) << text;
}

TEST(Rfc3339, RoundTripsToTheMillisecond) {
  std::mt19937_64 random(1);
  std::uniform_int_distribution<std::int64_t> any(-9'214'560'000'000, 9'214'646'399'999);  // 1678 to 2261, in ms
  for (int i = 0; i < 50'000; ++i) {
    const Timestamp time{std::chrono::milliseconds(any(random))};
    ASSERT_EQ(parse_rfc3339(rfc3339(time)), time) << rfc3339(time);
  }
  for (const auto* edge : {"1678-01-01T00:00:00.000Z", "2261-12-31T23:59:59.999Z"}) {
    ASSERT_TRUE(parse_rfc3339(edge));
    EXPECT_EQ(rfc3339(*parse_rfc3339(edge)), edge);
  }
  EXPECT_TRUE(parse_rfc3339("2261-12-31T23:59:60.999999999-23:59"));
}

TEST(Event, ReadsItsAttributesFromTheHeaders) {
  const Headers headers{{"ce_id", "i"},
                        {"ce_source", "s"},
                        {"ce_type", "t"},
                        {"ce_subject", "u"},
                        {"ce_time", "1970-01-01T00:00:01Z"},
                        {"content-type", "application/json"},
                        {"traceparent", "p"},
                        {"tracestate", "v"}};
  const Event event(message_of("{}", headers), {}, 2);
  EXPECT_EQ(event.id(), "i");
  EXPECT_EQ(event.source(), "s");
  EXPECT_EQ(event.type(), "t");
  EXPECT_EQ(event.subject(), "u");
  EXPECT_EQ(event.time(), Timestamp(1s));
  EXPECT_EQ(event.content_type(), "application/json");
  EXPECT_EQ(event.traceparent(), "p");
  EXPECT_EQ(event.tracestate(), "v");
  EXPECT_EQ(event.attempt(), 2);
}

TEST(Event, IsOneWithoutAttributesToo) {
  const Event event(message_of("{}"), {});
  EXPECT_EQ(event.id(), "orders.created/0/7");
  EXPECT_EQ(event.topic(), "orders.created");
  EXPECT_EQ(event.source(), "");
  EXPECT_EQ(event.type(), "");
  EXPECT_EQ(event.time(), std::nullopt);
  EXPECT_EQ(event.attempt(), 1);
  const Headers strange{{"ce_time", "yesterday"}};
  EXPECT_EQ(Event(message_of("", strange), {}).time(), std::nullopt);
}

TEST(Event, FieldsThatLackAreNamed) {
  const Event event(message_of(""), {{"a", 1}});
  EXPECT_EQ(event["a"].as_int64(), 1);
  EXPECT_EQ(refusal(errc::invalid_event, [&] { (void)event["b"]; }), "b: missing");
  EXPECT_EQ(refusal(errc::invalid_event, [&] { (void)Event(message_of(""), Value(7))["b"]; }), "b: missing");
}

TEST(Event, HeadersAreWrittenInOrderAndOnlyWhereSet) {
  Headers headers;
  write_event_headers(headers, {.id = "i", .source = "s", .type = "t", .time = Timestamp(0s)}, "application/json");
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& [name, value] : headers) all.emplace_back(name, value);
  EXPECT_THAT(all, testing::ElementsAre(testing::Pair("ce_specversion", "1.0"), testing::Pair("ce_id", "i"),
                                        testing::Pair("ce_source", "s"), testing::Pair("ce_type", "t"),
                                        testing::Pair("ce_time", "1970-01-01T00:00:00.000Z"),
                                        testing::Pair("content-type", "application/json")));
}

TEST(Event, TypeFallsBackFromFieldToTopic) {
  EXPECT_EQ(event_type_of({{"event_type", "e"}, {"type", "t"}}, "topic"), "e");
  EXPECT_EQ(event_type_of({{"type", "t"}}, "topic"), "t");
  EXPECT_EQ(event_type_of({{"event_type", 1}, {"type", "t"}}, "topic"), "t");
  EXPECT_EQ(event_type_of({{"event_type", ""}, {"type", "t"}}, "topic"), "t");
  EXPECT_EQ(event_type_of({{"event_type", ""}}, "topic"), "topic");
  EXPECT_EQ(event_type_of({{"other", "x"}}, "topic"), "topic");
  EXPECT_EQ(event_type_of(Value(1), "topic"), "topic");
}

TEST(IdGenerator, IdsAreVersion7AndHoldTheTime) {
  IdGenerator generator(1);
  EXPECT_THAT(generator.next(Timestamp(0x0123456789ABms)),
              testing::MatchesRegex("01234567-89ab-7000-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
}

TEST(IdGenerator, IdsGrowAndAreUniqueWhateverTheClockDoes) {
  IdGenerator generator(1);
  std::mt19937_64 random(2);
  std::string last;
  std::set<std::string> seen;
  auto now = Timestamp(1'767'225'600s);
  for (int i = 0; i < 50'000; ++i) {
    if (i % 9000 == 0) now += std::chrono::milliseconds(random() % 20) - 10ms;
    auto id = generator.next(now);
    ASSERT_GT(id, last) << i;
    ASSERT_TRUE(seen.insert(id).second);
    last = std::move(id);
  }
}

TEST(IdGenerator, ASeedGivesTheSameIdsAgain) {
  IdGenerator one(7);
  IdGenerator two(7);
  IdGenerator other(8);
  const auto id = one.next(Timestamp(1s));
  EXPECT_EQ(id, two.next(Timestamp(1s)));
  EXPECT_NE(id, other.next(Timestamp(1s)));
}

TEST(Traceparent, MadeOnesAreWellFormedAndDiffer) {
  std::mt19937_64 random(1);
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const auto text = make_traceparent(random);
    const std::string made(text.data(), text.size());
    ASSERT_TRUE(is_traceparent(made)) << made;
    ASSERT_TRUE(seen.insert(made).second);
  }
}

TEST(Traceparent, IsChecked) {
  const std::string good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  EXPECT_TRUE(is_traceparent(good));
  const auto with = [&](std::size_t at, std::string_view text) {
    return std::string(good).replace(at, text.size(), text);
  };
  EXPECT_TRUE(is_traceparent(with(53, "00")));
  for (const auto& bad : {std::string(), good + "0", good.substr(1), with(0, "01"), with(0, "ff"), with(3, "A"),
                          with(40, "g"), with(2, "_"), with(35, "_"), with(52, "_"), with(53, "0x"),
                          with(3, std::string(32, '0')), with(36, std::string(16, '0'))})
    EXPECT_FALSE(is_traceparent(bad)) << bad;
}

}  // namespace
}  // namespace maestro::messaging

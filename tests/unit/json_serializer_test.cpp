#include <boost/json/parse.hpp>
#include <limits>
#include <maestro/messaging/serializer.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using testing::HasSubstr;
using unit::message_of;
using unit::refusal;

std::string undecodable(std::string_view body, JsonLimits limits = {}) {
  return refusal(errc::undecodable, [&] { (void)JsonSerializer(limits).deserialize(message_of(body)); });
}

TEST(JsonSerializer, RoundTrips) {
  const JsonSerializer json;
  const Value data{{"text", "größe \"quoted\" \n"},        {"whole", -9'007'199'254'740'993},
                   {"large", 18'446'744'073'709'551'615U}, {"real", 0.1},
                   {"list", {1, true, nullptr}},           {"nested", {{"a", boost::json::object{}}}}};
  const auto payload = json.serialize(data);
  EXPECT_EQ(json.deserialize(message_of(payload.view())), data);
  EXPECT_EQ(json.content_type(), "application/json");
}

TEST(JsonSerializer, TextOfAnyLengthIsWhole) {
  for (const std::size_t length : {0, 500, 509, 510, 511, 4000, 5000, 100'000}) {
    const Value data(std::string(length, 'x'));
    EXPECT_EQ(JsonSerializer().serialize(data).size(), length + 2);
  }
}

TEST(JsonSerializer, MistakesNameTheirPlace) {
  EXPECT_THAT(undecodable(""), HasSubstr("orders.created at 0/7: not JSON at byte 0"));
  EXPECT_THAT(undecodable("{\"a\":1"), HasSubstr("not JSON at byte 6"));
  EXPECT_THAT(undecodable("{\"a\":1,}"), HasSubstr("not JSON at byte 7"));
  EXPECT_THAT(undecodable("[1] x"), HasSubstr("not JSON at byte 4"));
  EXPECT_THAT(undecodable("[1][2]"), HasSubstr("not JSON at byte 3"));
  for (const auto* bad :
       {"nan", "NaN", "Infinity", "'a'", "// c\n1", "01", "1.", "+1", "{a:1}", "\"\t\"", "\xEF\xBB\xBF{}"})
    undecodable(bad);
}

TEST(JsonSerializer, OnlyUtf8IsTaken) {
  for (const auto* bad : {"\"\xff\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"", "\"\xE2\x82\""}) undecodable(bad);
  EXPECT_EQ(JsonSerializer().deserialize(message_of("\"\xE2\x82\xAC\"")).as_string(), "€");
}

TEST(JsonSerializer, DepthIsBounded) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW((void)JsonSerializer().deserialize(message_of(nested(32))));
  undecodable(nested(33));
  EXPECT_NO_THROW((void)JsonSerializer({.max_depth = 3}).deserialize(message_of(nested(3))));
  undecodable(nested(4), {.max_depth = 3});
  undecodable(std::string(1'000'000, '['));
}

TEST(JsonSerializer, SizeIsBounded) {
  EXPECT_NO_THROW((void)JsonSerializer({.max_bytes = 6}).deserialize(message_of("[1, 2]")));
  EXPECT_THAT(undecodable("[1, 23]", {.max_bytes = 6}), HasSubstr("7 bytes of JSON, at most 6"));
}

TEST(JsonSerializer, NumbersThatJsonLacksAreRefused) {
  const double strange[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                            -std::numeric_limits<double>::infinity()};
  for (const auto number : strange) {
    const Value data{{"outer", {{"list", {1, number}}}}};
    const auto why = refusal(errc::invalid_argument, [&] { (void)JsonSerializer().serialize(data); });
    EXPECT_THAT(why, HasSubstr("outer.list[1]"));
  }
}

TEST(JsonSerializer, NumbersThatNoDoubleHoldsAreNotRead) {
  for (const auto* bad : {"1e400", "-1e400", "0e999", "[1, {\"a\": 1e309}]", "{\"a\": [0, 2e308]}"})
    EXPECT_THAT(undecodable(bad), HasSubstr("orders.created at 0/7: a number")) << bad;
  EXPECT_EQ(JsonSerializer().deserialize(message_of("1e-400")), 0.0);
  EXPECT_EQ(refusal(errc::undecodable, [] { (void)message_of("1e400").value(); }).empty(), false);
}

TEST(JsonSerializer, TextThatIsNotUtf8IsRefused) {
  const Value value{{"name", "\xff"}};
  EXPECT_THAT(refusal(errc::invalid_argument, [&] { (void)JsonSerializer().serialize(value); }), HasSubstr("UTF-8"));
  const Value key{{"\xff", 1}};
  EXPECT_THAT(refusal(errc::invalid_argument, [&] { (void)JsonSerializer().serialize(key); }), HasSubstr("UTF-8"));
}

TEST(JsonSerializer, NothingIsWrittenThatWouldNotBeRead) {
  Value deep(1);
  for (int i = 0; i < 32; ++i) deep = boost::json::array{deep};
  EXPECT_NO_THROW((void)JsonSerializer().serialize(deep));
  EXPECT_NO_THROW((void)JsonSerializer().deserialize(message_of(JsonSerializer().serialize(deep).view())));
  deep = boost::json::array{deep};
  EXPECT_THAT(refusal(errc::invalid_argument, [&] { (void)JsonSerializer().serialize(deep); }), HasSubstr("at most 32"));
}

TEST(JsonSerializer, AGeneratedValueRoundTrips) {
  const JsonSerializer json;
  for (const auto* text : {"1e308", "-0.0", "5e-324", "1.7976931348623157e308", "9223372036854775807",
                           "18446744073709551615", R"("\u0000\u001f\ud83d\ude00")"}) {
    const auto value = boost::json::parse(text);
    EXPECT_EQ(json.deserialize(message_of(json.serialize(value).view())), value) << text;
  }
}

}  // namespace
}  // namespace maestro::messaging

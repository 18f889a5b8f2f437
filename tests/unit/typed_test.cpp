#include <maestro/messaging/typed.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging::shop {

enum class Color { red, green };
BOOST_DESCRIBE_ENUM(Color, red, green)

struct Address {
  std::string city;
  std::optional<int> floor;
};
BOOST_DESCRIBE_STRUCT(Address, (), (city, floor))

struct Base {
  int version = 1;
};
BOOST_DESCRIBE_STRUCT(Base, (), (version))

struct Order : Base {
  std::int64_t id = 0;
  std::uint8_t count = 0;
  double price = 0;
  bool paid = false;
  std::string note;
  Color color = Color::red;
  Address address;
  std::optional<Address> billing;
  std::vector<Address> stops;
  std::map<std::string, int> stock;
  std::chrono::system_clock::time_point created;
  Value extra;
};
BOOST_DESCRIBE_STRUCT(Order, (Base),
                      (id, count, price, paid, note, color, address, billing, stops, stock, created, extra))

struct Wide {
  std::uint64_t large = 0;
  std::int8_t small = 0;
};
BOOST_DESCRIBE_STRUCT(Wide, (), (large, small))

struct Many {
  std::vector<int> numbers;
};
BOOST_DESCRIBE_STRUCT(Many, (), (numbers))

struct Sample {
  std::chrono::system_clock::time_point at;
  float value = 0;
  std::vector<Color> colors;
};
BOOST_DESCRIBE_STRUCT(Sample, (), (at, value, colors))

}  // namespace maestro::messaging::shop

namespace maestro::messaging {
namespace {

using namespace shop;
using testing::HasSubstr;
using unit::refusal;

Value good() {
  return {{"version", 2},
          {"id", 7},
          {"count", 255},
          {"price", 1.5},
          {"paid", true},
          {"note", "n"},
          {"color", "green"},
          {"address", {{"city", "Ulm"}, {"floor", 3}}},
          {"billing", nullptr},
          {"stops", boost::json::array{{{"city", "A"}}, {{"city", "B"}, {"floor", nullptr}}}},
          {"stock", {{"x", 1}, {"y", 2}}},
          {"created", "1970-01-01T00:00:01.500Z"},
          {"extra", {1, "two"}}};
}

/// The refusal when one field has another value.
std::string with(std::string_view field, Value value) {
  auto data = good();
  data.as_object()[field] = std::move(value);
  return refusal(errc::invalid_event, [&] { (void)from_value<Order>(data); });
}

TEST(Typed, ReadsEveryKindOfField) {
  const auto order = from_value<Order>(good());
  EXPECT_EQ(order.version, 2);
  EXPECT_EQ(order.id, 7);
  EXPECT_EQ(order.count, 255);
  EXPECT_EQ(order.price, 1.5);
  EXPECT_TRUE(order.paid);
  EXPECT_EQ(order.note, "n");
  EXPECT_EQ(order.color, Color::green);
  EXPECT_EQ(order.address.city, "Ulm");
  EXPECT_EQ(order.address.floor, 3);
  EXPECT_FALSE(order.billing);
  ASSERT_EQ(order.stops.size(), 2U);
  EXPECT_EQ(order.stops[1].city, "B");
  EXPECT_EQ(order.stock.at("y"), 2);
  EXPECT_EQ(order.created.time_since_epoch(), std::chrono::milliseconds(1500));
  EXPECT_EQ(order.extra.at(1).as_string(), "two");
}

TEST(Typed, RoundTrips) {
  auto order = from_value<Order>(good());
  order.billing = Address{"Bonn", {}};
  const auto data = to_value(order);
  EXPECT_EQ(data.at("color").as_string(), "green");
  EXPECT_EQ(data.at("created").as_string(), "1970-01-01T00:00:01.500Z");
  EXPECT_EQ(data.at("billing").at("floor"), Value(nullptr));
  EXPECT_EQ(to_value(from_value<Order>(data)), data);
}

TEST(Typed, TimesKeepAllTheirDigits) {
  for (const auto* text : {"1970-01-01T00:00:01.500Z", "1970-01-01T00:00:01.500025Z", "1969-12-31T23:59:59.999999999Z"}) {
    const auto sample = from_value<Sample>({{"at", text}, {"value", 1}, {"colors", boost::json::array{}}});
    EXPECT_EQ(to_value(sample).at("at").as_string(), text);
  }
}

TEST(Typed, AnEnumValueWithoutANameIsNotWritten) {
  Sample sample;
  sample.colors = {Color::red, static_cast<Color>(7)};
  EXPECT_EQ(refusal(errc::invalid_argument, [&] { (void)to_value(sample); }), "colors: 7 has no name; allowed are red, green");
}

TEST(Typed, ANumberThatIsTooLargeForItsFieldIsRefused) {
  const auto with_value = [](double value) -> Value {
    return {{"at", "1970-01-01T00:00:00Z"}, {"value", value}, {"colors", boost::json::array{}}};
  };
  for (const auto value : {1e300, -1e300})
    EXPECT_THAT(refusal(errc::invalid_event, [&] { (void)from_value<Sample>(with_value(value)); }),
                HasSubstr("value: expected number in the range of the field, got"));
  EXPECT_EQ(from_value<Sample>(with_value(3e38)).value, 3e38F);
}

TEST(Typed, EveryWrongFieldIsNamed) {
  const auto why = refusal(errc::invalid_event, [] {
    (void)from_value<Order>({{"id", "seven"},
                             {"count", 256},
                             {"price", true},
                             {"paid", 1},
                             {"note", 5},
                             {"color", "blue"},
                             {"address", {{"floor", "top"}}},
                             {"stops", boost::json::array{{{"city", "A"}}, 3}},
                             {"stock", {{"x", "many"}}},
                             {"created", "yesterday"},
                             {"extra", nullptr}});
  });
  for (const auto* expected :
       {"version: missing", "id: expected integer, got \"seven\"", "count: expected integer in [0, 255], got 256",
        "price: expected number, got true", "paid: expected true or false, got 1", "note: expected text, got 5",
        "color: expected one of red, green, got \"blue\"", "address.city: missing",
        "address.floor: expected integer, got \"top\"", "stops[1]: expected object, got 3",
        "stock.x: expected integer, got \"many\"", "created: expected an RFC 3339 time, got \"yesterday\""})
    EXPECT_THAT(why, HasSubstr(expected));
  EXPECT_THAT(why, testing::Not(HasSubstr("extra")));
  EXPECT_THAT(why, testing::Not(HasSubstr("billing")));
}

TEST(Typed, NestedFieldsHavePaths) {
  EXPECT_EQ(with("stops", boost::json::array{{{"city", 1}}}), "stops[0].city: expected text, got 1");
  EXPECT_EQ(with("billing", boost::json::object{}), "billing.city: missing");
  EXPECT_EQ(with("stops", boost::json::object{}), "stops: expected array, got {}");
  EXPECT_EQ(with("stock", 4), "stock: expected object, got 4");
  EXPECT_EQ(with("stock", {{"a\nb; c: x", "many"}}), R"(stock["a\x0ab; c: x"]: expected integer, got "many")");
}

TEST(Typed, NullIsOnlyForOptionalFields) {
  EXPECT_EQ(with("id", nullptr), "id: expected integer, got null");
  EXPECT_EQ(with("address", nullptr), "address: expected object, got null");
}

TEST(Typed, IntegersAreNeverRoundedOrWrapped) {
  EXPECT_EQ(with("id", 1.0), "id: expected integer, got 1E0");
  EXPECT_THAT(with("id", 18'446'744'073'709'551'615U),
              HasSubstr("integer in [-9223372036854775808, 9223372036854775807]"));
  EXPECT_THAT(with("count", -1), HasSubstr("integer in [0, 255], got -1"));
  const auto wide = from_value<Wide>({{"large", 18'446'744'073'709'551'615U}, {"small", -128}});
  EXPECT_EQ(wide.large, 18'446'744'073'709'551'615U);
  EXPECT_EQ(wide.small, -128);
  EXPECT_EQ(to_value(wide), Value({{"large", 18'446'744'073'709'551'615U}, {"small", -128}}));
}

TEST(Typed, NumbersTakeIntegers) {
  auto data = good();
  data.as_object()["price"] = 3;
  EXPECT_EQ(from_value<Order>(data).price, 3.0);
}

TEST(Typed, WhatIsNoObjectSaysSo) {
  EXPECT_EQ(refusal(errc::invalid_event, [] { (void)from_value<Address>(Value(1)); }),
            "the event: expected object, got 1");
}

TEST(Typed, UnknownFieldsAreIgnored) {
  EXPECT_EQ(from_value<Address>({{"city", "Ulm"}, {"country", "DE"}}).city, "Ulm");
}

TEST(Typed, LongValuesAndManyMistakesAreCut) {
  EXPECT_LT(with("id", Value(std::string(100'000, 'x'))).size(), 100U);
  boost::json::array wrong;
  for (int i = 0; i < 1000; ++i) wrong.emplace_back("x");
  const auto why = refusal(errc::invalid_event, [&] { (void)from_value<Many>({{"numbers", wrong}}); });
  EXPECT_THAT(why, HasSubstr("numbers[49]"));
  EXPECT_THAT(why, testing::Not(HasSubstr("numbers[50]")));
  EXPECT_THAT(why, testing::EndsWith("; and 950 more"));
}

}  // namespace
}  // namespace maestro::messaging

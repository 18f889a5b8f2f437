#include <vector>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using unit::refusal;

std::vector<std::pair<std::string, std::string>> listed(HeadersView headers) {
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& [name, value] : headers) all.emplace_back(name, value);
  return all;
}

using Listed = std::vector<std::pair<std::string, std::string>>;

TEST(Headers, KeepOrderAndRepetition) {
  Headers headers{{"b", "1"}, {"a", "2"}};
  headers.add("b", "3");
  EXPECT_EQ(listed(headers), (Listed{{"b", "1"}, {"a", "2"}, {"b", "3"}}));
  EXPECT_EQ(headers.view().count(), 3U);
}

TEST(Headers, FindGivesTheLastAndComparesBytes) {
  const Headers headers{{"trace", "old"}, {"Trace", "other"}, {"trace", "new"}};
  EXPECT_EQ(headers.find("trace"), "new");
  EXPECT_EQ(headers.find("Trace"), "other");
  EXPECT_EQ(headers.find("TRACE"), std::nullopt);
}

TEST(Headers, EmptyOnesAreEmpty) {
  const Headers headers;
  EXPECT_TRUE(headers.empty());
  EXPECT_TRUE(headers.view().empty());
  EXPECT_EQ(headers.begin(), headers.end());
  EXPECT_EQ(HeadersView().count(), 0U);
  EXPECT_EQ(HeadersView().find("a"), std::nullopt);
}

TEST(Headers, ValuesAreAnyBytes) {
  const std::string value("\0\xff\n:", 4);
  Headers headers;
  headers.add("bytes", value);
  headers.add("none", "");
  EXPECT_EQ(headers.find("bytes"), value);
  EXPECT_EQ(headers.find("none"), "");
}

TEST(Headers, SetReplacesAllOfOneName) {
  Headers headers{{"a", "1"}, {"b", "2"}, {"a", "3"}};
  headers.set("a", "4");
  EXPECT_EQ(listed(headers), (Listed{{"b", "2"}, {"a", "4"}}));
  headers.set("c", "5");
  EXPECT_EQ(headers.find("c"), "5");
}

TEST(Headers, RemoveLeavesTheOthers) {
  Headers headers{{"a", "1"}, {"b", "2"}, {"a", "3"}};
  headers.remove("nothing");
  EXPECT_EQ(headers.view().count(), 3U);
  headers.remove("a");
  EXPECT_EQ(listed(headers), (Listed{{"b", "2"}}));
  headers.remove("b");
  EXPECT_TRUE(headers.empty());
}

TEST(Headers, RemoveTakesANameOutOfTheSameHeaders) {
  Headers headers{{"first", "1"}, {"second-and-longer", "2"}, {"third", "3"}};
  headers.remove((*++headers.begin()).first);
  EXPECT_EQ(listed(headers), (Listed{{"first", "1"}, {"third", "3"}}));
}

TEST(Headers, NamesThatNoBrokerCarriesAreRefused) {
  const std::vector<std::string> bad{"", "a b", "a:b", "a\nb", "a\tb", std::string("a\0b", 3), "a\x7f"};
  for (const auto& name : bad) {
    Headers headers{{"kept", "1"}};
    EXPECT_THAT(refusal(errc::invalid_argument, [&] { headers.add(name, "x"); }), testing::HasSubstr("header name"))
        << name;
    EXPECT_EQ(headers.view().count(), 1U);
  }
  Headers headers;
  headers.add("größe", "x");
  EXPECT_EQ(headers.find("größe"), "x");
}

TEST(Headers, ViewsRoundTripThroughTheirBlock) {
  const Headers headers{{"a", "1"}, {"bb", std::string(300, 'x')}};
  const std::string block(headers.block());
  const HeadersView view(block);
  EXPECT_EQ(listed(view), listed(headers));
  EXPECT_EQ(Headers(view).block(), block);
}

/// A view over a block in which another program chose the names.
std::string foreign_block(std::string_view name, std::string_view value) {
  const std::uint32_t lengths[2] = {static_cast<std::uint32_t>(name.size()), static_cast<std::uint32_t>(value.size())};
  std::string block(reinterpret_cast<const char*>(lengths), sizeof lengths);
  return block.append(name).append(value);
}

TEST(Headers, NamesThatAnotherProgramChoseSurviveChanges) {
  const auto block = foreign_block("x: y", "1") + foreign_block("", "2");
  Headers headers{HeadersView(block)};
  headers.set("mine", "a");
  headers.set("mine", "b");
  EXPECT_EQ(listed(headers), (Listed{{"x: y", "1"}, {"", "2"}, {"mine", "b"}}));
}

TEST(Headers, ANameOrValueMayBeAViewIntoTheSameHeaders) {
  const std::string value(200, 'x');
  Headers headers{{"a-name-that-is-long", value}, {"b", "2"}};
  for (int i = 0; i < 20; ++i)
    headers.add("copy", *headers.find("a-name-that-is-long"));  // grows the block again and again
  EXPECT_EQ(headers.find("copy"), value);
  headers.set((*headers.begin()).first, *headers.find("copy"));
  EXPECT_EQ(headers.find("a-name-that-is-long"), value);
  EXPECT_EQ(headers.view().count(), 22U);
}

TEST(Headers, ARefusedSetChangesNothing) {
  const auto block = foreign_block("x: y", "1");
  Headers headers{HeadersView(block)};
  refusal(errc::invalid_argument, [&] { headers.set("x: y", "2"); });
  EXPECT_EQ(headers.block(), block);
}

}  // namespace
}  // namespace maestro::messaging

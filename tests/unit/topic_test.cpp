#include <maestro/messaging/topic.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using unit::refusal;

TEST(Topic, NamesThatEveryBrokerCarriesAreAllowed) {
  const std::vector<std::string> good{"a", "orders.created", "a-b_c.D9", "größe.über", std::string(249, 'x')};
  for (const auto& name : good) EXPECT_NO_THROW(validate_topic(name)) << name;
}

TEST(Topic, OthersAreRefusedWithTheReason) {
  struct Case {
    std::string name;
    std::string why;
  };
  const std::vector<Case> cases{{"", "empty"},
                                {".", "a token is empty"},
                                {"a.", "a token is empty"},
                                {".a", "a token is empty"},
                                {"a..b", "a token is empty"},
                                {"a b", "white space"},
                                {"a\n", "control character"},
                                {"a\x7f", "control character"},
                                {std::string("a\0b", 3), "control character"},
                                {"a.*", "cannot be published to"},
                                {"a.>", "cannot be published to"},
                                {"a.#", "cannot be published to"},
                                {"a*", "'*' is not a whole token"},
                                {"a/b", "cannot be carried by every broker"},
                                {"a\\b", "cannot be carried by every broker"},
                                {"a\xff", "UTF-8"},
                                {std::string(250, 'x'), "250 bytes, at most 249"}};
  for (const auto& [name, why] : cases)
    EXPECT_THAT(refusal(errc::invalid_topic, [&] { validate_topic(name); }), testing::HasSubstr(why)) << name;
}

TEST(Topic, AGroupsNameCanBePartOfATopics) {
  for (const auto& good : {std::string("audit"), std::string("a.b-c_D"), std::string("größe"), std::string(300, 'x')})
    EXPECT_NO_THROW(validate_group(good)) << good;
  for (const auto& bad : {std::string(), std::string("a b"), std::string("a\0b", 3), std::string("a\x01"),
                          std::string("a\xff"), std::string(".a"), std::string("a."), std::string("a..b"),
                          std::string("a.*"), std::string(">"), std::string("a/b"), std::string("a\u3000b")})
    EXPECT_THAT(refusal(errc::invalid_argument, [&] { validate_group(bad, "client_id"); }),
                testing::StartsWith("client_id: "))
        << bad;
}

TEST(Topic, WhiteSpaceBeyondAsciiIsRefusedToo) {
  for (const auto* bad : {"a\u00a0b", "a\u0085", "a\u1680", "a\u2000b", "a\u200ab", "a\u2028b", "a\u202fb", "a\u3000b"})
    EXPECT_THAT(refusal(errc::invalid_topic, [&] { validate_topic(bad); }), testing::HasSubstr("white space")) << bad;
  for (const auto* good : {"\u00a1", "\u1681", "a\u200bb", "\u2027", "\u3001"})
    EXPECT_NO_THROW(validate_topic(good)) << good;
}

TEST(Topic, ARefusalCanBePrinted) {
  EXPECT_THAT(refusal(errc::invalid_topic, [] { validate_topic("a\x1b[2J"); }), testing::HasSubstr("\"a\\x1b[2J\""));
  EXPECT_THAT(refusal(errc::invalid_topic, [] { validate_topic("a\xff"); }), testing::HasSubstr("\"a\uFFFD\""));
}

TEST(Topic, PatternsAreCheckedLikeNames) {
  for (const auto* good : {"*", ">", "#", "a.*", "*.b", "a.*.c", "a.>", "a.#", "plain.topic"})
    EXPECT_NO_THROW(validate_topic_or_pattern(good)) << good;
  for (const auto* bad : {"", "a.>.b", ">.b", "#.b", "a*", "a.b>", "a..*", "a. *", "a.**"})
    refusal(errc::invalid_topic, [&] { validate_topic_or_pattern(bad); });
}

TEST(Topic, OnlyWholeTokensMakeAPattern) {
  for (const auto* yes : {"*", ">", "#", "a.*", "a.*.b", "a.>", "a.#"}) EXPECT_TRUE(is_pattern(yes)) << yes;
  for (const auto* no : {"", "a", "a.b", "a*", "a.b>"}) EXPECT_FALSE(is_pattern(no)) << no;
}

struct Matching {
  const char* pattern;
  const char* topic;
  bool expected;
};

void PrintTo(const Matching& row, std::ostream* out) { *out << row.pattern << " against " << row.topic; }

class TopicMatching : public testing::TestWithParam<Matching> {};

TEST_P(TopicMatching, FollowsTheTable) {
  const auto& [pattern, topic, expected] = GetParam();
  EXPECT_EQ(matches(pattern, topic), expected) << pattern << " against " << topic;
}

INSTANTIATE_TEST_SUITE_P(
    Table, TopicMatching,
    testing::Values(Matching{"a", "a", true}, Matching{"a", "b", false}, Matching{"a", "A", false},
                    Matching{"a", "a.b", false}, Matching{"a.b", "a", false}, Matching{"a.b", "a.b", true},
                    Matching{"*", "a", true}, Matching{"*", "a.b", false}, Matching{"*.*", "a.b", true},
                    Matching{"a.*", "a", false}, Matching{"a.*", "a.b", true}, Matching{"a.*", "a.b.c", false},
                    Matching{"a.*.c", "a.b.c", true}, Matching{"a.*.c", "a.b.d", false}, Matching{"*.b", "a.b", true},
                    Matching{"*.b", "b", false}, Matching{">", "a", true}, Matching{">", "a.b.c", true},
                    Matching{"a.>", "a", false}, Matching{"a.>", "a.b", true}, Matching{"a.>", "a.b.c.d", true},
                    Matching{"a.>", "ab.c", false}, Matching{"a.#", "a.b.c", true}, Matching{"a.#", "a", false},
                    Matching{"*.>", "a.b", true}, Matching{"*.>", "a", false}, Matching{"a.*.>", "a.b.c.d", true},
                    Matching{"a.*.>", "a.b", false}));

}  // namespace
}  // namespace maestro::messaging

#include <maestro/messaging/utf8.hpp>
#include <random>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

TEST(Utf8, WellFormedTextIsTaken) {
  for (const std::string good :
       {"", "plain", "\x7f", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
        "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "größe €uro 😀"})
    EXPECT_TRUE(is_utf8(good)) << good;
  EXPECT_TRUE(is_utf8(std::string_view("a\0b", 3)));
}

TEST(Utf8, MalformedTextIsRefused) {
  for (const std::string bad : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE2\x82",
                                "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x9F\x98", "\xF4\x90\x80\x80",
                                "\xF5\x80\x80\x80", "\xFE", "\xFF", "ok\xFF"})
    EXPECT_FALSE(is_utf8(bad));
}

TEST(Utf8, MistakesAreFoundAtEveryPlace) {
  for (std::size_t length = 1; length < 40; ++length)
    for (std::size_t at = 0; at < length; ++at) {
      std::string text(length, 'a');
      text[at] = '\xFF';
      EXPECT_FALSE(is_utf8(text)) << length << ' ' << at;
    }
}

TEST(Utf8, EveryMalformedByteIsReplaced) {
  EXPECT_EQ(to_utf8("a\xFF"
                    "b"),
            "a\uFFFDb");
  EXPECT_EQ(to_utf8("\xE2\x82"), "\uFFFD\uFFFD");
  EXPECT_EQ(to_utf8("\xE2\x82\xAC"), "\u20AC");
  EXPECT_EQ(to_utf8("\xC0\x80"), "\uFFFD\uFFFD");
}

TEST(Utf8, CutsBetweenCharacters) {
  const std::string text = "a\u00e9\u20ac\U0001F600z";  // 1, 2, 3, 4 and 1 bytes
  const std::size_t expected[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
  for (std::size_t limit = 0; limit < std::size(expected); ++limit)
    EXPECT_EQ(cut_utf8(text, limit).size(), expected[limit]) << limit;
}

TEST(Utf8, RepairedTextIsAlwaysWellFormedAndStaysSo) {
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    std::string bytes(random() % 24, '\0');
    for (auto& c : bytes) c = static_cast<char>(random() % 3 ? random() % 0x40 + 0xC0 - 0x40 * (random() % 2) : 'a');
    const auto repaired = to_utf8(bytes);
    ASSERT_TRUE(is_utf8(repaired));
    ASSERT_EQ(to_utf8(repaired), repaired);
    ASSERT_EQ(is_utf8(bytes), repaired == bytes);
    for (std::size_t limit = 0; limit <= repaired.size(); ++limit) ASSERT_TRUE(is_utf8(cut_utf8(repaired, limit)));
  }
}

}  // namespace
}  // namespace maestro::messaging

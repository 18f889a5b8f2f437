#include <boost/json/parse.hpp>
#include <maestro/messaging/log.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using testing::HasSubstr;

/// Puts the usual sink and level back.
class Log : public testing::Test {
 protected:
  ~Log() override {
    set_log_level(LogLevel::warning);
    set_log_sink(make_log_sink(LogFormat::text));
  }

  void record() {
    set_log_sink([this](const LogRecord& line) { lines.push_back(line); });
  }

  static std::string printed(LogFormat format, const LogRecord& line) {
    testing::internal::CaptureStderr();
    make_log_sink(format)(line);
    return testing::internal::GetCapturedStderr();
  }

  std::vector<LogRecord> lines;
};

TEST_F(Log, ASinkGetsLevelMessageAndFieldsInOrder) {
  record();
  log(LogLevel::error, "it broke", {{"b", "2"}, {"a", "1"}});
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].level, LogLevel::error);
  EXPECT_EQ(lines[0].message, "it broke");
  EXPECT_THAT(lines[0].fields, testing::ElementsAre(testing::Pair("b", "2"), testing::Pair("a", "1")));
}

TEST_F(Log, LinesBelowTheLevelAreDropped) {
  record();
  const LogLevel levels[] = {LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error};
  for (const auto threshold : {LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error, LogLevel::off}) {
    set_log_level(threshold);
    lines.clear();
    std::size_t expected = 0;
    for (const auto level : levels) {
      log(level, "x");
      EXPECT_EQ(log_enabled(level), level >= threshold);
      expected += level >= threshold;
    }
    EXPECT_EQ(lines.size(), expected);
  }
  EXPECT_FALSE(log_enabled(LogLevel::off));
}

TEST_F(Log, AnEmptySinkSilences) {
  testing::internal::CaptureStderr();
  set_log_sink(nullptr);
  log(LogLevel::error, "nobody hears");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(Log, ASinkThatThrowsDisturbsNobody) {
  set_log_sink([](const LogRecord&) { throw std::runtime_error("full disk"); });
  EXPECT_NO_THROW(log(LogLevel::error, "x"));
}

TEST_F(Log, ASinkMayChangeTheSink) {
  set_log_sink([this](const LogRecord&) { record(); });
  log(LogLevel::error, "first");
  log(LogLevel::error, "second");
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].message, "second");
}

TEST_F(Log, TextQuotesValuesThatNeedIt) {
  const auto line =
      printed(LogFormat::text,
              {LogLevel::warning, "slow", {{"a", "plain"}, {"b", "two words"}, {"c", ""}, {"d", "say \"hi\""}}});
  EXPECT_THAT(line, testing::EndsWith("slow a=plain b=\"two words\" c=\"\" d=\"say \\\"hi\\\"\"\n"));
  EXPECT_THAT(line, HasSubstr("warning"));
}

TEST_F(Log, TextIsOneLineWithoutControlCharacters) {
  const auto line =
      printed(LogFormat::text, {LogLevel::error, "first\nsecond\x1b[2J", {{"value", "x\ny"}, {"escape", "\x1b[31m"}}});
  EXPECT_EQ(std::ranges::count(line, '\n'), 1) << line;
  EXPECT_THAT(line, testing::Not(HasSubstr("\x1b[2J")));
  EXPECT_THAT(line, testing::Not(HasSubstr("\x1b[31m")));
}

TEST_F(Log, C1ControlCharactersSteerNoTerminal) {
  const LogRecord record{LogLevel::error, "a\xC2\x9B" "2J", {{"value", "b\xC2\x80"}, {"e", "\xC3\xA9\xC2\xA0"}}};
  const auto text = printed(LogFormat::text, record);
  EXPECT_THAT(text, HasSubstr("a 2J value=\"b\\u0080\" e=\xC3\xA9\xC2\xA0\n"));
  const auto json = printed(LogFormat::json, record);
  EXPECT_THAT(json, testing::Not(HasSubstr("\xC2\x9B")));
  EXPECT_EQ(boost::json::parse(json).at("message").as_string(), "a\xC2\x9B" "2J");
}

using LogDeathTest = Log;

TEST_F(LogDeathTest, AMisspeltLevelIsSaid) {
  // A process of its own: the variable is read once.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const unit::EnvironmentVariable variable("MESSAGING_LOG_LEVEL", "debgu\n");
  EXPECT_EXIT(
      {
        log(LogLevel::debug, "hidden");
        log(LogLevel::error, "shown");
        std::exit(0);
      },
      testing::ExitedWithCode(0),
      testing::AllOf(HasSubstr("MESSAGING_LOG_LEVEL: \"debgu\\x0a\" is no level; allowed are debug, info, warning, error, off"),
                     HasSubstr("shown"), testing::Not(HasSubstr("hidden"))));
}

TEST_F(Log, JsonIsOneObjectALine) {
  const auto line =
      printed(LogFormat::json, {LogLevel::error, "quote \" brace {} percent %v\n\xff", {{"we\"ird", "a\tb"}}});
  EXPECT_EQ(std::ranges::count(line, '\n'), 1) << line;
  const auto object = boost::json::parse(line).as_object();
  EXPECT_EQ(object.at("message").as_string(), "quote \" brace {} percent %v\n\uFFFD");
  EXPECT_EQ(object.at("level").as_string(), "error");
  EXPECT_EQ(object.at("we\"ird").as_string(), "a\tb");
  EXPECT_TRUE(object.contains("time"));
}

TEST_F(Log, AFieldNamedLikeWhatEveryLineHasIsTold) {
  const auto line = printed(LogFormat::json, {LogLevel::error, "m", {{"message", "a"}, {"time", "b"}, {"level", "c"}}});
  const auto object = boost::json::parse(line).as_object();
  EXPECT_EQ(object.size(), 6U) << line;
  EXPECT_EQ(object.at("message").as_string(), "m");
  EXPECT_EQ(object.at("message_").as_string(), "a");
  EXPECT_EQ(object.at("time_").as_string(), "b");
  EXPECT_EQ(object.at("level_").as_string(), "c");
}

TEST_F(Log, AVeryLongValueIsCut) {
  record();
  log(LogLevel::error, "x", {{"error", std::string(4095, 'e') + std::string(200'000, '\xC3')}, {"short", "s"}});
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_LT(lines[0].fields[0].second.size(), 4200U);
  EXPECT_THAT(lines[0].fields[0].second, HasSubstr("… (204095 bytes)"));
  EXPECT_EQ(lines[0].fields[1].second, "s");
}

}  // namespace
}  // namespace maestro::messaging

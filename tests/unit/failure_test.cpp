#include "messaging/failure.hpp"

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using testing::HasSubstr;

template <class Work>
Failure describe(Work&& work) {
  try {
    work();
  } catch (...) {
    return describe_failure(std::current_exception());
  }
  return {};
}

TEST(Failure, NamesTypeAndText) {
  const auto failure = describe([] { throw std::out_of_range("index 3 of 2"); });
  EXPECT_EQ(failure.reason, DeadLetterReason::retries_exhausted);
  EXPECT_EQ(failure.error_type, "std::out_of_range");
  EXPECT_EQ(failure.message, "index 3 of 2");
  EXPECT_EQ(failure.stack, "");
}

TEST(Failure, ATextThatIsThrownIsTheMessage) {
  using namespace std::string_literals;
  const auto literal = describe([] { throw "no stock"; });
  EXPECT_EQ(literal.message, "no stock");
  EXPECT_EQ(literal.error_type, "const char*");
  const auto text = describe([] { throw "no stock"s; });
  EXPECT_EQ(text.message, "no stock");
  EXPECT_EQ(text.error_type, "std::string");
  EXPECT_EQ(describe([] { throw std::string_view("no stock"); }).message, "no stock");
  EXPECT_EQ(describe([] { throw static_cast<const char*>(nullptr); }).message, "");
  EXPECT_THAT(describe([] { throw 7; }).message, HasSubstr("not derived from std::exception"));
}

TEST(Failure, TheLibrarysErrorsDecideTheReason) {
  const auto reason = [](errc code) { return describe([&] { throw MessagingError(code, "x"); }).reason; };
  EXPECT_EQ(reason(errc::rejected), DeadLetterReason::rejected);
  EXPECT_EQ(reason(errc::undecodable), DeadLetterReason::undecodable);
  EXPECT_EQ(reason(errc::invalid_event), DeadLetterReason::invalid);
  for (const auto code : {errc::timed_out, errc::connection_failed, errc::broker_error, errc::invalid_argument})
    EXPECT_EQ(reason(code), DeadLetterReason::retries_exhausted);
}

TEST(Failure, TheLibrarysErrorsGiveTheirDetail) {
  const auto failure = describe([] { throw MessagingError(errc::rejected, "too old"); });
  EXPECT_EQ(failure.message, "too old");
  EXPECT_EQ(failure.error_type, "maestro::messaging::MessagingError");
}

TEST(Failure, NestedCausesAreListedFromTheOutside) {
  const auto failure = describe([] {
    try {
      try {
        throw std::invalid_argument("innermost");
      } catch (...) {
        std::throw_with_nested(std::runtime_error("middle"));
      }
    } catch (...) {
      std::throw_with_nested(std::logic_error("outermost"));
    }
  });
  EXPECT_EQ(failure.message, "outermost");
  EXPECT_THAT(
      failure.stack,
      testing::MatchesRegex("caused by .*std::runtime_error.*: middle\ncaused by std::invalid_argument: innermost\n"));
}

TEST(Failure, AForeignCauseIsMentioned) {
  const auto failure = describe([] {
    try {
      throw 42;
    } catch (...) {
      std::throw_with_nested(std::runtime_error("wrapped"));
    }
  });
  EXPECT_THAT(failure.stack, HasSubstr("not derived from std::exception"));
}

TEST(Failure, WhatIsNoExceptionIsDescribedByItsType) {
  const auto failure = describe([] { throw 42; });
  EXPECT_EQ(failure.error_type, "int");
  EXPECT_THAT(failure.message, HasSubstr("not derived from std::exception"));
  struct Strange {};
  EXPECT_THAT(describe([] { throw Strange{}; }).error_type, HasSubstr("Strange"));
}

}  // namespace
}  // namespace maestro::messaging

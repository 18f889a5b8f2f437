#include <set>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using testing::HasSubstr;

constexpr int first_code = static_cast<int>(errc::invalid_argument);
constexpr int last_code = static_cast<int>(errc::cannot_listen);

TEST(Error, EveryCodeHasANameAndASentenceOfItsOwn) {
  std::set<std::string_view> names;
  std::set<std::string> sentences;
  for (int code = first_code; code <= last_code; ++code) {
    const auto name = errc_name(static_cast<errc>(code));
    EXPECT_NE(name, "unknown") << code;
    EXPECT_TRUE(names.insert(name).second) << name;
    const auto sentence = make_error_code(static_cast<errc>(code)).message();
    EXPECT_THAT(sentence, testing::Not(HasSubstr("unknown error"))) << code;
    EXPECT_TRUE(sentences.insert(sentence).second) << sentence;
  }
  EXPECT_EQ(names.size(), 25U);
}

TEST(Error, CodesThatAreNoneSaySo) {
  EXPECT_EQ(errc_name(static_cast<errc>(0)), "unknown");
  EXPECT_EQ(errc_name(static_cast<errc>(last_code + 1)), "unknown");
  EXPECT_EQ(messaging_category().message(999), "unknown error 999");
  EXPECT_STREQ(messaging_category().name(), "maestro.messaging");
}

TEST(Error, OnlyWhatSurelyWasNotDoneMayBeRetried) {
  std::set<std::string_view> retriable;
  for (int code = first_code; code <= last_code; ++code)
    if (is_retriable(make_error_code(static_cast<errc>(code)))) retriable.insert(errc_name(static_cast<errc>(code)));
  EXPECT_THAT(retriable, testing::ElementsAre("circuit_open", "connection_failed", "queue_full", "timed_out",
                                              "transaction_aborted"));
}

TEST(Error, ForeignCodesAreNotRetriable) {
  EXPECT_FALSE(is_retriable({static_cast<int>(errc::timed_out), boost::system::generic_category()}));
  EXPECT_FALSE(is_retriable({}));
}

TEST(Error, SaysBothWhatHappenedAndWhatToDo) {
  const MessagingError error(errc::topic_not_found, "orders.created");
  EXPECT_EQ(error.reason(), errc::topic_not_found);
  EXPECT_EQ(error.detail(), "orders.created");
  EXPECT_THAT(error.what(), HasSubstr("orders.created"));
  EXPECT_THAT(error.what(), HasSubstr("allow auto_create_topics"));
  EXPECT_FALSE(error.retriable());
  EXPECT_FALSE(error.outcome_unknown());
}

TEST(Error, AnUnknownOutcomeIsItsOwnKind) {
  const MessagingError error(errc::outcome_unknown, "the connection broke");
  EXPECT_TRUE(error.outcome_unknown());
  EXPECT_FALSE(error.retriable());
}

TEST(Error, AnEnumeratorIsAnErrorCode) {
  const boost::system::error_code code = errc::closed;
  EXPECT_EQ(code, make_error_code(errc::closed));
  EXPECT_EQ(&code.category(), &messaging_category());
}

}  // namespace
}  // namespace maestro::messaging

#include <maestro/messaging/dead_letter.hpp>
#include <maestro/messaging/utf8.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using testing::ElementsAre;
using testing::Pair;
using unit::message_of;

std::vector<std::pair<std::string, std::string>> listed(HeadersView headers) {
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& [name, value] : headers) all.emplace_back(name, value);
  return all;
}

Failure failure() {
  return {.reason = DeadLetterReason::invalid,
          .error_type = "std::runtime_error",
          .message = "no such user",
          .stack = "caused by x\n",
          .attempts = 4,
          .first_failed_at = Timestamp(std::chrono::milliseconds(1'767'225'600'005)),
          .failed_at = Timestamp(std::chrono::milliseconds(1'767'225'601'250))};
}

/// The message as a broker would deliver it; the outgoing one must outlive it.
Message delivered(const OutgoingMessage& out) {
  return Message({.topic = out.topic,
                  .key = out.key ? std::optional<std::string_view>(*out.key) : std::nullopt,
                  .payload = out.payload.view(),
                  .headers = out.headers,
                  .position = {0, 99, {}}});
}

TEST(DeadLetter, CarriesTheMessageAndExactlyTheseHeaders) {
  const Headers headers{{"ce_id", "e1"}, {"trace", "t"}, {"trace", "u"}};
  const Message message(
      {.topic = "orders.created", .key = "k", .payload = "body", .headers = headers, .position = {2, 41, {}}});
  const auto out = make_dead_letter(message, "orders.created.billing.dlq", "billing", failure());
  EXPECT_EQ(out.topic, "orders.created.billing.dlq");
  EXPECT_EQ(out.key, "k");
  EXPECT_EQ(out.payload.view(), "body");
  EXPECT_EQ(out.partition, std::nullopt);
  EXPECT_THAT(
      listed(out.headers),
      ElementsAre(Pair("ce_id", "e1"), Pair("trace", "t"), Pair("trace", "u"), Pair("dlq-topic", "orders.created"),
                  Pair("dlq-group", "billing"), Pair("dlq-partition", "2"), Pair("dlq-position", "41"),
                  Pair("dlq-reason", "invalid"), Pair("dlq-error-type", "std::runtime_error"),
                  Pair("dlq-error-message", "no such user"), Pair("dlq-error-stack", "caused by x\n"),
                  Pair("dlq-attempts", "4"), Pair("dlq-first-failed-at", "2026-01-01T00:00:00.005Z"),
                  Pair("dlq-failed-at", "2026-01-01T00:00:01.250Z"), Pair("dlq-replay-count", "0")));
}

TEST(DeadLetter, ReadsBackWhatWasWritten) {
  const Message message({.topic = "t", .payload = "body", .position = {-1, -1, "1700000000000-0"}});
  const auto out = make_dead_letter(message, "t.g.dlq", "g", failure());
  const auto letter = read_dead_letter(delivered(out));
  ASSERT_TRUE(letter);
  EXPECT_EQ(letter->topic, "t");
  EXPECT_EQ(letter->group, "g");
  EXPECT_EQ(letter->partition, -1);
  EXPECT_EQ(letter->position, "1700000000000-0");
  EXPECT_EQ(letter->reason, DeadLetterReason::invalid);
  EXPECT_EQ(letter->error_type, "std::runtime_error");
  EXPECT_EQ(letter->error_message, "no such user");
  EXPECT_EQ(letter->error_stack, "caused by x\n");
  EXPECT_EQ(letter->attempts, 4);
  EXPECT_EQ(letter->failed_at, "2026-01-01T00:00:01.250Z");
  EXPECT_EQ(letter->replay_count, 0);
  EXPECT_EQ(letter->message.body(), "body");
}

TEST(DeadLetter, StackAndTextAreCutBetweenCharacters) {
  auto why = failure();
  why.message = "x" + std::string();
  for (int i = 0; i < 1000; ++i) why.message += "€";  // 1 + 3000 bytes
  why.stack = "yy";
  for (int i = 0; i < 5000; ++i) why.stack += "😀";
  const auto out = make_dead_letter(message_of("b"), "d", "g", why);
  EXPECT_EQ(out.headers.find("dlq-error-message")->size(), 1024U);  // 1 + 341 * 3
  EXPECT_EQ(out.headers.find("dlq-error-stack")->size(), 8190U);    // 2 + 2047 * 4
  EXPECT_TRUE(is_utf8(*out.headers.find("dlq-error-message")));
  EXPECT_TRUE(is_utf8(*out.headers.find("dlq-error-stack")));
}

TEST(DeadLetter, AMessageThatIsTooLongIsWholeInPlaceOfTheStack) {
  auto why = failure();
  why.stack.clear();
  why.message = std::string(3000, 'x') + " the end";
  const auto out = make_dead_letter(message_of("b"), "d", "g", why);
  EXPECT_EQ(out.headers.find("dlq-error-message")->size(), 1024U);
  EXPECT_EQ(*out.headers.find("dlq-error-stack"), why.message);
}

TEST(DeadLetter, TheCutIsRightAtEveryOffset) {
  for (std::size_t lead = 0; lead < 8; ++lead) {
    auto why = failure();
    why.message = std::string(1020 + lead, 'x') + "😀€é";
    const auto out = make_dead_letter(message_of("b"), "d", "g", why);
    const auto text = *out.headers.find("dlq-error-message");
    EXPECT_LE(text.size(), 1024U);
    EXPECT_TRUE(is_utf8(text)) << lead;
    EXPECT_GE(text.size(), std::min<std::size_t>(1020 + lead, 1024));
  }
}

TEST(DeadLetter, TextIsMadeWellFormedAndFreeOfControlCharacters) {
  auto why = failure();
  why.message = std::string("a\0b\x1b[31m\r\xff\n\tc\x7f", 14);
  why.error_type = "T\nX-Header: y\xC2\x9B";
  why.stack = "one\n\ttwo\x1b\xC2\x9B";
  const auto out = make_dead_letter(message_of("b"), "d", "g", why);
  EXPECT_EQ(out.headers.find("dlq-error-message"), "a b [31m \uFFFD  c ");
  EXPECT_EQ(out.headers.find("dlq-error-type"), "T X-Header: y ");
  EXPECT_EQ(out.headers.find("dlq-error-stack"), "one\n\ttwo  ") << "a stack keeps its lines";
}

TEST(DeadLetter, AnotherFailureReplacesTheHeadersOfTheFirst) {
  const auto first = make_dead_letter(message_of("b"), "d", "g", failure());
  const auto replay = make_replay(delivered(first), "new");
  const auto second = make_dead_letter(delivered(replay), "d", "h", failure());
  EXPECT_EQ(second.headers.find("dlq-group"), "h");
  EXPECT_EQ(second.headers.find("dlq-replay-count"), "1");
  EXPECT_EQ(second.headers.find("dlq-message-id"), "d/0/99");
  std::map<std::string, int> seen;
  for (const auto& [name, value] : second.headers) EXPECT_EQ(++seen[std::string(name)], 1) << name;
}

TEST(DeadLetter, ReplayHasAFreshIdAndLeavesTheFailureBehind) {
  const Headers headers{{"ce_id", "old"}, {"trace", "t"}};
  const Message message(
      {.topic = "orders.created", .key = "k", .payload = "body", .headers = headers, .position = {0, 1, {}}});
  const auto dead = make_dead_letter(message, "d", "g", failure());
  const auto replay = make_replay(delivered(dead), "fresh");
  EXPECT_EQ(replay.topic, "orders.created");
  EXPECT_EQ(replay.key, "k");
  EXPECT_EQ(replay.payload.view(), "body");
  EXPECT_THAT(listed(replay.headers), ElementsAre(Pair("trace", "t"), Pair("ce_id", "fresh"),
                                                  Pair("dlq-message-id", "old"), Pair("dlq-replay-count", "1")));
  EXPECT_EQ(delivered(replay).id(), "fresh");
}

TEST(DeadLetter, ReplayOfAPlainMessageGetsAPlainId) {
  const Headers headers{{"message-id", "old"}};
  const auto dead = make_dead_letter(message_of("b", headers), "d", "g", failure());
  const auto replay = make_replay(delivered(dead), "fresh");
  EXPECT_EQ(replay.headers.find("message-id"), "fresh");
  EXPECT_EQ(replay.headers.find("ce_id"), std::nullopt);
  EXPECT_EQ(replay.headers.find("dlq-message-id"), "old");
}

/// The replay count that is read from a header.
int replays(std::string_view text) {
  const Headers headers{{"dlq-topic", "t"},
                        {"dlq-group", "g"},
                        {"dlq-reason", "rejected"},
                        {"dlq-attempts", "1"},
                        {"dlq-replay-count", text}};
  const auto letter = read_dead_letter(message_of("", headers));
  EXPECT_TRUE(letter);
  return letter ? letter->replay_count : -1;
}

TEST(DeadLetter, CountsAreDigitsAndCapped) {
  EXPECT_EQ(replays("7"), 7);
  EXPECT_EQ(replays("0"), 0);
  EXPECT_EQ(replays("1000000"), 1'000'000);
  EXPECT_EQ(replays("1000001"), 1'000'000);
  EXPECT_EQ(replays("99999999999999999999999"), 1'000'000);
  for (const auto* bad :
       {"", "007", "-1", "+1", " 1", "1 ", "1x", "0x1", "1.0", "99999999999999999999999x", "-99999999999999999999999"})
    EXPECT_EQ(replays(bad), 1'000'000) << "what cannot be read does not start the count anew: " << bad;
}

TEST(DeadLetter, AMalformedReplayCountStaysAtTheLimit) {
  const Headers headers{{"dlq-topic", "t"}, {"dlq-replay-count", "zero"}};
  EXPECT_EQ(make_replay(message_of("", headers), "n").headers.find("dlq-replay-count"), "1000000");
  EXPECT_EQ(make_dead_letter(message_of("", headers), "d", "g", failure()).headers.find("dlq-replay-count"), "1000000");
}

TEST(DeadLetter, TheReplayCountStopsAtItsCap) {
  const Headers headers{{"dlq-topic", "t"}, {"dlq-replay-count", "1000000"}};
  EXPECT_EQ(make_replay(message_of("", headers), "n").headers.find("dlq-replay-count"), "1000000");
}

TEST(DeadLetter, WhatIsNoneIsNotRead) {
  const Headers good{{"dlq-topic", "t"}, {"dlq-group", "g"}, {"dlq-reason", "rejected"}, {"dlq-attempts", "1"}};
  EXPECT_TRUE(read_dead_letter(message_of("", good)));
  for (const auto* name : {"dlq-topic", "dlq-group", "dlq-reason", "dlq-attempts"}) {
    auto lacking = good;
    lacking.remove(name);
    EXPECT_FALSE(read_dead_letter(message_of("", lacking))) << name;
  }
  for (const auto& [name, value] : {Header{"dlq-topic", ""}, Header{"dlq-group", ""}, Header{"dlq-reason", "boredom"},
                                    Header{"dlq-attempts", "many"}}) {
    auto strange = good;
    strange.set(name, value);
    EXPECT_FALSE(read_dead_letter(message_of("", strange))) << name;
  }
  EXPECT_FALSE(read_dead_letter(message_of("")));
}

TEST(DeadLetter, HeadersThatAnotherProgramNamedStay) {
  const std::string name = "x y";
  const std::uint32_t lengths[2] = {3, 1};
  const auto block = std::string(reinterpret_cast<const char*>(lengths), sizeof lengths) + name + "1";
  const auto message = message_of("b", HeadersView(block));
  const auto dead = make_dead_letter(message, "d", "g", failure());
  EXPECT_EQ(dead.headers.find("x y"), "1");
  EXPECT_EQ(make_replay(delivered(dead), "n").headers.find("x y"), "1");
}

TEST(DeadLetter, NamesAndReasons) {
  EXPECT_EQ(dead_letter_topic("orders.created", "billing"), "orders.created.billing.dlq");
  for (const auto reason : {DeadLetterReason::retries_exhausted, DeadLetterReason::rejected,
                            DeadLetterReason::undecodable, DeadLetterReason::invalid})
    EXPECT_EQ(parse_dead_letter_reason(to_string(reason)), reason);
  EXPECT_EQ(parse_dead_letter_reason("Rejected"), std::nullopt);
  EXPECT_EQ(parse_dead_letter_reason(""), std::nullopt);
}

}  // namespace
}  // namespace maestro::messaging

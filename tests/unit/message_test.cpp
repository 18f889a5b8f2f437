#include <boost/json/serialize.hpp>

#include "unit/unit.hpp"

namespace maestro::messaging {
namespace {

using testing::HasSubstr;
using unit::message_of;
using unit::refusal;

TEST(Message, IdIsTheCloudEventsIdFirst) {
  const Headers headers{{"message-id", "m"}, {"ce_id", "c"}};
  EXPECT_EQ(message_of("", headers).id(), "c");
}

TEST(Message, IdFallsBackToMessageId) {
  const Headers headers{{"message-id", "m"}};
  EXPECT_EQ(message_of("", headers).id(), "m");
}

TEST(Message, IdFallsBackToThePlaceOnTheBroker) {
  EXPECT_EQ(message_of("").id(), "orders.created/0/7");
  const Message stream({.topic = "t", .position = {-1, -1, "1700000000000-0"}});
  EXPECT_EQ(stream.id(), "t/1700000000000-0");
  const Message partitioned({.topic = "t", .position = {3, -1, "1700000000000-0"}});
  EXPECT_EQ(partitioned.id(), "t/3/1700000000000-0");
}

TEST(Message, AnEmptyIdIsNone) {
  const Headers both{{"message-id", "m"}, {"ce_id", ""}};
  EXPECT_EQ(message_of("", both).id(), "m");
  const Headers empty{{"message-id", ""}};
  EXPECT_EQ(message_of("", empty).id(), "orders.created/0/7");
}

TEST(Message, ValueReadsJson) {
  EXPECT_EQ(message_of(R"( {"a":[1,2.5,"x",null,true]} )").value().at("a").at(1).as_double(), 2.5);
  EXPECT_EQ(message_of("7").value().as_int64(), 7);
}

TEST(Message, ValueSaysWhereTheFirstMistakeIs) {
  struct Case {
    std::string body;
    int byte;
  };
  const std::vector<Case> cases{{"", 0},    {R"({"a":x})", 5}, {"[1,2", 4},
                                {"1 2", 2}, {"{\"a\":1}}", 7}, {"[\"\xff\"]", 2}};
  for (const auto& [body, byte] : cases) {
    const auto why = refusal(errc::undecodable, [&] { (void)message_of(body).value(); });
    EXPECT_THAT(why, HasSubstr("orders.created at 0/7: not JSON at byte " + std::to_string(byte) + ":")) << body;
  }
}

TEST(Message, ValueIsBoundedInDepth) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW((void)message_of(nested(32)).value());
  EXPECT_THAT(refusal(errc::undecodable, [&] { (void)message_of(nested(33)).value(); }),
              HasSubstr("not JSON at byte 32"));
  refusal(errc::undecodable, [&] { (void)message_of(std::string(1'000'000, '[')).value(); });
}

TEST(Message, PayloadOutlivesTheMessage) {
  auto owner = std::make_shared<const std::string>("the bytes");
  const std::weak_ptr<const std::string> bytes = owner;
  Payload kept;
  {
    const Message message({.topic = "t", .payload = *owner, .owner = owner});
    kept = message.payload();
    EXPECT_EQ(kept.data(), owner->data());
  }
  owner.reset();
  EXPECT_EQ(kept.to_string(), "the bytes");
  kept = {};
  EXPECT_TRUE(bytes.expired());
}

TEST(Message, IsEmptyWhenItWasMovedFrom) {
  Message message({.topic = "t", .key = "k", .payload = "the bytes", .delivery_count = 2});
  const auto taken = std::move(message);
  EXPECT_EQ(taken.body(), "the bytes");
  EXPECT_EQ(message.topic(), "");  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(message.key(), std::nullopt);
  EXPECT_EQ(message.payload().to_string(), "");
  EXPECT_EQ(message.delivery_count(), 1U);
}

TEST(Message, RedeliveredFromTheSecondDeliveryOn) {
  EXPECT_FALSE(message_of("").redelivered());
  EXPECT_TRUE(Message({.topic = "t", .delivery_count = 2}).redelivered());
}

TEST(PublishResult, ValueIsTheReceiptOrTheReason) {
  const PublishResult good{.receipt = {.topic = "t", .offset = 4}};
  EXPECT_EQ(good.value().offset, 4);
  const PublishResult bad{.error = errc::message_too_large, .detail = "2 bytes, at most 1"};
  EXPECT_FALSE(bad.ok());
  EXPECT_EQ(refusal(errc::message_too_large, [&] { (void)bad.value(); }), "2 bytes, at most 1");
}

TEST(PublishResult, ACodeOfAnotherLibraryIsTheBrokersVerdict) {
  const PublishResult bad{.error = {1, boost::system::generic_category()}, .detail = "EPERM"};
  EXPECT_EQ(refusal(errc::broker_error, [&] { (void)bad.value(); }), "EPERM");
}

}  // namespace
}  // namespace maestro::messaging

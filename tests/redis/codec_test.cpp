#include <gmock/gmock.h>

#include <random>

#include "brokers/redis/address.hpp"
#include "brokers/redis/entry.hpp"
#include "brokers/redis/failure.hpp"

namespace maestro::messaging::redis {
namespace {

using namespace std::string_literals;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(RedisCodec, ReadsEveryKindOfReplyHoweverItIsCut) {
  const std::string bytes = "+OK\r\n-ERR no\r\n:42\r\n$5\r\nhello\r\n$-1\r\n*2\r\n$1\r\na\r\n*1\r\n:7\r\n*0\r\n*-1\r\n$0\r\n\r\n";
  for (std::size_t part = 1; part <= bytes.size(); ++part) {
    ReplyReader reader;
    std::vector<Value::Type> types;
    std::string texts;
    for (std::size_t at = 0; at < bytes.size(); at += part) {
      reader.feed(std::string_view(bytes).substr(at, part));
      while (const auto* reply = reader.next()) {
        types.push_back(reply->type);
        texts += reply->text;
        if (reply->type == Value::Type::array && reply->count == 2) {
          EXPECT_EQ(reply->items()[0].text, "a");
          EXPECT_EQ(reply->items()[1].items()[0].number, 7);
        }
        if (reply->type == Value::Type::integer) EXPECT_EQ(reply->number, 42);
      }
    }
    using enum Value::Type;
    EXPECT_EQ(types, (std::vector{status, error, integer, text, nil, array, array, nil, text})) << part;
    EXPECT_EQ(texts, "OKERR nohello");
  }
}

TEST(RedisCodec, KeepsAReplyWhileTheNextAreRead) {
  ReplyReader reader;
  reader.feed("*1\r\n$3\r\none\r\n*1\r\n$3\r\ntwo\r\n");
  const auto first = *reader.next();
  const auto owner = reader.keep();
  reader.next();
  EXPECT_EQ(first.items()[0].text, "one");
}

TEST(RedisCodec, ReadsAReplyOfAHundredMegabytes) {
  ReplyReader reader;
  const std::string big(100'000'000, 'x');
  reader.feed("*2\r\n$100000000\r\n");
  for (std::size_t at = 0; at < big.size(); at += 1'000'000) {
    EXPECT_EQ(reader.next(), nullptr);
    reader.feed(std::string_view(big).substr(at, 1'000'000));
  }
  reader.feed("\r\n:1\r\n");
  const auto* reply = reader.next();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->items()[0].text, big);
  EXPECT_EQ(reader.next(), nullptr);
}

TEST(RedisCodec, RefusesWhatIsNoReply) {
  for (const auto* bytes : {"hello\r\n", "*99999999999\r\n", "$abc\r\n", "*2147483647\r\n", ":\r\n"}) {
    ReplyReader reader;
    reader.feed(bytes);
    EXPECT_THROW(reader.next(), MessagingError) << bytes;
  }
}

TEST(RedisCodec, WritesCommands) {
  std::string out;
  append_command(out, {"XACK", "", std::string_view("a\0b", 3)});
  EXPECT_EQ(out, "*3\r\n$4\r\nXACK\r\n$0\r\n\r\n$3\r\na\0b\r\n"s);
}

TEST(RedisEntry, IdsAreNumbersInTheirOrderAndBack) {
  EXPECT_EQ(EntryId::parse("1700000000000-5"), (EntryId{1700000000000, 5}));
  for (const auto* wrong : {"", "1", "-", "1-", "-1", "1-2-3", "1-2 ", "a-b", "99999999999999999999-1"})
    EXPECT_FALSE(EntryId::parse(wrong)) << wrong;
  std::mt19937_64 random(3);
  EntryId last{1, 0};
  for (int i = 0; i < 1000; ++i) {
    const EntryId next = random() % 2 ? EntryId{last.ms, last.number + 1} : EntryId{last.ms + random() % 1000 + 1, random() % 4'000'000};
    EXPECT_LT(last.to_offset(), next.to_offset());
    EXPECT_EQ(EntryId::from_offset(next.to_offset()), next);
    last = next;
  }
}

/// An entry as the server would give the message back.
Message round_trip(const OutgoingMessage& message) {
  std::string command;
  append_add(command, message);
  ReplyReader words;
  words.feed(command);
  const auto* sent = words.next();
  std::string reply = "*1\r\n";
  append_count(reply, 2);
  append_word(reply, "1700000000000-3");
  append_count(reply, sent->count - 3);
  for (const auto& word : sent->items().subspan(3)) append_word(reply, word.text);
  ReplyReader reader;
  reader.feed(reply);
  const auto entry = read_entry(reader.next()->items()[0]);
  EntryBatch batch("orders", reader.keep());
  batch.add(*entry, {1, 2}, 4);
  std::vector<Message> messages;
  batch.take(messages);
  return messages.at(0);
}

TEST(RedisEntry, AMessageComesBackAsItWas) {
  OutgoingMessage message{.topic = "orders", .payload = Payload("{}"), .key = std::string("k\0y", 3)};
  message.headers = {{"ce_id", "1"}, {"payload", "a header of this name"}, {"key", ""}, {"timestamp", "3"}};
  message.timestamp = Timestamp(std::chrono::milliseconds(1'600'000'000'123));
  const auto back = round_trip(message);
  EXPECT_EQ(back.body(), "{}");
  EXPECT_EQ(back.key(), *message.key);
  EXPECT_EQ(back.headers().block(), message.headers.block());
  EXPECT_EQ(back.timestamp(), *message.timestamp);
  EXPECT_EQ(back.position().text, "1700000000000-3");
  EXPECT_EQ(back.delivery_count(), 4U);
  EXPECT_EQ(round_trip({.topic = "orders", .payload = Payload("")}).timestamp(), Timestamp(std::chrono::milliseconds(1'700'000'000'000)));
}

TEST(RedisEntry, ForeignEntriesAreJsonOfTheirFields) {
  ReplyReader reader;
  reader.feed("*2\r\n$3\r\n1-1\r\n*4\r\n$8\r\norder_id\r\n$1\r\n7\r\n$4\r\nname\r\n$2\r\n\"x\r\n");
  const auto entry = read_entry(*reader.next());
  EntryBatch batch("orders", reader.keep());
  batch.add(*entry, {}, 1);
  std::vector<Message> messages;
  batch.take(messages);
  EXPECT_EQ(messages.at(0).value(), (boost::json::value{{"order_id", "7"}, {"name", "\"x"}}));
}

TEST(RedisEntry, NothingOfAForeignEntryIsLost) {
  ReplyReader reader;
  std::string reply = "*2\r\n$3\r\n1-1\r\n";
  append_count(reply, 10);
  for (const auto* word : {"a", "1", "a", "2", "a", "3", "raw", "\xff\x01", "\xfe", "x"}) append_word(reply, word);
  reader.feed(reply);
  const auto entry = read_entry(*reader.next());
  EntryBatch batch("orders", reader.keep());
  batch.add(*entry, {}, 1);
  std::vector<Message> messages;
  batch.take(messages);
  EXPECT_EQ(messages.at(0).value(),
            (boost::json::value{{"a", {"1", "2", "3"}}, {"raw_base64", "/wE="}, {"/g==_name_base64", "x"}}));
}

Address address_of(const std::string& text, ConfigMap connection = {}) {
  MessagingConfig config;
  config.broker_type = BrokerType::redis;
  config.connection_config = std::move(connection);
  return parse_address(text, Options(config));
}

TEST(RedisAddress, IsReadInAllItsForms) {
  EXPECT_EQ(address_of("redis://localhost").shown(), "localhost:6379");
  EXPECT_EQ(address_of("localhost:7000").port, 7000);
  const auto full = address_of("rediss://al%40ice:p%3Aw@[::1]:7001/3");
  EXPECT_TRUE(full.tls);
  EXPECT_EQ(full.user, "al@ice");
  EXPECT_EQ(full.password, "p:w");
  EXPECT_EQ(full.shown(), "::1:7001");
  EXPECT_EQ(full.database, 3);
  EXPECT_EQ(address_of("redis://:secret@h").password, "secret");
  EXPECT_EQ(address_of("unix:///run/redis.sock").socket, "/run/redis.sock");
  const auto local = address_of("unix:///run/redis.sock?db=4", {{"database", 5}});
  EXPECT_EQ(local.socket, "/run/redis.sock");
  EXPECT_EQ(local.database, 4);
  EXPECT_EQ(address_of("redis://h", {{"database", 5}, {"username", "u"}, {"password", "p"}}).database, 5);
  EXPECT_EQ(address_of("redis://h/2", {{"database", 5}}).database, 2);
}

TEST(RedisAddress, SaysWhatIsWrongWithoutThePassword) {
  for (const auto& [text, why] :
       std::vector<std::pair<std::string, std::string>>{{"redis://", "no host"},
                                                        {"redis://h:0", "the port is no number"},
                                                        {"redis://h:99999", "the port is no number"},
                                                        {"redis://h/x", "the database is no number"},
                                                        {"redis://u:hush%zz@h", "hexadecimal"},
                                                        {"redis://u:hush@h?x=1", "options belong"},
                                                        {"redis://[::1", "a [ without"},
                                                        {"redis://[::1]x6379", "behind the ]"},
                                                        {"unix://relative", "no absolute path"},
                                                        {"unix:///run/redis.sock?db=x", "the database is no number"},
                                                        {"unix:///run/redis.sock?x=4", "options belong"},
                                                        {"http://h", "an unknown scheme"}}) {
    try {
      address_of(text);
      ADD_FAILURE() << text;
    } catch (const MessagingError& failure) {
      EXPECT_EQ(failure.reason(), errc::invalid_option);
      EXPECT_THAT(failure.what(), HasSubstr(why)) << text;
      EXPECT_THAT(failure.what(), HasSubstr("allowed are redis://"));
      EXPECT_THAT(failure.what(), Not(HasSubstr("hush")));
    }
  }
}

TEST(RedisFailure, KnowsWhatPassesAndWhatDoesNot) {
  EXPECT_EQ(describe("LOADING Redis is loading the dataset in memory", "x").code, errc::connection_failed);
  EXPECT_EQ(describe("READONLY You can't write against a read only replica.", "x").code, errc::connection_failed);
  EXPECT_EQ(describe("OOM command not allowed when used memory > 'maxmemory'.", "x").code, errc::queue_full);
  EXPECT_EQ(describe("WRONGPASS invalid username-password pair", "x").code, errc::authentication_failed);
  EXPECT_EQ(describe("ERR something", "x").code, errc::broker_error);
  EXPECT_THAT(describe("ERR something", "publishing").detail, HasSubstr("publishing: ERR something"));
}

}  // namespace
}  // namespace maestro::messaging::redis

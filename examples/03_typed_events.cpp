// Events as structs: written by Boost.Describe, checked field by field when they arrive.
#include <fmt/format.h>

#include <maestro/messaging.hpp>

using namespace maestro::messaging;

enum class Plan { basic, premium };
BOOST_DESCRIBE_ENUM(Plan, basic, premium)

struct Address {
  std::string city;
  std::optional<std::string> street;
};
BOOST_DESCRIBE_STRUCT(Address, (), (city, street))

struct UserCreated {
  int user_id = 0;
  std::string email;
  Plan plan = Plan::basic;
  Address address;
  std::vector<std::string> roles;
};
BOOST_DESCRIBE_STRUCT(UserCreated, (), (user_id, email, plan, address, roles))

awaitable<void> typed_events() {
  MessageBroker broker{co_await boost::asio::this_coro::executor, BrokerType::memory, "memory://typed"};
  EventPublisher publisher{broker};
  co_await publisher.publish("user.created",
                             UserCreated{123, "ada@example.com", Plan::premium, {"London", {}}, {"admin"}});
  // Another program's event, with three fields that do not fit. It never reaches the handler.
  co_await broker.publish(
      "user.created",
      {{"user_id", "x"}, {"plan", "gold"}, {"address", {{"city", "Paris"}}}, {"roles", Value(boost::json::array())}});
  co_await publisher.publish("user.created",
                             UserCreated{124, "bob@example.com", Plan::basic, {"Oslo", "Storgata 1"}, {}});

  EventConsumer consumer{broker, {.group_id = "mail"}};
  consumer.subscribe<UserCreated>("user.created", [&consumer](const UserCreated& user) -> awaitable<void> {
    fmt::print("welcome {} of {}, {}\n", user.email, user.address.city,
               user.plan == Plan::premium ? "premium" : "basic");
    if (user.user_id == 124) consumer.stop();
    co_return;
  });
  co_await consumer.start();

  DeadLetters dead_letters{broker, "user.created.mail.dlq"};
  for (const auto& letter : co_await dead_letters.list())
    fmt::print("refused, {}: {}\n", to_string(letter.reason), letter.error_message);
}

int main() {
  return run(typed_events());
}

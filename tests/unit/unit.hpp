#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/message.hpp>
#include <optional>
#include <string>
#include <utility>

namespace maestro::messaging::unit {

/// The detail of the `MessagingError` that `work` throws; fails the test when it throws none, or one of another kind.
template <class Work>
std::string refusal(errc expected, Work&& work) {
  try {
    std::forward<Work>(work)();
  } catch (const MessagingError& error) {
    EXPECT_EQ(errc_name(error.reason()), errc_name(expected)) << error.what();
    return error.detail();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another exception: " << error.what();
    return {};
  }
  ADD_FAILURE() << "nothing was thrown; expected " << errc_name(expected);
  return {};
}

/// A message at `topic/0/7` whose text must outlive it.
inline Message message_of(std::string_view body, HeadersView headers = {}, std::string_view topic = "orders.created") {
  return Message({.topic = topic, .payload = body, .headers = headers, .position = {0, 7, {}}});
}

/// An environment variable for the time of a test; null unsets it.
class EnvironmentVariable {
 public:
  EnvironmentVariable(std::string name, const char* value) : name_(std::move(name)) {
    if (const auto* before = std::getenv(name_.c_str())) before_ = before;
    change(value);
  }
  ~EnvironmentVariable() { change(before_ ? before_->c_str() : nullptr); }
  EnvironmentVariable(const EnvironmentVariable&) = delete;
  EnvironmentVariable& operator=(const EnvironmentVariable&) = delete;

 private:
  void change(const char* value) {
    if (value) {
      ::setenv(name_.c_str(), value, 1);
    } else {
      ::unsetenv(name_.c_str());
    }
  }
  std::string name_;
  std::optional<std::string> before_;
};

}  // namespace maestro::messaging::unit

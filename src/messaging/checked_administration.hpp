#pragma once

#include <maestro/messaging/topic.hpp>
#include <maestro/messaging/transport.hpp>

namespace maestro::messaging {

/// A transport's administration, to which only topics get through: no pattern, and no name that nobody could publish
/// to.
class CheckedAdministration final : public Administration {
 public:
  explicit CheckedAdministration(Administration& transport) : transport_(transport) {}

  awaitable<std::vector<std::string>> list_topics() override {
    auto names = co_await transport_.list_topics();
    std::erase_if(names, [](const std::string& name) { return !is_topic(name); });
    co_return names;
  }
  awaitable<TopicInfo> describe_topic(std::string topic) override {
    validate_topic(topic);
    co_return co_await transport_.describe_topic(std::move(topic));
  }
  awaitable<void> create_topic(std::string topic, TopicSettings settings) override {
    validate_topic(topic);
    co_await transport_.create_topic(std::move(topic), std::move(settings));
  }
  awaitable<void> delete_topic(std::string topic) override {
    validate_topic(topic);
    co_await transport_.delete_topic(std::move(topic));
  }
  awaitable<std::int64_t> purge_topic(std::string topic) override {
    validate_topic(topic);
    co_return co_await transport_.purge_topic(std::move(topic));
  }

 private:
  Administration& transport_;
};

}  // namespace maestro::messaging

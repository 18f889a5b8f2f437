#include "brokers/redis/channel_publisher.hpp"

#include <fmt/format.h>

#include "brokers/redis/channel.hpp"

namespace maestro::messaging::redis {

ChannelPublisher::ChannelPublisher(std::shared_ptr<Session> session)
    : Publisher(std::move(session)),
      envelope_(session_->options.boolean("pubsub_envelope")),
      require_routing_(session_->options.boolean("require_routing")) {}

std::optional<Failure> ChannelPublisher::refusal(const OutgoingMessage& message) const {
  if (auto refused = Publisher::refusal(message)) return refused;
  if (envelope_) return std::nullopt;
  if (const auto lost = lost_without_envelope(message))
    return Failure{errc::invalid_argument,
                   fmt::format("{}: with mode=pubsub a channel carries the payload alone; leave it out, or set pubsub_envelope", *lost)};
  return std::nullopt;
}

void ChannelPublisher::append(std::string& to, const OutgoingMessage& message) {
  if (topic_ != message.topic || beginning_.empty()) {
    topic_ = message.topic;
    beginning_ = publish_to(topic_);
  }
  append_publish(to, beginning_, message, envelope_);
}

void ChannelPublisher::confirm(PublishResult& result, OutgoingMessage& message, const Value& reply) {
  if (reply.number == 0 && require_routing_) {
    refuse(result, {errc::not_routed, fmt::format("nobody listened to \"{}\" (require_routing)", message.topic)});
    return;
  }
  result.receipt.topic = std::move(message.topic);
  result.receipt.routed = reply.number > 0;
}

}  // namespace maestro::messaging::redis

#pragma once

#include <maestro/messaging/message.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace maestro::messaging::redis {

/// Appends the `PUBLISH` of a message: its payload alone, or in an envelope that has its key and headers too:
/// `{"maestro":1,"key":…,"headers":[[name,value],…],"payload":text}`, with `payload_base64` for bytes that are no UTF-8.
/// `beginning_of_command` is `publish_to` of its topic.
void append_publish(std::string& to, std::string_view beginning_of_command, const OutgoingMessage& message, bool envelope);
[[nodiscard]] std::string publish_to(std::string_view topic);

/// What of a message a bare payload cannot carry, in words; none when that is nothing but what the library adds by itself.
[[nodiscard]] std::optional<std::string> lost_without_envelope(const OutgoingMessage& message);

/// The glob of Redis that lets through every topic that ours matches, and others: its `*` does not end at a dot.
[[nodiscard]] std::string glob_of(std::string_view pattern);

/// Messages of channels that came together. What comes in an envelope is taken out of it, whoever put it there.
class ChannelBatch {
 public:
  void add(std::string_view channel, std::string_view payload);
  [[nodiscard]] std::size_t size() const noexcept { return items_.size(); }
  /// All that was added, in order. `number`: how many came before, which is the offset of the next.
  void take(std::vector<Message>& into, std::uint64_t& number, Timestamp now);

 private:
  struct Envelope {
    std::optional<std::string> key;
    Headers headers;
    std::string payload;
  };
  struct Item {
    std::size_t channel;  // where it begins in the text; the payload follows it
    std::size_t channel_size;
    std::size_t payload_size;
    std::shared_ptr<const Envelope> envelope;
  };
  static std::shared_ptr<const Envelope> open(std::string_view text);

  std::shared_ptr<std::string> text_;
  std::vector<Item> items_;
};

}  // namespace maestro::messaging::redis

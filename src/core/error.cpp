#include <fmt/format.h>

#include <maestro/messaging/error.hpp>

namespace maestro::messaging {
namespace {

struct Entry {
  errc code;
  std::string_view name;
  const char* sentence;
  bool retriable;
};

constexpr Entry entries[] = {
    {errc::invalid_argument, "invalid_argument", "the argument is not allowed", false},
    {errc::invalid_topic, "invalid_topic", "the topic's name is not allowed", false},
    {errc::unknown_option, "unknown_option", "no such option; see `maestro config`", false},
    {errc::invalid_option, "invalid_option", "the option's value is not allowed; see `maestro config`", false},
    {errc::unsupported, "unsupported", "the broker cannot do this", false},
    {errc::message_too_large, "message_too_large", "the message is over the size limit and was not sent", false},
    {errc::connection_failed, "connection_failed", "the broker was not reached; nothing was done", true},
    {errc::authentication_failed, "authentication_failed", "the broker refused the credentials", false},
    {errc::tls_failed, "tls_failed", "no TLS connection came about", false},
    {errc::timed_out, "timed_out", "the time ran out; nothing was done", true},
    {errc::outcome_unknown, "outcome_unknown", "the broker may or may not have done it; find out before you repeat it",
     false},
    {errc::queue_full, "queue_full", "the queue stayed full; nothing was sent", true},
    {errc::circuit_open, "circuit_open", "the circuit breaker is open; nothing was sent", true},
    {errc::not_routed, "not_routed", "nobody was there to get the message", false},
    {errc::undecodable, "undecodable", "the payload is not what its format says", false},
    {errc::invalid_event, "invalid_event", "the fields do not fit the event's type", false},
    {errc::rejected, "rejected", "the handler refused the message for good", false},
    {errc::closed, "closed", "it was closed", false},
    {errc::already_started, "already_started", "it is running already", false},
    {errc::topic_not_found, "topic_not_found", "the topic does not exist; create it, or allow auto_create_topics",
     false},
    {errc::already_exists, "already_exists", "it is there already", false},
    {errc::transaction_aborted, "transaction_aborted", "nothing of the transaction took effect", true},
    {errc::not_owned, "not_owned", "it belongs to another member", false},
    {errc::broker_error, "broker_error", "the broker refused it", false},
    {errc::cannot_listen, "cannot_listen", "the address is not free, or not this machine's; choose another", false},
};

const Entry* find(int code) noexcept {
  for (const auto& entry : entries)
    if (static_cast<int>(entry.code) == code) return &entry;
  return nullptr;
}

class Category final : public boost::system::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "maestro.messaging"; }
  [[nodiscard]] std::string message(int code) const override {
    const auto* entry = find(code);
    return entry ? entry->sentence : fmt::format("unknown error {}", code);
  }
};

}  // namespace

const boost::system::error_category& messaging_category() noexcept {
  static const Category category;
  return category;
}

boost::system::error_code make_error_code(errc code) noexcept {
  return {static_cast<int>(code), messaging_category()};
}

std::string_view errc_name(errc code) noexcept {
  const auto* entry = find(static_cast<int>(code));
  return entry ? entry->name : "unknown";
}

bool is_retriable(const boost::system::error_code& code) noexcept {
  if (code.category() != messaging_category()) return false;
  const auto* entry = find(code.value());
  return entry && entry->retriable;
}

MessagingError::MessagingError(errc code, const std::string& detail)
    : boost::system::system_error(make_error_code(code), detail),
      detail_(detail),
      what_(fmt::format("{} ({})", detail, this->code().message())) {}

}  // namespace maestro::messaging

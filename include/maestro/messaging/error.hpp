#pragma once

#include <boost/system/system_error.hpp>
#include <string>
#include <string_view>

namespace maestro::messaging {

/// Every way in which the library says no. `message()` of each says what to do next.
enum class errc {
  invalid_argument = 1,     ///< A parameter that no broker would accept.
  invalid_topic,            ///< A name that is no topic, or that this broker cannot carry.
  unknown_option,           ///< A configuration key that is not in the options table.
  invalid_option,           ///< A configuration value of the wrong type or out of range.
  unsupported,              ///< A promise that this broker cannot keep; refused at start.
  message_too_large,        ///< Over the broker's or the configured limit; surely not sent.
  connection_failed,        ///< The broker could not be reached or the connection broke; surely not done.
  authentication_failed,    ///< The broker refused the credentials.
  tls_failed,               ///< The certificate could not be verified.
  timed_out,                ///< The time allowed ran out; surely not done.
  outcome_unknown,          ///< The broker may or may not have it: nobody can tell.
  queue_full,               ///< A bounded queue stayed full until the deadline; surely not done.
  circuit_open,             ///< The circuit breaker is open; nothing was sent.
  not_routed,               ///< The broker has no queue for the message.
  undecodable,              ///< The payload is not what its format says.
  invalid_event,            ///< Decoded, but the fields do not fit the event's type.
  rejected,                 ///< The handler refused the message for good.
  closed,                   ///< The object was closed or disconnected.
  already_started,          ///< `start()` while it is running.
  topic_not_found,          ///< The topic does not exist and may not be created.
  already_exists,           ///< What was to be created is there already.
  transaction_aborted,      ///< Nothing of the transaction took effect.
  not_owned,                ///< The delivery is no longer this member's to settle.
  broker_error,             ///< The broker's own verdict; its text travels along.
  cannot_listen,            ///< The monitoring endpoint's address or port is not to be had.
};

const boost::system::error_category& messaging_category() noexcept;
boost::system::error_code make_error_code(errc code) noexcept;
/// The enumerator as text, for metrics and machine-readable output.
std::string_view errc_name(errc code) noexcept;

/// Whether trying again later can help. A property of the error, not of the caller's hope.
bool is_retriable(const boost::system::error_code& code) noexcept;

/// Every exception that the library throws. `code()` is an `errc` in `messaging_category()`;
/// `what()` says what was wrong, with which value, and what is allowed. Never holds a password.
class MessagingError : public boost::system::system_error {
 public:
  MessagingError(errc code, const std::string& detail);

  /// The detail, and what the code means.
  [[nodiscard]] const char* what() const noexcept override { return what_.c_str(); }
  [[nodiscard]] errc reason() const noexcept { return static_cast<errc>(code().value()); }
  [[nodiscard]] bool retriable() const noexcept { return is_retriable(code()); }
  /// True when the broker may have done what was asked, although it never said so.
  [[nodiscard]] bool outcome_unknown() const noexcept { return reason() == errc::outcome_unknown; }
  /// What was wrong, without the category's sentence.
  [[nodiscard]] const std::string& detail() const noexcept { return detail_; }

 private:
  std::string detail_;
  std::string what_;
};

}  // namespace maestro::messaging

template <>
struct boost::system::is_error_code_enum<maestro::messaging::errc> : std::true_type {};

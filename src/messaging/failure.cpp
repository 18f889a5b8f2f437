#include "messaging/failure.hpp"

#include <cxxabi.h>
#include <fmt/format.h>

#include <boost/core/demangle.hpp>
#include <maestro/messaging/consumer.hpp>
#include <typeinfo>

namespace maestro::messaging {
namespace {

DeadLetterReason reason_of(errc code) {
  switch (code) {
    case errc::rejected:
      return DeadLetterReason::rejected;
    case errc::undecodable:
      return DeadLetterReason::undecodable;
    case errc::invalid_event:
      return DeadLetterReason::invalid;
    default:
      return DeadLetterReason::retries_exhausted;
  }
}

void append_nested(std::string& stack, const std::exception& error) {
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception& cause) {
    stack += fmt::format("caused by {}: {}\n", boost::core::demangle(typeid(cause).name()), cause.what());
    append_nested(stack, cause);
  } catch (...) {
    stack += "caused by an exception that is not derived from std::exception\n";
  }
}

}  // namespace

Failure describe_failure(const std::exception_ptr& error) {
  Failure failure;
  failure.reason = DeadLetterReason::retries_exhausted;
  try {
    std::rethrow_exception(error);
  } catch (const HandlerError& known) {
    failure.reason = reason_of(known.reason());
    failure.error_type = known.type();
    failure.message = known.detail();
    failure.stack = known.stack();
  } catch (const MessagingError& known) {
    failure.reason = reason_of(known.reason());
    failure.error_type = boost::core::demangle(typeid(known).name());
    failure.message = known.detail();
    append_nested(failure.stack, known);
  } catch (const std::exception& known) {
    failure.error_type = boost::core::demangle(typeid(known).name());
    failure.message = known.what();
    append_nested(failure.stack, known);
  } catch (const std::string& text) {
    failure.error_type = "std::string";
    failure.message = text;
  } catch (std::string_view text) {
    failure.error_type = "std::string_view";
    failure.message = text;
  } catch (const char* text) {
    failure.error_type = "const char*";
    failure.message = text ? text : "";
  } catch (...) {
    const auto* type = abi::__cxa_current_exception_type();
    failure.error_type = type ? boost::core::demangle(type->name()) : "unknown";
    failure.message = "the handler threw something that is not derived from std::exception";
  }
  return failure;
}

}  // namespace maestro::messaging

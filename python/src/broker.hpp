#pragma once

#include "binding.hpp"

namespace maestro::python {

/// A broker of one loop's.
class Broker {
 public:
  Broker(Loop& of, const MessagingConfig& config) : loop(of.foreign()), broker(of.executor(), with_clock(config, of)) {}

  nb::object send(OutgoingMessage message, bool confirm) {
    require_not_forked();
    auto receipt = broker.try_publish(message, confirm);
    if (!confirm) ++unflushed;
    if (receipt) return to_receipt(std::move(*receipt));
    return nb::cast(Operation::start(
        loop, confirm ? broker.publish(std::move(message)) : broker.enqueue(std::move(message)), to_receipt, broker));
  }

  template <class Result, class Convert>
  nb::object start(awaitable<Result> work, Convert convert) {
    require_not_forked();
    return nb::cast(Operation::start(loop, std::move(work), std::move(convert), broker));
  }
  nb::object start(awaitable<void> work) {
    require_not_forked();
    return nb::cast(Operation::start(loop, std::move(work), broker));
  }

  ForeignLoop& loop;
  MessageBroker broker;
  /// Published with `confirm=False` since the last flush that completed.
  std::size_t unflushed = 0;

 private:
  static MessagingConfig with_clock(MessagingConfig config, Loop& loop) {
    config.clock = loop.foreign().clock();
    return config;
  }
};

}  // namespace maestro::python

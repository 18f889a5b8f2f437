#include <maestro/messaging/dead_letters.hpp>

#include "broker.hpp"

namespace maestro::python {

namespace {

DeadLetterFilter to_filter(const std::optional<std::string>& reason, std::optional<std::string> error_contains,
                           std::optional<std::string> key, int min_replays) {
  DeadLetterFilter filter;
  filter.min_replays = min_replays;
  if (reason) {
    filter.reason = parse_dead_letter_reason(*reason);
    if (!filter.reason)
      throw MessagingError(
          errc::invalid_argument,
          "reason: \"" + *reason + "\"; allowed are retries_exhausted, rejected, undecodable, invalid");
  }
  filter.error_contains = std::move(error_contains);
  filter.key = std::move(key);
  return filter;
}

nb::object to_letter(const DeadLetter& letter) {
  nb::dict made;
  made["topic"] = to_text(letter.topic);
  made["group"] = to_text(letter.group);
  made["partition"] = letter.partition;
  made["position"] = to_text(letter.position);
  made["reason"] = to_text(to_string(letter.reason));
  made["error_type"] = to_text(letter.error_type);
  made["error_message"] = to_text(letter.error_message);
  made["error_stack"] = to_text(letter.error_stack);
  made["attempts"] = letter.attempts;
  made["first_failed_at"] = to_text(letter.first_failed_at);
  made["failed_at"] = to_text(letter.failed_at);
  made["replay_count"] = letter.replay_count;
  made["message"] = nb::cast(Delivery{letter.message, nb::none()}, nb::rv_policy::move);
  return made;
}

awaitable<std::vector<DeadLetter>> list(DeadLetters letters, DeadLetterFilter filter, std::size_t limit) {
  co_return co_await letters.list(std::move(filter), limit);
}
awaitable<std::optional<DeadLetter>> show(DeadLetters letters, std::int32_t partition, std::int64_t offset) {
  co_return co_await letters.show(partition, offset);
}
awaitable<ReplayReport> replay(DeadLetters letters, ReplayOptions options) {
  co_return co_await letters.replay(std::move(options));
}
awaitable<std::int64_t> purge(DeadLetters letters) {
  co_return co_await letters.purge();
}

}  // namespace

void bind_dead_letters(nb::module_& module) {
  module.def(
      "list_dead_letters",
      [](Broker& broker, std::string topic, std::optional<std::string> reason,
         std::optional<std::string> error_contains, std::optional<std::string> key, int min_replays,
         std::size_t limit) {
        return broker.start(list(DeadLetters(broker.broker, std::move(topic)),
                                 to_filter(reason, std::move(error_contains), std::move(key), min_replays), limit),
                            [](const std::vector<DeadLetter>& letters) {
                              nb::list made;
                              for (const auto& letter : letters) made.append(to_letter(letter));
                              return made;
                            });
      },
      nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg());
  module.def("show_dead_letter", [](Broker& broker, std::string topic, std::int32_t partition, std::int64_t offset) {
    return broker.start(
        show(DeadLetters(broker.broker, std::move(topic)), partition, offset),
        [](const std::optional<DeadLetter>& letter) { return letter ? to_letter(*letter) : nb::object(nb::none()); });
  });
  module.def(
      "replay_dead_letters",
      [](Broker& broker, std::string topic, std::optional<std::string> reason,
         std::optional<std::string> error_contains, std::optional<std::string> key, int min_replays, bool dry_run,
         std::optional<double> per_second, int max_replays, std::optional<std::size_t> limit) {
        ReplayOptions options;
        options.filter = to_filter(reason, std::move(error_contains), std::move(key), min_replays);
        options.dry_run = dry_run;
        options.per_second = per_second;
        options.max_replays = max_replays;
        options.limit = limit;
        return broker.start(replay(DeadLetters(broker.broker, std::move(topic)), std::move(options)),
                            [](const ReplayReport& report) {
                              nb::dict made;
                              made["seen"] = report.seen;
                              made["replayed"] = report.replayed;
                              made["filtered"] = report.filtered;
                              made["refused"] = report.refused;
                              made["foreign"] = report.foreign;
                              made["held"] = report.held;
                              made["failed"] = report.failed;
                              made["first_failure"] = nb::none();
                              if (const auto& first = report.first_failure) {
                                nb::dict failure;
                                failure["position"] = to_text(first->position);
                                failure["error"] = to_text(errc_name(first->error));
                                failure["detail"] = to_text(first->detail);
                                made["first_failure"] = std::move(failure);
                              }
                              return made;
                            });
      },
      nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(),
      nb::arg().none(), nb::arg(), nb::arg().none());
  module.def("purge_dead_letters", [](Broker& broker, std::string topic) {
    return broker.start(purge(DeadLetters(broker.broker, std::move(topic))),
                        [](std::int64_t count) { return nb::cast(count); });
  });
}

}  // namespace maestro::python

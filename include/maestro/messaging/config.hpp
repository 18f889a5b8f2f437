#pragma once

#include <cstdint>
#include <initializer_list>
#include <maestro/messaging/time.hpp>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace maestro::messaging {

enum class BrokerType { memory, kafka, redis, rabbitmq, nats };

[[nodiscard]] std::string_view to_string(BrokerType type) noexcept;
/// Throws `MessagingError(invalid_option)` that names the nearest broker and all that there are.
[[nodiscard]] BrokerType parse_broker_type(std::string_view name);

/// Text, a whole number, a number or a boolean.
class OptionValue {
 public:
  OptionValue(const char* text) : value_(std::string(text)) {}                    // NOLINT(google-explicit-constructor)
  OptionValue(std::string text) : value_(std::move(text)) {}                      // NOLINT(google-explicit-constructor)
  OptionValue(std::string_view text) : value_(std::string(text)) {}               // NOLINT(google-explicit-constructor)
  OptionValue(bool value) : value_(value) {}                                      // NOLINT(google-explicit-constructor)
  OptionValue(int value) : value_(std::int64_t{value}) {}                         // NOLINT(google-explicit-constructor)
  OptionValue(std::int64_t value) : value_(value) {}                              // NOLINT(google-explicit-constructor)
  OptionValue(double value) : value_(value) {}                                    // NOLINT(google-explicit-constructor)

  [[nodiscard]] const std::variant<std::string, std::int64_t, double, bool>& get() const noexcept { return value_; }
  friend bool operator==(const OptionValue&, const OptionValue&) = default;

 private:
  std::variant<std::string, std::int64_t, double, bool> value_;
};

using ConfigMap = std::map<std::string, OptionValue, std::less<>>;

/// Everything that a broker needs to be opened. The three maps take the keys of the options table (`option_table()`);
/// an unknown key, a wrong type or a value out of range is refused by `MessageBroker`'s constructor.
struct MessagingConfig {
  BrokerType broker_type = BrokerType::memory;
  std::string connection_string;
  ConfigMap connection_config;
  ConfigMap consumer_config;
  ConfigMap producer_config;
  /// Counts into the process's metrics (`metrics_registry()`).
  bool enable_monitoring = false;
  /// Time and chance, for tests: null is the machine's clock; no seed is a random one.
  std::shared_ptr<Clock> clock;
  std::optional<std::uint64_t> seed;

  /// The broker whose address is set in the environment (`KAFKA_BOOTSTRAP_SERVERS`, `REDIS_URL`, `RABBITMQ_URL`, `NATS_URL`);
  /// `MESSAGING_BROKER` decides where several are, and `broker` before it. Throws `MessagingError(invalid_option)` when none is set or none decides.
  static MessagingConfig from_env(std::optional<BrokerType> broker = std::nullopt);
  /// The broker and connection string of a URL such as `memory://demo` or `kafka://host:9092`.
  static MessagingConfig from_url(std::string_view url);
};

/// The same with the options that stand in the connection string (`memory://name?key=value`) as options; what `connection_config` has stays.
/// Throws `MessagingError(invalid_option)` for one that is not `key=value`.
MessagingConfig with_options_of_url(MessagingConfig config);

/// Throws `MessagingError(invalid_option)` for a connection string whose scheme is another broker's.
void require_scheme_of(BrokerType type, std::string_view connection_string);

/// A connection string without its password, for logs and errors.
[[nodiscard]] std::string redact(std::string_view connection_string);

/// A `name` is text that can be part of a topic's; neither it nor other text is ever empty.
enum class OptionType { text, name, integer, number, boolean, duration };
enum class OptionGroup { connection, consumer, producer };

/// One row of the options table: the single place that validation, `maestro config` and `docs/options.md` come from.
struct OptionSpec {
  std::string_view name;
  OptionGroup group;
  OptionType type;
  std::string_view default_value;         ///< As text; empty: no default.
  std::string_view unit;                  ///< "ms", "bytes", "" …
  std::vector<BrokerType> brokers;        ///< Empty: every broker.
  std::vector<std::string_view> allowed;  ///< For text that is one of a few; empty: any.
  double least = 0;
  double most = 0;                        ///< `least == most`: no range.
  std::string_view environment;           ///< The variable that sets it, or empty.
  std::string_view doc;
  bool secret = false;                    ///< Shown as `***` wherever it is shown.
};

[[nodiscard]] std::span<const OptionSpec> option_table();
[[nodiscard]] std::string_view to_string(OptionType type) noexcept;
/// What a value may be, in words: `earliest, latest`, `1 to 100`, `1 to 900000 ms`, or empty.
[[nodiscard]] std::string allowed_values(const OptionSpec& spec);
/// The brokers that an option is for, in words.
[[nodiscard]] std::string broker_names(const OptionSpec& spec);
/// The variable that sets an option, and for which broker if not for all that take the option; or empty.
[[nodiscard]] std::string environment_variable(const OptionSpec& spec, std::string_view quote = "");
/// The options table as the Markdown of `docs/options.md`.
[[nodiscard]] std::string options_reference();

/// The options in force after precedence (argument, config object, environment, default), each checked.
class Options {
 public:
  /// Throws `MessagingError(unknown_option | invalid_option)` that names the key, what was given, what is allowed
  /// and the nearest known key.
  explicit Options(const MessagingConfig& config);

  [[nodiscard]] std::string text(std::string_view name) const;
  [[nodiscard]] std::optional<std::string> text_if(std::string_view name) const;
  [[nodiscard]] std::int64_t integer(std::string_view name) const;
  [[nodiscard]] double number(std::string_view name) const;
  [[nodiscard]] bool boolean(std::string_view name) const;
  [[nodiscard]] Duration duration(std::string_view name) const;
  /// True when it was set by anyone, and is not the default.
  [[nodiscard]] bool is_set(std::string_view name) const;
  /// The native client's properties that were passed through as `raw.<name>`, without the prefix.
  [[nodiscard]] const std::map<std::string, std::string, std::less<>>& raw() const noexcept { return raw_; }

  struct Shown {
    const OptionSpec* spec;
    std::string value;   ///< `***` for a secret.
    std::string origin;  ///< "config", "environment" or "default".
  };
  [[nodiscard]] std::vector<Shown> shown() const;

 private:
  struct Entry {
    const OptionSpec* spec;
    OptionValue value;
    std::string_view origin;
  };
  const Entry* find(std::string_view name) const;
  std::map<std::string, Entry, std::less<>> entries_;
  std::map<std::string, std::string, std::less<>> raw_;
};

}  // namespace maestro::messaging

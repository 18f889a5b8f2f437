#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <maestro/messaging.hpp>
#include <maestro/messaging/foreign_loop.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace maestro::python {

namespace nb = nanobind;
namespace asio = boost::asio;
using namespace maestro::messaging;

/// One asyncio loop, joined to the library. Everything below runs on its thread, under the GIL.
class Loop {
 public:
  Loop() : loop_(ForeignLoop::make()) { of_this_thread = true; }
  ~Loop() { loop_.close(); }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Whether this thread is one of Python's that had a loop.
  static inline thread_local bool of_this_thread = false;

  [[nodiscard]] ForeignLoop& foreign() const noexcept { return loop_; }
  [[nodiscard]] ForeignLoop::Executor executor() const noexcept { return loop_.executor(); }

 private:
  ForeignLoop& loop_;
};

/// A call that goes on. The package's coroutines wait for it by giving it a future; cancelling is passed on to the
/// library.
class Operation : public std::enable_shared_from_this<Operation> {
 public:
  [[nodiscard]] bool done() const noexcept { return done_; }
  /// What came of it; throws what it threw.
  nb::object result();
  /// Sets the future when it is done, or at once.
  void tell(nb::object future);
  void cancel() { cancel_.emit(asio::cancellation_type::terminal); }

  void finish(nb::object value, std::exception_ptr error);

  /// Starts the work; `convert` makes a Python object of what comes of it. `keep` lives until then.
  template <class Result, class Convert, class Keep>
  static std::shared_ptr<Operation> start(ForeignLoop& loop, awaitable<Result> work, Convert convert, Keep keep) {
    auto operation = std::make_shared<Operation>();
    asio::co_spawn(loop.executor(), std::move(work),
                   asio::bind_cancellation_slot(
                       operation->cancel_.slot(), [operation, convert = std::move(convert), keep = std::move(keep)](
                                                      std::exception_ptr error, Result result) {
                         complete(*operation, error, [&] { return convert(std::move(result)); });
                       }));
    return operation;
  }
  template <class Keep>
  static std::shared_ptr<Operation> start(ForeignLoop& loop, awaitable<void> work, Keep keep) {
    auto operation = std::make_shared<Operation>();
    asio::co_spawn(loop.executor(), std::move(work),
                   asio::bind_cancellation_slot(operation->cancel_.slot(),
                                                [operation, keep = std::move(keep)](std::exception_ptr error) {
                                                  complete(*operation, error, [] { return nb::none(); });
                                                }));
    return operation;
  }

 private:
  template <class Make>
  static void complete(Operation& operation, std::exception_ptr error, const Make& make) {
    nb::object value = nb::none();
    if (!error) {
      try {
        value = make();
      } catch (...) {
        error = std::current_exception();
      }
    }
    operation.finish(std::move(value), error);
  }

  bool done_ = false;
  nb::object value_;
  std::exception_ptr error_;
  nb::object future_;
  asio::cancellation_signal cancel_;
};

class Reader;

/// A message that arrived, as Python sees it: it behaves as its decoded value.
struct Delivery {
  Message message;
  nb::object decode;                  ///< bytes → value; none is JSON.
  std::weak_ptr<Reader> reader = {};  ///< Where it was read by hand.
  nb::object decoded = {};

  const nb::object& value();
};

/// What a handler gets that asks for an `Event`.
struct EventDelivery : Delivery {
  int attempt = 1;
};

/// A subscription that is read by hand.
class Reader : public std::enable_shared_from_this<Reader> {
 public:
  Reader(ForeignLoop& of, MessageBroker broker, Subscription subscription, nb::object decode)
      : loop(of), broker(std::move(broker)), subscription(std::move(subscription)), decode(std::move(decode)) {}
  ~Reader();

  ForeignLoop& loop;
  MessageBroker broker;
  std::optional<Subscription> subscription;
  nb::object decode;
  /// Handed out without the loop's having turned.
  int at_once = 0;
};

/// Python's functions that are used on the path of a message; looked up once.
struct Callables {
  nb::object loads;        ///< orjson.loads
  nb::object dumps;        ///< orjson.dumps
  nb::object other_types;  ///< its `default`
  nb::object encode;       ///< anything that can be published → bytes
  nb::object refuse_nan;   ///< (value): raises where a number is none; JSON would say null
  nb::object raise;        ///< (reason, detail, text) → an exception of the package's
  nb::object describe;     ///< (exception) → (verdict, type, text, stack)
  nb::object enter_task;   ///< asyncio's, for a handler's first step
  nb::object leave_task;
};
Callables& callables();

/// Throws when this process is a fork of one that had a broker.
void require_not_forked();
/// Whether the program ends: no handler begins any more.
bool is_ending() noexcept;

/// What is published for a value: bytes as they are, else JSON. Raises `InvalidEventError` for what JSON does not have.
nb::object encode(nb::handle value);
std::string_view bytes_of(nb::handle bytes);
std::string name_of_type(nb::handle value);
nb::bytes to_bytes(std::string_view text);
nb::object to_text(std::string_view text);
nb::object to_text_or_none(const std::optional<std::string_view>& text);
nb::dict to_dict(HeadersView headers);
Headers to_headers(nb::handle mapping);
std::optional<std::string> to_key(nb::handle key);
OutgoingMessage to_outgoing(std::string topic, nb::handle message, nb::handle key, nb::handle headers,
                            std::optional<std::int32_t> partition, std::optional<double> timestamp);
MessagingConfig to_config(std::string_view type, const std::string& connection_string, nb::dict connection,
                          nb::dict consumer, nb::dict producer, bool enable_monitoring);
std::optional<OffsetReset> to_reset(const std::optional<std::string>& name);
const char* to_word(CircuitState state);
nb::object to_receipt(Receipt receipt);
nb::object to_results(std::vector<PublishResult> results);
/// Aware, in UTC.
nb::object to_datetime(Timestamp time);
/// From seconds since 1970.
Timestamp to_timestamp(double seconds);
/// What an argument of this name says.
Duration to_duration(std::string_view name, double seconds);

/// A Python exception of the package's for one of ours. Steals nothing; null with the error set when even that failed.
void raise_for(const std::exception_ptr& error);

void bind_errors(nb::module_& module);
void bind_loop(nb::module_& module);
void bind_messages(nb::module_& module);
void bind_broker(nb::module_& module);
void bind_consumer(nb::module_& module);
void bind_dead_letters(nb::module_& module);
void bind_logging(nb::module_& module);

}  // namespace maestro::python

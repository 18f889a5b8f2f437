#include <fmt/format.h>

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/shared_deduplication.hpp>
#include <span>
#include <vector>

#include "broker.hpp"

namespace maestro::python {

namespace {

/// A task in which handlers run. It is parked while a handler takes its first step, in the task's name and context;
/// only a handler that then waits is handed over to it. So a handler that does not wait costs no turn of the loop, and
/// `asyncio.current_task()`, timeouts and context variables are what they are in any task.
struct Slot {
  nb::object task;
  nb::object context;
  nb::object run;     ///< context.run
  nb::object parked;  ///< The future that the task waits for; none before its first step.
  nb::object coroutine;
  nb::object yielded;
  nb::object running;
};

/// A handler that waits for something.
class Running : public std::enable_shared_from_this<Running> {
 public:
  explicit Running(ForeignLoop& loop) : loop_(loop) {}

  awaitable<void> wait() {
    const auto self = shared_from_this();
    auto initiate = [self](auto handler) {
      auto slot = asio::get_associated_cancellation_slot(handler);
      self->waiting_ = std::make_unique<Waiting>(std::move(handler));
      // Afterwards, for the handler takes the slot for itself.
      if (slot.is_connected()) slot.assign([self](asio::cancellation_type) { self->cancel(); });
    };
    if (!done_)
      co_await asio::async_initiate<decltype(asio::use_awaitable), void()>(std::move(initiate), asio::use_awaitable);
    if (error_) std::rethrow_exception(error_);
  }

  void finish(std::exception_ptr error) {
    done_ = true;
    error_ = error;
    task = {};
    if (!waiting_) return;
    // Not here, within a step of the task: the next handler takes its own.
    asio::post(loop_.executor(), [handler = std::shared_ptr<Waiting>(std::move(waiting_))] { std::move (*handler)(); });
  }

  nb::object task;

 private:
  using Waiting = asio::any_completion_handler<void()>;

  void cancel() {
    if (!task.is_valid()) return;
    try {
      task.attr("cancel")();
    } catch (nb::python_error& failure) {
      failure.discard_as_unraisable("maestro_core_messaging: cancelling a handler");
    }
  }

  ForeignLoop& loop_;
  std::unique_ptr<Waiting> waiting_;
  bool done_ = false;
  std::exception_ptr error_;
};

// The exception that a handler raised, in the library's words.
std::exception_ptr failure_of(nb::handle exception) {
  try {
    const auto cancelled_error = nb::module_::import_("asyncio").attr("CancelledError");
    const bool cancelled = PyErr_GivenExceptionMatches(exception.ptr(), cancelled_error.ptr()) != 0;
    const nb::object described = callables().describe(exception);
    const auto verdict = nb::cast<std::string>(described[0]);
    const auto code = verdict == "rejected"        ? errc::rejected
                      : verdict == "undecodable"   ? errc::undecodable
                      : verdict == "invalid_event" ? errc::invalid_event
                                                   : errc::broker_error;
    return std::make_exception_ptr(HandlerError(code, nb::cast<std::string>(described[1]),
                                                nb::cast<std::string>(described[2]),
                                                nb::cast<std::string>(described[3]), cancelled));
  } catch (nb::python_error& failure) {
    return std::make_exception_ptr(HandlerError(errc::broker_error, "Exception", failure.what(), ""));
  }
}

// What the last first step came to; `step` is called through the context, which only knows Python's results.
PySendResult last_step = PYGEN_ERROR;

PyObject* step(PyObject*, PyObject* coroutine) {
  PyObject* result = nullptr;
  last_step = PyIter_Send(coroutine, Py_None, &result);
  return last_step == PYGEN_ERROR ? nullptr : result;
}

PyMethodDef step_method{"step", &step, METH_O, nullptr};

class Route {
 public:
  enum class Gives { value, event, message, bytes };

  Route(Loop& loop, nb::object asyncio_loop, nb::object handler, Gives gives, nb::object decode, nb::object make_slot)
      : loop_(loop.foreign()),
        asyncio_loop_(std::move(asyncio_loop)),
        handler_(std::move(handler)),
        gives_(gives),
        decode_(std::move(decode)),
        make_slot_(std::move(make_slot)),
        step_(nb::steal(PyCFunction_New(&step_method, nullptr))) {}

  static awaitable<void> call(std::shared_ptr<Route> self, const Event& event) {
    // What is not begun when the program ends stays unsettled: its loop is closed.
    if (is_ending()) co_await std::make_shared<Running>(self->loop_)->wait();
    // Handlers run when the loop calls us, and for a while at most: then everything else has its turn.
    if (Clock::real()->now() >= self->loop_.run_until())
      co_await asio::post(self->loop_.executor(), asio::use_awaitable);
    if (const auto running = self->begin(event)) co_await running->wait();
  }

  /// Ends the tasks that are parked.
  void close() {
    for (const auto& slot : std::exchange(parked_, {})) discard(*slot);
  }

  /// What it refers to, for Python's collector.
  int traverse(visitproc visit, void* arg) const {
    for (const auto* each : {&asyncio_loop_, &handler_, &decode_, &make_slot_, &step_, &base_}) Py_VISIT(each->ptr());
    return 0;
  }
  void clear() {
    for (auto* each : {&asyncio_loop_, &handler_, &decode_, &make_slot_, &step_, &base_}) each->reset();
  }

 private:
  nb::object argument(const Event& event) const {
    switch (gives_) {
      case Gives::value: {
        const auto bytes = to_bytes(event.message().body());
        return (decode_.is_none() ? callables().loads : decode_)(bytes);
      }
      case Gives::bytes:
        return to_bytes(event.message().body());
      case Gives::message:
        return nb::cast(Delivery{event.message(), decode_}, nb::rv_policy::move);
      case Gives::event:
        break;
    }
    EventDelivery delivery{{event.message(), decode_}};
    delivery.attempt = event.attempt();
    auto made = nb::cast(std::move(delivery), nb::rv_policy::move);
    nb::cast<EventDelivery&>(made).value();  // what cannot be decoded is no event
    return made;
  }

  static void discard(Slot& slot) {
    try {
      slot.task.attr("cancel")();
    } catch (nb::python_error& failure) {
      failure.discard_as_unraisable("maestro_core_messaging: ending a handler's task");
    }
  }

  std::shared_ptr<Slot> take_slot() {
    if (!parked_.empty()) {
      auto slot = std::move(parked_.back());
      parked_.pop_back();
      return slot;
    }
    return nb::cast<std::shared_ptr<Slot>>(make_slot_());
  }

  /// The handler's first step; what goes on, if it did not end with it. Throws what it raised.
  std::shared_ptr<Running> begin(const Event& event) {
    try {
      const auto coroutine = handler_(argument(event));
      if (make_slot_.is_none()) return begin_task(coroutine);
      return begin_step(coroutine);
    } catch (nb::python_error& error) {
      std::rethrow_exception(failure_of(error.value()));
    }
  }

  std::shared_ptr<Running> begin_task(const nb::object& coroutine) {
    auto running = std::make_shared<Running>(loop_);
    running->task = asyncio_loop_.attr("create_task")(coroutine);
    running->task.attr("add_done_callback")(nb::cast(running).attr("task_done"));
    return running;
  }

  std::shared_ptr<Running> begin_step(const nb::object& coroutine) {
    auto slot = take_slot();
    const auto& functions = callables();
    functions.enter_task(asyncio_loop_, slot->task);
    auto* stepped = PyObject_CallFunctionObjArgs(slot->run.ptr(), step_.ptr(), coroutine.ptr(), nullptr);
    std::exception_ptr failure;
    if (!stepped) {
      nb::python_error error;
      if (error.matches(PyExc_KeyboardInterrupt) || error.matches(PyExc_SystemExit)) loop_stops_for(error);
      failure = failure_of(error.value());
    }
    const auto result = nb::steal(stepped);
    const auto outcome = stepped ? last_step : PYGEN_ERROR;
    functions.leave_task(asyncio_loop_, slot->task);
    if (outcome == PYGEN_NEXT) {
      auto running = std::make_shared<Running>(loop_);
      running->task = slot->task;
      slot->coroutine = coroutine;
      slot->yielded = result;
      slot->running = nb::cast(running);
      if (slot->parked.is_valid() && !slot->parked.is_none() && !nb::cast<bool>(slot->parked.attr("done")()))
        slot->parked.attr("set_result")(nb::none());
      return running;
    }
    // A task whose context was changed, or that was cancelled, is not used again.
    const int same = PyObject_RichCompareBool(slot->context.ptr(), base().ptr(), Py_EQ);
    if (same < 0) throw nb::python_error();
    if (same == 1 && nb::cast<int>(slot->task.attr("cancelling")()) == 0) {
      parked_.push_back(std::move(slot));
    } else {
      discard(*slot);
    }
    if (failure) std::rethrow_exception(failure);
    return nullptr;
  }

  const nb::object& base() {
    if (!base_.is_valid()) base_ = make_slot_.attr("context");
    return base_;
  }

  // What ends a program is not a handler's failure: it is raised where the loop called us.
  void loop_stops_for(nb::python_error& error) {
    asio::post(loop_.executor(), [raised = nb::borrow(error.value())] {
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(raised.ptr())), raised.ptr());
      throw nb::python_error();
    });
  }

  ForeignLoop& loop_;
  nb::object asyncio_loop_;
  nb::object handler_;
  Gives gives_;
  nb::object decode_;
  nb::object make_slot_;
  nb::object step_;
  nb::object base_;
  std::vector<std::shared_ptr<Slot>> parked_;
};

class RawFormat final : public Serializer {
 public:
  [[nodiscard]] std::string content_type() const override { return "application/octet-stream"; }
  [[nodiscard]] Payload serialize(const Value&) const override { return {}; }
  [[nodiscard]] Value deserialize(const Message&) const override { return nullptr; }  // the handler's side decodes
};

class Consumer {
 public:
  Consumer(Broker& broker, EventConsumerOptions options)
      : broker_(broker), consumer(broker.broker, std::move(options)) {}

  void add(std::string topic, const std::shared_ptr<Route>& route, const std::optional<std::string>& dead_letters) {
    auto added =
        consumer.subscribe(std::move(topic), [route](const Event& event) { return Route::call(route, event); });
    if (dead_letters) added.on_error(*dead_letters);
    routes_.push_back(route);
  }

  nb::object start() { return broker_.start(run(shared_state())); }

  /// For Python's collector, which finds a handler that refers to its own consumer. While it runs, more than Python
  /// holds on to it.
  [[nodiscard]] std::span<const std::shared_ptr<Route>> routes_at_rest() const {
    return kept_.expired() ? std::span(routes_) : std::span<const std::shared_ptr<Route>>{};
  }

 private:
  // A copy of the handle keeps everything alive until the last handler has ended.
  struct Kept {
    EventConsumer consumer;
    std::vector<std::shared_ptr<Route>> routes;
  };
  [[nodiscard]] std::shared_ptr<Kept> shared_state() {
    auto kept = std::make_shared<Kept>(Kept{consumer, routes_});
    kept_ = kept;
    return kept;
  }
  static awaitable<void> run(std::shared_ptr<Kept> kept) {
    struct Close {
      Kept& of;
      ~Close() {
        for (const auto& route : of.routes) route->close();
      }
    } const close{*kept};
    co_await kept->consumer.start();
  }

  Broker& broker_;
  std::vector<std::shared_ptr<Route>> routes_;
  std::weak_ptr<Kept> kept_;

 public:
  EventConsumer consumer;
};

int traverse_route(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return nb::inst_ready(self) ? nb::inst_ptr<Route>(self)->traverse(visit, arg) : 0;
}
int clear_route(PyObject* self) {
  nb::inst_ptr<Route>(self)->clear();
  return 0;
}
PyType_Slot route_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(&traverse_route)},
                             {Py_tp_clear, reinterpret_cast<void*>(&clear_route)},
                             {0, nullptr}};

int traverse_consumer(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  for (const auto& route : nb::inst_ptr<Consumer>(self)->routes_at_rest()) Py_VISIT(nb::find(route).ptr());
  return 0;
}
PyType_Slot consumer_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(&traverse_consumer)}, {0, nullptr}};

template <class T>
std::optional<T> option(nb::dict options, const char* name) {
  if (!options.contains(name)) return std::nullopt;
  const nb::object value = options[name];
  return value.is_none() ? std::nullopt : std::optional<T>(nb::cast<T>(value));
}

std::optional<Duration> duration_option(nb::dict options, const char* name) {
  const auto seconds = option<double>(options, name);
  return seconds ? std::optional(to_duration(name, *seconds)) : std::nullopt;
}

EventConsumerOptions to_options(nb::dict from) {
  EventConsumerOptions options;
  options.group_id = option<std::string>(from, "group_id");
  options.concurrency = option<std::size_t>(from, "concurrency");
  const auto ordering = option<std::string>(from, "ordering").value_or("key");
  if (ordering != "key" && ordering != "partition" && ordering != "none")
    throw MessagingError(errc::invalid_option,
                         fmt::format("ordering: \"{}\"; allowed are key, partition, none", ordering));
  options.ordering = ordering == "key" ? Ordering::key : ordering == "partition" ? Ordering::partition : Ordering::none;
  options.max_retry_attempts = option<int>(from, "max_retry_attempts");
  options.enable_dead_letter_queue = option<bool>(from, "enable_dead_letter_queue");
  options.initial_backoff = duration_option(from, "initial_backoff");
  options.backoff_multiplier = option<double>(from, "backoff_multiplier");
  options.max_backoff = duration_option(from, "max_backoff");
  options.drain_timeout = duration_option(from, "drain_timeout");
  options.prefetch = option<std::size_t>(from, "prefetch");
  options.auto_offset_reset = to_reset(option<std::string>(from, "auto_offset_reset"));
  if (from.contains("deduplication") && !from["deduplication"].is_none())
    options.deduplication = nb::cast<std::shared_ptr<DeduplicationStore>>(from["deduplication"]);
  if (const auto lease = duration_option(from, "deduplication_lease")) options.deduplication_lease = *lease;
  if (const auto threshold = option<int>(from, "circuit_failure_threshold")) {
    options.circuit_breaker.emplace();
    options.circuit_breaker->failure_threshold = *threshold;
    if (const auto reset = duration_option(from, "circuit_reset_timeout"))
      options.circuit_breaker->reset_timeout = *reset;
  }
  options.serializer = std::make_shared<RawFormat>();
  return options;
}

}  // namespace

void bind_consumer(nb::module_& module) {
  nb::class_<DeduplicationStore>(module, "DeduplicationStore");
  nb::class_<SharedDeduplicationStore, DeduplicationStore>(module, "SharedDeduplicationStore")
      .def(
          "__init__",
          [](SharedDeduplicationStore* self, Broker& broker, double window) {
            new (self) SharedDeduplicationStore(broker.broker, {.window = to_duration("window", window)});
          },
          nb::keep_alive<1, 2>());
  nb::class_<MemoryDeduplicationStore, DeduplicationStore>(
      module, "MemoryDeduplicationStore",
      "Ids that were handled, in this process: `capacity` of them at most, each for `window` seconds.")
      .def(
          "__init__",
          [](MemoryDeduplicationStore* self, std::size_t capacity, double window) {
            new (self) MemoryDeduplicationStore(Clock::real(), {capacity, to_duration("window", window)});
          },
          nb::arg("capacity") = 1'000'000, nb::arg("window") = 3600.0)
      .def("__len__", &MemoryDeduplicationStore::size);

  nb::class_<Slot>(module, "Slot")
      .def("__init__",
           [](Slot* self, nb::object context) {
             new (self) Slot;
             self->context = std::move(context);
             self->run = self->context.attr("run");
           })
      .def("set_task", [](Slot& self, nb::object task) { self.task = std::move(task); })
      .def("set_parked", [](Slot& self, nb::object parked) { self.parked = std::move(parked); })
      .def("take", [](Slot& self) -> nb::object {
        if (!self.coroutine.is_valid()) return nb::none();
        return nb::make_tuple(std::exchange(self.coroutine, {}), std::exchange(self.yielded, {}),
                              std::exchange(self.running, {}));
      });

  nb::class_<Running>(module, "Running")
      .def(
          "finish",
          [](Running& self, nb::handle exception) {
            self.finish(exception.is_none() ? nullptr : failure_of(exception));
          },
          nb::arg().none())
      .def("task_done", [](Running& self, nb::handle task) {
        try {
          const nb::object exception = task.attr("exception")();
          self.finish(exception.is_none() ? nullptr : failure_of(exception));
        } catch (nb::python_error& cancelled) {
          self.finish(failure_of(cancelled.value()));
        }
      });

  nb::class_<Route>(module, "Route", nb::type_slots(route_slots))
      .def(
          "__init__",
          [](Route* self, Loop& loop, nb::object asyncio_loop, nb::object handler, const std::string& gives,
             nb::object decode, nb::object make_slot) {
            const auto kind = gives == "event"     ? Route::Gives::event
                              : gives == "message" ? Route::Gives::message
                              : gives == "bytes"   ? Route::Gives::bytes
                                                   : Route::Gives::value;
            new (self)
                Route(loop, std::move(asyncio_loop), std::move(handler), kind, std::move(decode), std::move(make_slot));
          },
          nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none());

  nb::class_<Consumer>(module, "Consumer", nb::type_slots(consumer_slots))
      .def(
          "__init__",
          [](Consumer* self, Broker& broker, nb::dict options) {
            require_not_forked();
            new (self) Consumer(broker, to_options(std::move(options)));
          },
          nb::keep_alive<1, 2>())
      .def("add", &Consumer::add, nb::arg(), nb::arg(), nb::arg().none())
      .def("start", &Consumer::start)
      .def("stop", [](Consumer& self) { self.consumer.stop(); })
      .def("pause", [](Consumer& self) { self.consumer.pause(); })
      .def("resume", [](Consumer& self) { self.consumer.resume(); })
      .def("group", [](const Consumer& self) { return to_text(self.consumer.group()); })
      .def("explain", [](const Consumer& self) { return to_text(self.consumer.explain()); })
      .def("circuit", [](const Consumer& self) { return to_word(self.consumer.circuit()); })
      .def("counts", [](const Consumer& self) {
        const auto counts = self.consumer.counts();
        nb::dict made;
        made["received"] = counts.received;
        made["handled"] = counts.handled;
        made["retried"] = counts.retried;
        made["dead_lettered"] = counts.dead_lettered;
        made["discarded"] = counts.discarded;
        made["duplicates"] = counts.duplicates;
        return made;
      });
}

}  // namespace maestro::python

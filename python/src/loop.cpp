#include "binding.hpp"

namespace maestro::python {

nb::object Operation::result() {
  if (!done_) throw MessagingError(errc::invalid_argument, "result() before the operation is done");
  if (error_) std::rethrow_exception(error_);
  return value_;
}

void Operation::tell(nb::object future) {
  if (!done_) {
    future_ = std::move(future);
    return;
  }
  future.attr("set_result")(nb::none());
}

void Operation::finish(nb::object value, std::exception_ptr error) {
  done_ = true;
  value_ = std::move(value);
  error_ = error;
  if (!future_.is_valid()) return;
  const auto future = std::exchange(future_, {});
  try {
    if (!nb::cast<bool>(future.attr("done")())) future.attr("set_result")(nb::none());
  } catch (nb::python_error& failure) {
    // A loop that was closed meanwhile; nobody waits any more.
    if (!is_ending()) failure.discard_as_unraisable("maestro_core_messaging: the end of an operation");
  }
}

namespace {
bool forked = false;
bool ending = false;
}  // namespace

bool is_ending() noexcept {
  return ending;
}

void require_not_forked() {
  if (!forked) return;
  const nb::str text(
      "maestro_core_messaging was in use when this process was forked, and its threads and connections did not come "
      "along; create brokers in the child alone, or start it by multiprocessing's \"spawn\" method");
  const auto made = callables().raise("unsupported", text, text, false);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(made.ptr())), made.ptr());
  throw nb::python_error();
}

void bind_loop(nb::module_& module) {
  nb::class_<Operation>(module, "Operation")
      .def_prop_ro("done", &Operation::done)
      .def("result", &Operation::result)
      .def("tell", &Operation::tell)
      .def("cancel", &Operation::cancel);

  nb::class_<Loop>(module, "Loop", nb::is_weak_referenceable())
      .def("__init__",
           [](Loop* self) {
             require_not_forked();
             new (self) Loop;
           })
      .def("fileno", [](const Loop& loop) { return loop.foreign().descriptor(); })
      .def("run", [](const Loop& loop) {
        if (!forked) loop.foreign().run();
      });
  module.def("require_not_forked", &require_not_forked);
  module.def("after_fork", [] { forked = ForeignLoop::in_use(); });
  module.def("begin_to_end", [] { ending = true; });
  module.def("shut_down", [] {
    if (forked) return;
    set_log_sink({});
    nb::gil_scoped_release released;
    ForeignLoop::shut_down();
  });
}

}  // namespace maestro::python

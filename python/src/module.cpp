#include "binding.hpp"

namespace maestro::python {

Callables& callables() {
  static auto* functions = new Callables;  // outlives the interpreter's end
  return *functions;
}

}  // namespace maestro::python

NB_MODULE(_core, module) {
  namespace nb = nanobind;
  using namespace maestro::python;
  nb::set_leak_warnings(false);  // what is still under way when the interpreter ends is left as it is
  module.doc() = "The native core of maestro_core_messaging; private to the package.";
  bind_errors(module);
  bind_loop(module);
  bind_messages(module);
  bind_broker(module);
  bind_consumer(module);
  bind_dead_letters(module);
  bind_logging(module);
  module.def("set_callables",
             [](nb::object loads, nb::object dumps, nb::object other_types, nb::object encode, nb::object refuse_nan,
                nb::object raise, nb::object describe, nb::object enter_task, nb::object leave_task) {
               callables() = {std::move(loads),    std::move(dumps),      std::move(other_types),
                              std::move(encode),   std::move(refuse_nan), std::move(raise),
                              std::move(describe), std::move(enter_task), std::move(leave_task)};
             });
}

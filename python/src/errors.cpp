#include "binding.hpp"

namespace maestro::python {

void raise_for(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const MessagingError& known) {
    const auto name = errc_name(known.reason());
    try {
      const auto made = callables().raise(nb::str(name.data(), name.size()), to_text(known.detail()),
                                          to_text(known.what()), known.retriable());
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(made.ptr())), made.ptr());
    } catch (nb::python_error& failure) {
      failure.restore();
    }
  } catch (nb::python_error& failure) {
    failure.restore();
  }
}

void bind_errors(nb::module_& module) {
  nb::register_exception_translator([](const std::exception_ptr& error, void*) {
    try {
      std::rethrow_exception(error);
    } catch (const MessagingError&) {
      raise_for(error);
    } catch (const boost::system::system_error& failure) {
      if (failure.code() != asio::error::operation_aborted) throw;
      PyErr_SetString(nb::module_::import_("asyncio").attr("CancelledError").ptr(), "the operation was cancelled");
    }
  });
  module.def("error_names", [] {
    nb::list names;
    for (int code = 1; code <= static_cast<int>(errc::cannot_listen); ++code) {
      const auto name = errc_name(static_cast<errc>(code));
      names.append(nb::str(name.data(), name.size()));
    }
    return names;
  });
}

}  // namespace maestro::python

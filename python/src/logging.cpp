#include <deque>
#include <mutex>

#include "binding.hpp"

namespace maestro::python {

namespace {

/// Log lines of whatever thread, until one that holds the GIL passes them on: the library's threads never take it.
struct Lines {
  std::mutex mutex;
  std::deque<LogRecord> waiting;
  static constexpr std::size_t most = 10'000;
};

Lines& lines() {
  static auto* kept = new Lines;
  return *kept;
}

}  // namespace

void bind_logging(nb::module_& module) {
  module.def("collect_logs_to", [](nb::callable ring) {
    // Called on any thread; `ring` only on one that is Python's own at the moment.
    auto* on_line = ring.release().ptr();
    set_log_sink([on_line](const LogRecord& record) {
      {
        const std::lock_guard lock(lines().mutex);
        if (lines().waiting.size() < Lines::most) lines().waiting.push_back(record);
      }
      if (Loop::of_this_thread) {  // which holds the GIL whenever it is here
        if (auto* done = PyObject_CallNoArgs(on_line)) {
          Py_DECREF(done);
        } else {
          PyErr_WriteUnraisable(on_line);
        }
      }
    });
  });
  module.def("take_logs", [] {
    std::deque<LogRecord> taken;
    {
      const std::lock_guard lock(lines().mutex);
      taken.swap(lines().waiting);
    }
    nb::list made;
    for (const auto& record : taken) {
      nb::dict fields;
      for (const auto& [name, value] : record.fields) fields[to_text(name)] = to_text(value);
      made.append(nb::make_tuple(static_cast<int>(record.level), to_text(record.message), fields));
    }
    return made;
  });
  module.def("set_log_level", [](int level) { set_log_level(static_cast<LogLevel>(level)); });
}

}  // namespace maestro::python

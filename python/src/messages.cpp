#include <fmt/format.h>

#include "binding.hpp"

namespace maestro::python {

std::string_view bytes_of(nb::handle bytes) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(bytes.ptr(), &data, &size) != 0) throw nb::python_error();
  return {data, static_cast<std::size_t>(size)};
}

std::string name_of_type(nb::handle value) {
  return nb::cast<std::string>(value.type().attr("__name__"));
}

nb::object encode(nb::handle value) {
  if (PyBytes_CheckExact(value.ptr())) return nb::borrow(value);
  if (PyDict_CheckExact(value.ptr())) {
    PyObject* arguments[] = {value.ptr(), callables().other_types.ptr()};
    if (auto* made = PyObject_Vectorcall(callables().dumps.ptr(), arguments, 2, nullptr)) {
      const auto json = nb::steal(made);
      if (bytes_of(json).find("null") != std::string_view::npos) callables().refuse_nan(value);
      return json;
    }
    PyErr_Clear();  // the long way says what was wrong
  }
  return callables().encode(value);
}

nb::bytes to_bytes(std::string_view text) {
  return nb::bytes(text.data(), text.size());
}

nb::object to_text(std::string_view text) {
  auto* made = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape");
  if (!made) throw nb::python_error();
  return nb::steal(made);
}

nb::object to_text_or_none(const std::optional<std::string_view>& text) {
  return text ? to_text(*text) : nb::object(nb::none());
}

nb::dict to_dict(HeadersView headers) {
  nb::dict made;
  for (const auto& [name, value] : headers) made[to_text(name)] = to_text(value);
  return made;
}

namespace {

std::string text_of(nb::handle value, std::string_view what) {
  if (PyBytes_Check(value.ptr())) return std::string(bytes_of(value));
  if (!PyUnicode_Check(value.ptr()))
    throw MessagingError(errc::invalid_argument,
                         fmt::format("{}: {}; allowed are str and bytes", what, name_of_type(value)));
  // What came in as surrogates goes out as the bytes that it was.
  auto* encoded = PyUnicode_AsEncodedString(value.ptr(), "utf-8", "surrogateescape");
  if (!encoded) throw nb::python_error();
  const auto bytes = nb::steal(encoded);
  return std::string(bytes_of(bytes));
}

}  // namespace

Headers to_headers(nb::handle mapping) {
  Headers headers;
  if (mapping.is_none()) return headers;
  if (!nb::hasattr(mapping, "items"))
    throw MessagingError(errc::invalid_argument,
                         fmt::format("headers: {}; allowed is a mapping of str to str", name_of_type(mapping)));
  for (const auto item : mapping.attr("items")())
    headers.add(text_of(item[0], "a header's name"), text_of(item[1], "a header's value"));
  return headers;
}

std::optional<std::string> to_key(nb::handle key) {
  if (key.is_none()) return std::nullopt;
  return text_of(key, "key");
}

nb::object to_datetime(Timestamp time) {
  const auto microseconds = std::chrono::floor<std::chrono::microseconds>(time.time_since_epoch()).count();
  const auto module = nb::module_::import_("datetime");
  const auto epoch = module.attr("datetime")(1970, 1, 1, nb::arg("tzinfo") = module.attr("timezone").attr("utc"));
  return epoch + module.attr("timedelta")(nb::arg("microseconds") = microseconds);
}

Duration to_duration(std::string_view name, double seconds) {
  constexpr double most = 1e9;  // some thirty years
  if (!(seconds >= 0 && seconds <= most))
    throw MessagingError(errc::invalid_argument, fmt::format("{}: {} s; allowed is 0 to {} s", name, seconds, most));
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

Timestamp to_timestamp(double seconds) {
  // Milliseconds are what brokers keep; a double holds them, and no nanoseconds.
  return Timestamp(std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000 + (seconds < 0 ? -0.5 : 0.5))));
}

OutgoingMessage to_outgoing(std::string topic, nb::handle message, nb::handle key, nb::handle headers,
                            std::optional<std::int32_t> partition, std::optional<double> timestamp) {
  OutgoingMessage made;
  made.topic = std::move(topic);
  const auto encoded = encode(message);
  made.payload = Payload(std::string(bytes_of(encoded)));
  made.key = to_key(key);
  made.headers = to_headers(headers);
  made.partition = partition;
  if (timestamp) made.timestamp = to_timestamp(*timestamp);
  return made;
}

nb::object to_receipt(Receipt receipt) {
  return nb::cast(std::move(receipt), nb::rv_policy::move);
}

const nb::object& Delivery::value() {
  if (!decoded.is_valid()) decoded = (decode.is_none() ? callables().loads : decode)(to_bytes(message.body()));
  return decoded;
}

namespace {

struct Place {
  std::int32_t partition;
  std::int64_t offset;
  std::string text;
};

std::string repr(Delivery& delivery) {
  const auto& message = delivery.message;
  std::string text = fmt::format("<Message {} at {}", message.topic(), message.position().to_string());
  if (message.key()) text += fmt::format(", key {}", nb::cast<std::string>(nb::repr(to_text(*message.key()))));
  return text + fmt::format(", {} bytes>", message.body().size());
}

}  // namespace

void bind_messages(nb::module_& module) {
  nb::class_<Place>(module, "Position", "Where a message stands on its broker. `str()` is the broker's own form.")
      .def_ro("partition", &Place::partition, "-1 on brokers that have none.")
      .def_ro("offset", &Place::offset, "-1 where positions are not numbers.")
      .def("__str__", [](const Place& place) { return place.text; })
      .def("__repr__", [](const Place& place) { return "<Position " + place.text + '>'; })
      .def(
          "__eq__",
          [](const Place& self, nb::handle other) {
            return nb::isinstance<Place>(other) && self.text == nb::cast<const Place&>(other).text;
          },
          nb::arg().none())
      .def("__hash__", [](const Place& place) { return std::hash<std::string>{}(place.text); });

  nb::class_<Receipt>(module, "Receipt", "What the broker said to a message that it took.")
      .def_prop_ro("topic", [](const Receipt& receipt) { return to_text(receipt.topic); })
      .def_prop_ro(
          "partition", [](const Receipt& receipt) { return receipt.partition; }, "-1 on brokers that have none.")
      .def_prop_ro(
          "offset", [](const Receipt& receipt) { return receipt.offset; }, "-1 where positions are not numbers.")
      .def_prop_ro(
          "position", [](const Receipt& receipt) { return to_text(receipt.position.value_or("")); },
          "The position in the broker's own form, where it is not a number.")
      .def_prop_ro(
          "timestamp",
          [](const Receipt& receipt) {
            return receipt.timestamp ? to_datetime(*receipt.timestamp) : nb::object(nb::none());
          },
          "The broker's time, aware, where it has one.")
      .def_prop_ro(
          "routed", [](const Receipt& receipt) { return receipt.routed; },
          "False where the broker had no queue for it (RabbitMQ).")
      .def_prop_ro(
          "confirmed", [](const Receipt& receipt) { return receipt.confirmed; },
          "False for a message that was only accepted into the buffer (`confirm=False`); the receipt says nothing else "
          "then.")
      .def("__repr__", [](const Receipt& receipt) {
        return receipt.confirmed ? fmt::format("<Receipt {} {}/{}>", receipt.topic, receipt.partition, receipt.offset)
                                 : std::string("<Receipt unconfirmed>");
      });

  auto message = nb::class_<Delivery>(module, "Message", nb::is_weak_referenceable(),
                                      "A message that arrived. It behaves as its decoded value: `message[\"id\"]`, "
                                      "`in`, iteration, `len`, equality, printing.");
  message.attr("__hash__") = nb::none();  // it equals values that have none
  message
      .def_prop_ro(
          "value", [](Delivery& self) { return self.value(); }, "The decoded payload. Raises `UndecodableError`.")
      .def_prop_ro("topic", [](const Delivery& self) { return to_text(self.message.topic()); })
      .def_prop_ro("key", [](const Delivery& self) { return to_text_or_none(self.message.key()); })
      .def_prop_ro(
          "headers", [](const Delivery& self) { return to_dict(self.message.headers()); },
          "Of a name that repeats, the last value.")
      .def_prop_ro("payload", [](const Delivery& self) { return to_bytes(self.message.body()); })
      .def_prop_ro(
          "id", [](const Delivery& self) { return to_text(self.message.id()); },
          "The header `ce_id`, else `message-id`, else `topic/partition/offset`, which stays the same when it is "
          "delivered again.")
      .def_prop_ro(
          "timestamp", [](const Delivery& self) { return to_datetime(self.message.timestamp()); }, "Aware, in UTC.")
      .def_prop_ro("position",
                   [](const Delivery& self) {
                     const auto& position = self.message.position();
                     return Place{position.partition, position.offset, position.to_string()};
                   })
      .def_prop_ro(
          "delivery_count", [](const Delivery& self) { return self.message.delivery_count(); },
          "How often it was handed out, this time included, where the broker counts; else 1.")
      .def_prop_ro("redelivered", [](const Delivery& self) { return self.message.redelivered(); })
      .def(
          "__getitem__", [](Delivery& self, nb::handle key) { return nb::object(self.value()[key]); }, nb::arg().none())
      .def(
          "__contains__",
          [](Delivery& self, nb::handle item) {
            const int found = PySequence_Contains(self.value().ptr(), item.ptr());
            if (found < 0) throw nb::python_error();
            return found == 1;
          },
          nb::arg().none())
      .def("__iter__", [](Delivery& self) { return nb::iter(self.value()); })
      .def("__len__", [](Delivery& self) { return nb::len(self.value()); })
      .def("__bool__",
           [](Delivery& self) {
             const int holds = PyObject_IsTrue(self.value().ptr());
             if (holds < 0) throw nb::python_error();
             return holds == 1;
           })
      .def(
          "__eq__",
          [](Delivery& self, nb::handle other) {
            // As the values compare, the other's own word included.
            const nb::handle with =
                nb::isinstance<Delivery>(other) ? nb::handle(nb::cast<Delivery&>(other).value()) : other;
            auto* equal = PyObject_RichCompare(self.value().ptr(), with.ptr(), Py_EQ);
            if (!equal) throw nb::python_error();
            return nb::steal(equal);
          },
          nb::arg().none())
      .def("get", [](Delivery& self, nb::args arguments) { return self.value().attr("get")(*arguments); })
      .def("keys", [](Delivery& self) { return self.value().attr("keys")(); })
      .def("values", [](Delivery& self) { return self.value().attr("values")(); })
      .def("items", [](Delivery& self) { return self.value().attr("items")(); })
      .def("__str__", [](Delivery& self) { return nb::str(self.value()); })
      .def("__repr__", &repr);

  nb::class_<EventDelivery, Delivery>(
      module, "Event",
      "What a handler gets that asks for it: the decoded data with its CloudEvents 1.0 attributes. A message without "
      "them is an\nevent all the same; they are None then.")
      .def_prop_ro("data", [](EventDelivery& self) { return self.value(); })
      .def_prop_ro("source",
                   [](const EventDelivery& self) { return to_text_or_none(self.message.header("ce_source")); })
      .def_prop_ro("type", [](const EventDelivery& self) { return to_text_or_none(self.message.header("ce_type")); })
      .def_prop_ro("subject",
                   [](const EventDelivery& self) { return to_text_or_none(self.message.header("ce_subject")); })
      .def_prop_ro(
          "time",
          [](const EventDelivery& self) {
            const auto text = self.message.header("ce_time");
            const auto time = text ? parse_rfc3339(*text) : std::nullopt;
            return time ? to_datetime(*time) : nb::object(nb::none());
          },
          "None where it is missing or not RFC 3339.")
      .def_prop_ro("content_type",
                   [](const EventDelivery& self) { return to_text_or_none(self.message.header("content-type")); })
      .def_prop_ro("traceparent",
                   [](const EventDelivery& self) { return to_text_or_none(self.message.header("traceparent")); })
      .def_prop_ro(
          "attempt", [](const EventDelivery& self) { return self.attempt; },
          "Which try of the handler this is, from 1.");
}

nb::object to_results(std::vector<PublishResult> results) {
  nb::list made;
  for (auto& result : results) {
    if (result.ok()) {
      made.append(to_receipt(std::move(result.receipt)));
      continue;
    }
    const auto code = static_cast<errc>(result.error.value());
    const MessagingError error(code, result.detail);
    const auto name = errc_name(code);
    made.append(callables().raise(nb::str(name.data(), name.size()), to_text(result.detail), to_text(error.what()),
                                  error.retriable()));
  }
  return made;
}

}  // namespace maestro::python

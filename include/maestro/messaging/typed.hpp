#pragma once

#include <boost/describe.hpp>
#include <boost/mp11/algorithm.hpp>
#include <cmath>
#include <limits>
#include <maestro/messaging/error.hpp>
#include <maestro/messaging/event.hpp>
#include <maestro/messaging/message.hpp>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace maestro::messaging {

/// A struct with BOOST_DESCRIBE_STRUCT: its public members are the fields of an event.
template <class T>
concept DescribedEvent = boost::describe::has_describe_members<T>::value && std::is_class_v<T>;

/// What did not fit, with where: `user_id: expected integer, got "x"; email: missing`.
class FieldErrors {
 public:
  void add(const std::string& path, std::string_view problem);
  void expected(const std::string& path, std::string_view what, const Value& got);
  [[nodiscard]] bool any() const noexcept { return count_ > 0; }
  /// Throws `MessagingError(invalid_event)` with all of them when there is one.
  void raise() const;

 private:
  static constexpr std::size_t listed = 50;
  std::string text_;
  std::size_t count_ = 0;
};

namespace detail {

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};
template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};
template <class T>
struct is_map : std::false_type {};
template <class T>
struct is_map<std::map<std::string, T>> : std::true_type {};
template <class T>
struct is_map<std::unordered_map<std::string, T>> : std::true_type {};

inline constexpr auto members = boost::describe::mod_public | boost::describe::mod_inherited;

std::string nested(const std::string& path, std::string_view field);
/// Of an entry of a map, whose key is another program's.
std::string at_key(const std::string& path, std::string_view key);

template <class T>
void read(const Value& value, T& to, const std::string& path, FieldErrors& errors) {
  if constexpr (std::is_same_v<T, Value>) {
    to = value;
  } else if constexpr (std::is_same_v<T, bool>) {
    if (const auto* held = value.if_bool()) {
      to = *held;
    } else {
      errors.expected(path, "true or false", value);
    }
  } else if constexpr (std::is_enum_v<T>) {
    const auto* text = value.if_string();
    bool found = false;
    std::string names;
    boost::mp11::mp_for_each<boost::describe::describe_enumerators<T>>([&](auto enumerator) {
      if (text && std::string_view(*text) == enumerator.name) {
        to = enumerator.value;
        found = true;
      }
      names += (names.empty() ? "" : ", ") + std::string(enumerator.name);
    });
    if (!found) errors.expected(path, "one of " + names, value);
  } else if constexpr (std::is_integral_v<T>) {
    const auto in_range = [](auto number) { return std::in_range<T>(number); };
    if (const auto* whole = value.if_int64(); whole && in_range(*whole)) {
      to = static_cast<T>(*whole);
    } else if (const auto* large = value.if_uint64(); large && in_range(*large)) {
      to = static_cast<T>(*large);
    } else if (value.is_int64() || value.is_uint64()) {
      errors.expected(path, "integer in [" + std::to_string(std::numeric_limits<T>::min()) + ", " +
                                std::to_string(std::numeric_limits<T>::max()) + "]", value);
    } else {
      errors.expected(path, "integer", value);
    }
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.is_number()) {
      errors.expected(path, "number", value);
    } else if (const auto number = value.to_number<double>(); std::abs(number) > std::numeric_limits<T>::max()) {
      errors.expected(path, "number in the range of the field", value);
    } else {
      to = static_cast<T>(number);
    }
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (const auto* text = value.if_string()) {
      to.assign(text->data(), text->size());
    } else {
      errors.expected(path, "text", value);
    }
  } else if constexpr (std::is_same_v<T, std::chrono::system_clock::time_point>) {
    const auto* text = value.if_string();
    if (const auto time = text ? parse_rfc3339(*text) : std::nullopt) {
      to = std::chrono::time_point_cast<std::chrono::system_clock::duration>(*time);
    } else {
      errors.expected(path, "an RFC 3339 time", value);
    }
  } else if constexpr (is_optional<T>::value) {
    if (value.is_null()) {
      to.reset();
    } else {
      read(value, to.emplace(), path, errors);
    }
  } else if constexpr (is_vector<T>::value) {
    const auto* array = value.if_array();
    if (!array) return errors.expected(path, "array", value);
    to.clear();
    to.reserve(array->size());
    for (std::size_t i = 0; i < array->size(); ++i) {
      typename T::value_type element{};
      read((*array)[i], element, path + '[' + std::to_string(i) + ']', errors);
      to.push_back(std::move(element));
    }
  } else if constexpr (is_map<T>::value) {
    const auto* object = value.if_object();
    if (!object) return errors.expected(path, "object", value);
    to.clear();
    for (const auto& entry : *object) read(entry.value(), to[std::string(entry.key())], at_key(path, entry.key()), errors);
  } else {
    static_assert(DescribedEvent<T>, "an event's field must be a number, text, time, optional, vector, map, Value, or a "
                                     "struct or enum with BOOST_DESCRIBE_STRUCT or BOOST_DESCRIBE_ENUM");
    const auto* object = value.if_object();
    if (!object) return errors.expected(path, "object", value);
    boost::mp11::mp_for_each<boost::describe::describe_members<T, members>>([&](auto member) {
      auto& field = to.*member.pointer;
      using Field = std::remove_reference_t<decltype(field)>;
      if (const auto* found = object->if_contains(member.name)) {
        read(*found, field, nested(path, member.name), errors);
      } else if constexpr (!is_optional<Field>::value) {
        errors.add(nested(path, member.name), "missing");
      }
    });
  }
}

[[noreturn]] void refuse_unnamed(std::string_view field, const std::string& number, const std::string& names);

template <class T>
Value write(const T& from, std::string_view field = {}) {
  if constexpr (std::is_enum_v<T>) {
    if (const char* name = boost::describe::enum_to_string(from, nullptr)) return Value(name);
    std::string names;
    boost::mp11::mp_for_each<boost::describe::describe_enumerators<T>>(
        [&](auto enumerator) { names += (names.empty() ? "" : ", ") + std::string(enumerator.name); });
    refuse_unnamed(field, std::to_string(static_cast<std::underlying_type_t<T>>(from)), names);
  } else if constexpr (std::is_same_v<T, std::chrono::system_clock::time_point>) {
    std::string text;
    append_exact_rfc3339(text, from);
    return Value(text);
  } else if constexpr (is_optional<T>::value) {
    return from ? write(*from, field) : Value(nullptr);
  } else if constexpr (is_vector<T>::value) {
    boost::json::array array;
    array.reserve(from.size());
    for (const auto& element : from) array.push_back(write(element, field));
    return array;
  } else if constexpr (is_map<T>::value) {
    boost::json::object object;
    for (const auto& [name, element] : from) object.emplace(name, write(element, name));
    return object;
  } else if constexpr (DescribedEvent<T>) {
    boost::json::object object;
    boost::mp11::mp_for_each<boost::describe::describe_members<T, members>>(
        [&](auto member) { object.emplace(member.name, write(from.*member.pointer, member.name)); });
    return object;
  } else {
    return Value(from);
  }
}

}  // namespace detail

/// The event as data: an object with a field for each described member; enums by name, times as RFC 3339 text with
/// all their digits. Throws `MessagingError(invalid_event)` for an enum value that has no name.
template <DescribedEvent T>
[[nodiscard]] Value to_value(const T& event) {
  return detail::write(event);
}

/// The data as an event. Fields that the struct lacks are ignored; an optional member may be missing or null.
/// Throws `MessagingError(invalid_event)` that names every field that does not fit.
template <DescribedEvent T>
[[nodiscard]] T from_value(const Value& data) {
  T event{};
  FieldErrors errors;
  detail::read(data, event, {}, errors);
  errors.raise();
  return event;
}

}  // namespace maestro::messaging

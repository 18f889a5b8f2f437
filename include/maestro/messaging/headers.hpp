#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace maestro::messaging {

using Header = std::pair<std::string_view, std::string_view>;

/// Ordered headers, text to text, in one block of bytes: two 32-bit lengths, the name and the value, for each.
/// A view: valid while the message or the `Headers` that it came from is.
class HeadersView {
 public:
  class iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = Header;
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = Header;

    iterator() = default;
    explicit iterator(const char* at) : at_(at) {}
    Header operator*() const noexcept {
      const auto [name, value] = lengths();
      return {std::string_view(at_ + prefix, name), std::string_view(at_ + prefix + name, value)};
    }
    iterator& operator++() noexcept {
      const auto [name, value] = lengths();
      at_ += prefix + name + value;
      return *this;
    }
    iterator operator++(int) noexcept {
      auto before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const iterator&, const iterator&) = default;

   private:
    friend class Headers;
    static constexpr std::size_t prefix = 2 * sizeof(std::uint32_t);
    [[nodiscard]] std::pair<std::uint32_t, std::uint32_t> lengths() const noexcept {
      std::uint32_t both[2];
      std::memcpy(both, at_, sizeof both);
      return {both[0], both[1]};
    }
    const char* at_ = nullptr;
  };

  HeadersView() = default;
  /// `block` is what `Headers::block()` gave.
  explicit HeadersView(std::string_view block) : block_(block) {}

  [[nodiscard]] iterator begin() const noexcept { return iterator(block_.data()); }
  [[nodiscard]] iterator end() const noexcept { return iterator(block_.data() + block_.size()); }
  [[nodiscard]] bool empty() const noexcept { return block_.empty(); }
  [[nodiscard]] std::size_t count() const noexcept {
    return static_cast<std::size_t>(std::distance(begin(), end()));
  }
  [[nodiscard]] std::string_view block() const noexcept { return block_; }

  /// The last value under this name; names are compared byte by byte.
  [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const noexcept {
    std::optional<std::string_view> found;
    for (const auto [each, value] : *this)
      if (each == name) found = value;
    return found;
  }

 private:
  std::string_view block_;
};

/// Headers that are being put together. Names may repeat; the order is kept.
class Headers {
 public:
  Headers() = default;
  Headers(std::initializer_list<Header> headers) {
    for (const auto& [name, value] : headers) add(name, value);
  }
  explicit Headers(HeadersView view) : block_(view.block()) {}
  /// Takes over what `block()` of other headers gave.
  static Headers from_block(std::string block) {
    Headers headers;
    headers.block_ = std::move(block);
    return headers;
  }

  /// Throws `MessagingError(invalid_argument)` for an empty name, or one with a control character or `:`.
  void add(std::string_view name, std::string_view value);
  /// Replaces every header of this name by one.
  void set(std::string_view name, std::string_view value);
  void remove(std::string_view name);
  void reserve(std::size_t bytes) { block_.reserve(bytes); }

  [[nodiscard]] HeadersView view() const noexcept { return HeadersView(block_); }
  operator HeadersView() const noexcept { return view(); }  // NOLINT(google-explicit-constructor)
  [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const noexcept { return view().find(name); }
  [[nodiscard]] bool empty() const noexcept { return block_.empty(); }
  [[nodiscard]] const std::string& block() const noexcept { return block_; }
  [[nodiscard]] auto begin() const noexcept { return view().begin(); }
  [[nodiscard]] auto end() const noexcept { return view().end(); }

 private:
  std::string block_;
};

}  // namespace maestro::messaging

#pragma once

#include <hiredis/read.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace maestro::messaging::redis {

/// A reply, or a part of one. What it refers to belongs to the reader that made it, or to whoever kept it.
struct Value {
  enum class Type : std::uint8_t { nil, integer, text, status, error, array };
  Type type = Type::nil;
  std::int64_t number = 0;
  std::string_view text;
  Value* first = nullptr;  ///< Of an array.
  std::size_t count = 0;

  [[nodiscard]] std::span<const Value> items() const noexcept { return {first, count}; }
  [[nodiscard]] bool is_error() const noexcept { return type == Type::error; }
  [[nodiscard]] bool is_nil() const noexcept { return type == Type::nil; }
};

/// `[name, value, …]`, by name.
[[nodiscard]] std::map<std::string_view, const Value*> fields_of(const Value& value);

/// The number under `name` in the text that `INFO` gives.
[[nodiscard]] std::optional<std::int64_t> info_number(std::string_view info, std::string_view name);

/// Bytes of a connection in, replies out (RESP2). Does no I/O. hiredis parses; the values are laid out here, those of one reply
/// in few pieces of memory that can be kept as a whole.
class ReplyReader {
 public:
  ReplyReader();
  ~ReplyReader();
  ReplyReader(const ReplyReader&) = delete;
  ReplyReader& operator=(const ReplyReader&) = delete;

  void feed(std::string_view bytes);
  /// The next reply, valid until the next call; none when more bytes are needed. Throws `MessagingError(broker_error)` for what is
  /// no RESP; nothing can be read any more then.
  const Value* next();
  /// Keeps what `next()` gave last.
  [[nodiscard]] std::shared_ptr<const void> keep();

 private:
  struct Arena;
  struct Functions;
  std::unique_ptr<redisReader, void (*)(redisReader*)> reader_;
  std::shared_ptr<Arena> arena_;
  bool used_ = false;
};

/// Appends one command.
void append_command(std::string& to, std::span<const std::string_view> words);
inline void append_command(std::string& to, std::initializer_list<std::string_view> words) {
  append_command(to, std::span(words.begin(), words.size()));
}
/// Appends the beginning of a command of so many words, then each word.
void append_count(std::string& to, std::size_t words);
void append_word(std::string& to, std::string_view word);

}  // namespace maestro::messaging::redis

#include "brokers/redis/resp.hpp"

#include <charconv>
#include <cstring>
#include <maestro/messaging/error.hpp>
#include <vector>

namespace maestro::messaging::redis {

/// Memory of one reply: pieces that grow, and are given back together.
struct ReplyReader::Arena {
  Arena() {
    pieces_.emplace_back(new std::byte[first_size]);
    clear();
  }
  void* allocate(std::size_t size) {
    size = (size + alignof(std::max_align_t) - 1) / alignof(std::max_align_t) * alignof(std::max_align_t);
    if (size > left_) {
      // A reply of a 100 MB goes into pieces of its own, a small one into the first.
      const auto piece = std::max(size, std::min(most_size, 2 * last_size_));
      pieces_.emplace_back(new std::byte[piece]);
      at_ = pieces_.back().get();
      left_ = last_size_ = piece;
    }
    auto* made = at_;
    at_ += size;
    left_ -= size;
    return made;
  }
  std::string_view copy(const char* text, std::size_t size) {
    auto* to = static_cast<char*>(allocate(size));
    std::memcpy(to, text, size);
    return {to, size};
  }
  /// Null for more than is believed: a few bytes may promise any number of values.
  Value* values(std::size_t count) {
    if (count > believed_ + fed - promised_) return nullptr;
    promised_ += count;
    auto* made = static_cast<Value*>(allocate(count * sizeof(Value)));
    std::uninitialized_value_construct_n(made, count);
    return made;
  }
  void clear() {
    pieces_.resize(1);
    at_ = pieces_.front().get();
    left_ = last_size_ = first_size;
    promised_ = fed = 0;
  }
  Value root;
  std::size_t fed = 0;  ///< Bytes since the reply began.

 private:
  static constexpr std::size_t believed_ = 1'048'576;
  static constexpr std::size_t first_size = 1024;
  static constexpr std::size_t most_size = std::size_t{1} << 20;
  std::vector<std::unique_ptr<std::byte[]>> pieces_;
  std::byte* at_ = nullptr;
  std::size_t left_ = 0;
  std::size_t last_size_ = 0;
  std::size_t promised_ = 0;
};

// What hiredis calls for each part; the reader's private data is the arena.
struct ReplyReader::Functions {
  static Arena& arena(const redisReadTask* task) { return *static_cast<Arena*>(task->privdata); }
  static Value& place(const redisReadTask* task) {
    if (!task->parent) return arena(task).root = Value{};
    return static_cast<Value*>(task->parent->obj)->first[task->idx];
  }
  static void* text(const redisReadTask* task, char* from, std::size_t size) {
    auto& value = place(task);
    value.type = task->type == REDIS_REPLY_ERROR    ? Value::Type::error
                 : task->type == REDIS_REPLY_STATUS ? Value::Type::status
                                                    : Value::Type::text;
    value.text = arena(task).copy(from, size);
    return &value;
  }
  static void* array(const redisReadTask* task, int count) {
    auto* values = count < 0 ? nullptr : arena(task).values(static_cast<std::size_t>(count));
    if (!values) return nullptr;
    auto& value = place(task);
    value.type = Value::Type::array;
    value.first = values;
    value.count = static_cast<std::size_t>(count);
    return &value;
  }
  static void* integer(const redisReadTask* task, long long number) {
    auto& value = place(task);
    value.type = Value::Type::integer;
    value.number = number;
    return &value;
  }
  static void* nil(const redisReadTask* task) { return &place(task); }
  static void free(void*) {}  // the arena's

  static redisReplyObjectFunctions* table() {
    static redisReplyObjectFunctions functions{&text, &array, &integer, &nil, &free};
    return &functions;
  }
};

std::map<std::string_view, const Value*> fields_of(const Value& value) {
  std::map<std::string_view, const Value*> fields;
  for (std::size_t i = 0; i + 1 < value.count; i += 2) fields[value.items()[i].text] = &value.items()[i + 1];
  return fields;
}

std::optional<std::int64_t> info_number(std::string_view info, std::string_view name) {
  while (!info.empty()) {
    const auto line = info.substr(0, info.find("\r\n"));
    info.remove_prefix(std::min(info.size(), line.size() + 2));
    if (line.size() <= name.size() || !line.starts_with(name) || line[name.size()] != ':') continue;
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(line.data() + name.size() + 1, line.data() + line.size(), number);
    return error == std::errc{} && end == line.data() + line.size() ? std::optional(number) : std::nullopt;
  }
  return std::nullopt;
}

ReplyReader::ReplyReader()
    : reader_(redisReaderCreateWithFunctions(Functions::table()), &redisReaderFree), arena_(std::make_shared<Arena>()) {
  reader_->privdata = arena_.get();
}

ReplyReader::~ReplyReader() = default;

void ReplyReader::feed(std::string_view bytes) {
  arena_->fed += bytes.size();
  redisReaderFeed(reader_.get(), bytes.data(), bytes.size());
}

const Value* ReplyReader::next() {
  if (std::exchange(used_, false)) {
    if (arena_.use_count() > 1) {
      arena_ = std::make_shared<Arena>();
    } else {
      arena_->clear();
    }
    reader_->privdata = arena_.get();
  }
  void* reply = nullptr;
  if (redisReaderGetReply(reader_.get(), &reply) != REDIS_OK)
    throw MessagingError(errc::broker_error, std::string("Redis: an answer that is none: ") + reader_->errstr);
  if (!reply) return nullptr;
  used_ = true;
  return static_cast<const Value*>(reply);
}

std::shared_ptr<const void> ReplyReader::keep() { return arena_; }

namespace {

/// Appends `$7\r\n` and the like at once.
void append_number(std::string& to, char kind, std::size_t number) {
  char line[32];
  line[0] = kind;
  auto* end = std::to_chars(line + 1, line + sizeof line, number).ptr;
  *end++ = '\r';
  *end++ = '\n';
  to.append(line, end);
}

}  // namespace

void append_count(std::string& to, std::size_t words) { append_number(to, '*', words); }

void append_word(std::string& to, std::string_view word) {
  append_number(to, '$', word.size());
  to.append(word);
  to.append("\r\n", 2);
}

void append_command(std::string& to, std::span<const std::string_view> words) {
  append_count(to, words.size());
  for (const auto word : words) append_word(to, word);
}

}  // namespace maestro::messaging::redis

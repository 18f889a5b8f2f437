#include "brokers/redis/connection.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "runtime/notifier.hpp"

namespace maestro::messaging::redis {

namespace asio = boost::asio;

namespace {

constexpr std::size_t read_size = 256 * 1024;

MessagingError unreachable(const Address& address, std::string_view why) {
  return {errc::connection_failed, fmt::format("no Redis at {}: {}", address.shown(), why)};
}

/// One or several commands that a coroutine waits for. The coroutine is not kept by the connection, which it may keep itself.
class Asked final : public Call {
 public:
  explicit Asked(std::size_t count) : replies(count) {}

  void on_reply(std::size_t index, const Value& reply, ReplyReader& reader) override {
    // The root is used again by the reader; its parts are the owner's.
    const auto kept = std::make_shared<std::pair<Value, std::shared_ptr<const void>>>(reply, reader.keep());
    replies[index] = {&kept->first, kept};
    if (++answered == replies.size() && waiting) waiting->notify();
  }
  void on_broken(std::size_t, bool, const Failure& why) override {
    failure = why;
    if (waiting) waiting->notify();
  }

  std::vector<Kept> replies;
  std::size_t answered = 0;
  std::optional<Failure> failure;
  Notifier* waiting = nullptr;
};

awaitable<void> wait_for(std::shared_ptr<Asked> asked, Clock& clock, asio::any_io_executor executor) {
  Notifier done(clock, executor);
  struct Leave {
    Asked& asked;
    ~Leave() { asked.waiting = nullptr; }
  } const leave{*asked};
  asked->waiting = &done;
  while (!asked->failure && asked->answered < asked->replies.size()) co_await done.wait();
  if (asked->failure) throw MessagingError(asked->failure->code, asked->failure->detail);
}

// An operation that ended because we were cancelled is no failure of the server's.
awaitable<void> throw_if_cancelled() {
  const auto state = co_await asio::this_coro::cancellation_state;
  if (state.cancelled() != asio::cancellation_type::none) throw boost::system::system_error(asio::error::operation_aborted);
}

}  // namespace

Connection::Connection(const asio::any_io_executor& executor, std::shared_ptr<Clock> clock, asio::ssl::context* tls,
                       std::string tls_name)
    : executor_(executor), clock_(std::move(clock)), socket_(executor), tls_(tls), tls_name_(std::move(tls_name)), in_(read_size) {}

Connection::~Connection() = default;

awaitable<void> Connection::connect_socket(const Address& address, TimePoint deadline) {
  const auto self = shared_from_this();
  const auto token = asio::as_tuple(asio::use_awaitable);
  // The limit closes the socket, and with it whatever is waited for.
  bool late = false;
  const auto limit = clock_->make_timer(executor_);
  limit->expires_at(deadline);
  limit->async_wait([weak = weak_from_this(), &late](boost::system::error_code error) {
    const auto alive = weak.lock();
    if (error || !alive) return;
    late = true;
    boost::system::error_code ignored;
    alive->socket_.close(ignored);
  });
  struct Cancel {
    Timer& timer;
    ~Cancel() { timer.cancel(); }
  } const cancel{*limit};
  boost::system::error_code error;
  if (!address.socket.empty()) {
    auto outcome = co_await socket_.async_connect(asio::local::stream_protocol::endpoint(address.socket), token);
    error = std::get<0>(outcome);
  } else {
    asio::ip::tcp::resolver resolver(executor_);
    auto resolved = co_await resolver.async_resolve(address.host, std::to_string(address.port), token);
    error = std::get<0>(resolved);
    co_await throw_if_cancelled();
    if (error) throw unreachable(address, error.message());
    for (const auto& entry : std::get<1>(resolved)) {
      if (late) break;
      boost::system::error_code ignored;
      socket_.close(ignored);
      auto outcome = co_await socket_.async_connect(asio::generic::stream_protocol::endpoint(entry.endpoint()), token);
      error = std::get<0>(outcome);
      co_await throw_if_cancelled();
      if (!error) break;
    }
    boost::system::error_code ignored;
    if (!error) socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
    if (!error) socket_.set_option(asio::socket_base::keep_alive(true), ignored);
  }
  co_await throw_if_cancelled();
  if (late) throw unreachable(address, "no answer within connect_timeout");
  if (error) throw unreachable(address, error.message());
  socket_.non_blocking(true, error);
  if (!address.tls) co_return;
  secure_ = std::make_unique<asio::ssl::stream<Socket&>>(socket_, *tls_);
  if (!tls_name_.empty()) {
    SSL_set_tlsext_host_name(secure_->native_handle(), tls_name_.c_str());
    secure_->set_verify_callback(asio::ssl::host_name_verification(tls_name_));
  }
  auto shaken = co_await secure_->async_handshake(asio::ssl::stream_base::client, token);
  co_await throw_if_cancelled();
  constexpr std::string_view hint = "; if it speaks no TLS there, say redis:// instead of rediss://";
  if (late) throw unreachable(address, fmt::format("no TLS handshake within connect_timeout{}", hint));
  if (const auto failed = std::get<0>(shaken)) {
    const bool is_tls = failed.category() == asio::error::get_ssl_category();
    const bool is_plain =
        is_tls && ERR_GET_REASON(static_cast<unsigned long>(failed.value())) == SSL_R_WRONG_VERSION_NUMBER;
    throw MessagingError(
        is_tls ? errc::tls_failed : errc::connection_failed,
        fmt::format("the TLS handshake with {} failed: {}{}", address.shown(), failed.message(), is_plain ? hint : ""));
  }
}

awaitable<void> Connection::open(const Address& address, const std::string& client_name, TimePoint deadline) {
  const auto self = shared_from_this();
  co_await connect_socket(address, deadline);
  open_ = true;
  heard_ = clock_->now();
  read();
  // Its reading keeps it: whoever gives up on the way has to close it.
  struct Close {
    Connection* connection;
    ~Close() {
      if (connection) connection->close({errc::closed, "given up on its way"});
    }
  } unless_used{this};
  std::vector<std::vector<std::string>> login;
  std::vector<std::string> what;
  // A user without a password is one that needs none, and never the default user.
  if (address.password || !address.user.empty()) {
    const auto password = address.password.value_or("");
    login.push_back(address.user.empty() ? std::vector<std::string>{"AUTH", password}
                                         : std::vector<std::string>{"AUTH", address.user, password});
    what.emplace_back("logging in");
  }
  login.push_back({"SELECT", std::to_string(address.database)});
  what.push_back(fmt::format("choosing database {}", address.database));
  const auto needed = login.size();
  login.push_back({"CLIENT", "SETNAME", client_name});  // for people, and may be forbidden, as what follows may be unknown
  login.push_back({"CLIENT", "INFO"});
  const auto limit = clock_->make_timer(executor_);
  limit->expires_at(deadline);
  limit->async_wait([weak = weak_from_this(), shown = address.shown()](boost::system::error_code error) {
    const auto alive = weak.lock();
    if (!error && alive)
      alive->close({errc::connection_failed, fmt::format("Redis at {} did not answer within connect_timeout", shown)});
  });
  struct Cancel {
    Timer& timer;
    ~Cancel() { timer.cancel(); }
  } const cancel{*limit};
  const auto connected = heard_;
  std::vector<Kept> replies;
  try {
    replies = co_await ask_all(std::move(login));
  } catch (const MessagingError& failure) {
    const bool is_hung_up = heard_ == connected && clock_->now() < deadline;
    if (!is_hung_up || address.tls || !address.socket.empty()) throw;
    throw MessagingError(
        failure.reason(),
        fmt::format("{} before {} said a word; if it wants TLS there, say rediss:// instead of redis://",
                    failure.detail(), address.shown()));
  }
  // "id=3 addr=127.0.0.1:1234 …"; since 6.2.
  if (const auto& info = *replies.back(); !info.is_error()) {
    const auto field = [&info](std::string_view name) {
      const auto at = info.text.find(name);
      if (at == std::string_view::npos) return std::string();
      const auto rest = info.text.substr(at + name.size());
      return std::string(rest.substr(0, rest.find(' ')));
    };
    // The number alone may be another's after the server was started again.
    if (const auto id = field("id="), at = field(" addr="); !id.empty() && !at.empty()) kill_command_ = {"CLIENT", "KILL", "ID", id, "ADDR", at};
  }
  for (std::size_t i = 0; i < needed; ++i) {
    if (!replies[i]->is_error()) continue;
    const auto failure = describe(replies[i]->text, fmt::format("{} at {}", what[i], address.shown()));
    close(failure);
    throw MessagingError(failure.code, failure.detail);
  }
  unless_used.connection = nullptr;
}

void Connection::close(const Failure& why) {
  if (!std::exchange(open_, false)) return;
  boost::system::error_code ignored;
  socket_.close(ignored);
  const auto self = shared_from_this();
  auto waiting = std::exchange(waiting_, {});
  outstanding_ = 0;
  for (auto& each : waiting) each.call->on_broken(each.next, each.begin < sent_, why);
  if (const auto tell = std::exchange(on_close_, nullptr)) tell(why);
}

void Connection::send(std::string_view commands, std::size_t count, std::shared_ptr<Call> call) {
  out_ += commands;
  sent(count, std::move(call));
}

void Connection::sent(std::size_t count, std::shared_ptr<Call> call) {
  if (!open_) {
    out_.clear();
    call->on_broken(0, false, {errc::connection_failed, "the connection is closed"});
    return;
  }
  waiting_.push_back({std::move(call), 0, count, appended_});
  appended_ = sent_ + out_.size();
  outstanding_ += count;
  used_ = heard_;  // recent enough, and no look at the clock
  schedule_write();
}

void Connection::push() {
  constexpr std::size_t large = 64 * 1024;
  if (out_.size() < large || secure_ || !open_ || !writing_.empty()) return;
  boost::system::error_code error;
  const auto taken = socket_.write_some(asio::buffer(out_), error);
  if (error) return;  // it would block, or is broken: the usual way finds out
  out_.erase(0, taken);
  sent_ += taken;
}

void Connection::tell(std::initializer_list<std::string_view> words) {
  class Ignored final : public Call {
    void on_reply(std::size_t, const Value&, ReplyReader&) override {}
    void on_broken(std::size_t, bool, const Failure&) override {}
  };
  append_command(out_, words);
  sent(1, std::make_shared<Ignored>());
}

void Connection::listen(std::weak_ptr<Pushes> pushes) {
  pushes_ = std::move(pushes);
  listening_ = true;
}

void Connection::say(std::span<const std::string_view> words) {
  if (!open_) return;
  const auto before = out_.size();
  append_command(out_, words);
  appended_ += out_.size() - before;
  schedule_write();
}

void Connection::go_on() {
  if (std::exchange(held_, false) && open_ && !reading_) read();
}

// What was sent after the last look counts from this one on: nothing is asked of the clock when a command is sent.
Duration Connection::owes(TimePoint now) noexcept {
  if (!socket_.is_open() || outstanding_ == 0) {
    owes_since_.reset();
    return Duration::zero();
  }
  owes_since_ = owes_since_ ? std::max(*owes_since_, heard_) : now;
  return now - *owes_since_;
}

void Connection::ping() {
  const auto used = used_;
  tell({"PING"});
  used_ = used;
}

void Connection::schedule_write() {
  if (write_scheduled_ || !writing_.empty()) return;
  write_scheduled_ = true;
  asio::post(executor_, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->write_scheduled_ = false;
    self->write();
  });
}

void Connection::write() {
  if (!open_ || out_.empty() || !writing_.empty()) return;
  writing_.swap(out_);
  out_.clear();
  sent_ += writing_.size();
  with_stream([this](auto& stream) {
    asio::async_write(stream, asio::buffer(writing_), [self = shared_from_this()](boost::system::error_code error, std::size_t) {
      self->writing_.clear();
      if (error) {
        self->close({errc::connection_failed, fmt::format("the connection to Redis broke: {}", error.message())});
      } else {
        self->write();
      }
    });
  });
}

void Connection::read() {
  reading_ = true;
  with_stream([this](auto& stream) {
    stream.async_read_some(asio::buffer(in_), [self = shared_from_this()](boost::system::error_code error, std::size_t bytes) {
      self->reading_ = false;
      if (error) {
        self->close({errc::connection_failed, fmt::format("the connection to Redis broke: {}", error.message())});
      } else {
        self->on_read(bytes);
      }
    });
  });
}

void Connection::on_read(std::size_t bytes) {
  heard_ = clock_->now();
  reader_.feed({in_.data(), bytes});
  const auto pushes = listening_ ? pushes_.lock() : nullptr;
  std::shared_ptr<Call> call;  // whose answers are coming
  try {
    while (open_) {
      const auto* reply = reader_.next();
      if (!reply) break;
      if (listening_) {
        if (pushes) pushes->on_push(*reply);
        continue;
      }
      if (waiting_.empty()) throw MessagingError(errc::broker_error, "Redis: an answer that nobody asked for");
      auto& front = waiting_.front();
      if (call != front.call) call = front.call;
      const auto index = front.next++;
      --outstanding_;
      if (front.next == front.count) waiting_.pop_front();
      retired_ = retired_ || (reply->is_error() && is_from_replica(reply->text));
      call->on_reply(index, *reply, reader_);
    }
  } catch (const MessagingError& failure) {
    close({failure.reason(), failure.detail()});
  }
  if (retired_ && outstanding_ == 0)
    close({errc::connection_failed, "the server is a replica; the next connection asks for the address again"});
  if (pushes) pushes->on_burst(bytes == in_.size());
  if (open_ && !held_ && !reading_) read();
}

awaitable<std::vector<Kept>> Connection::ask_all(std::vector<std::vector<std::string>> commands, std::size_t before) {
  const auto self = shared_from_this();
  const auto count = before + commands.size();
  auto asked = std::make_shared<Asked>(count);
  for (const auto& words : commands) {
    append_count(out_, words.size());
    for (const auto& word : words) append_word(out_, word);
  }
  sent(count, asked);
  co_await wait_for(asked, *clock_, executor_);
  co_return std::move(asked->replies);
}

awaitable<Kept> Connection::ask(std::vector<std::string> words) {
  std::vector<std::vector<std::string>> one;
  one.push_back(std::move(words));
  auto replies = co_await ask_all(std::move(one));
  co_return std::move(replies.front());
}

}  // namespace maestro::messaging::redis

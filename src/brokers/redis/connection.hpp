#pragma once

#include <array>
#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <deque>
#include <functional>
#include <maestro/messaging/time.hpp>
#include <maestro/messaging/transport.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "brokers/redis/address.hpp"
#include "brokers/redis/failure.hpp"
#include "brokers/redis/resp.hpp"

namespace maestro::messaging::redis {

/// A reply that was kept: its value, and what that refers to.
struct Kept {
  const Value* value = nullptr;
  std::shared_ptr<const void> owner;

  const Value& operator*() const noexcept { return *value; }
  const Value* operator->() const noexcept { return value; }
};

/// Who waits for the replies of commands that were sent together. Called on the connection's executor.
class Call {
 public:
  virtual ~Call() = default;
  /// The reply of command `index`; `reader` can keep it.
  virtual void on_reply(std::size_t index, const Value& reply, ReplyReader& reader) = 0;
  /// The connection is gone; command `from` and all after it have no answer. `was_sent`: the server may have them.
  virtual void on_broken(std::size_t from, bool was_sent, const Failure& why) = 0;
};

/// Who hears what a subscribed connection is told, on its executor.
class Pushes {
 public:
  virtual ~Pushes() = default;
  virtual void on_push(const Value& push) = 0;
  /// All that came together was handed over; `full`: so much that more is waiting, perhaps.
  virtual void on_burst(bool full) = 0;
};

/// One connection: commands go out in the order in which they are sent, those of one turn of the loop in one write, and are answered in
/// that order. Nothing waits for an answer before it sends the next.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(const boost::asio::any_io_executor& executor, std::shared_ptr<Clock> clock, boost::asio::ssl::context* tls,
             std::string tls_name);
  ~Connection();

  /// Connects and logs in. Throws `connection_failed`, `authentication_failed` or `tls_failed`.
  awaitable<void> open(const Address& address, const std::string& client_name, TimePoint deadline);
  /// Ends it: whoever waits is told.
  void close(const Failure& why);
  /// Whether it is there for more commands. Not after the server said that it is a replica: then it closes with its
  /// last answer.
  [[nodiscard]] bool is_open() const noexcept { return open_ && !retired_; }
  /// Called once when it is gone, on its executor.
  void on_close(std::function<void(const Failure&)> tell) { on_close_ = std::move(tell); }

  /// Commands that are encoded already, `count` of them. The call hears of each. When the connection is closed it hears so at once.
  void send(std::string_view commands, std::size_t count, std::shared_ptr<Call> call);
  /// The same into the buffer itself: append to `buffer()` first.
  [[nodiscard]] std::string& buffer() noexcept { return out_; }
  void sent(std::size_t count, std::shared_ptr<Call> call);
  /// Gives the kernel what it takes of a large buffer at once, so that the server begins while more is appended. `sent` still has to come
  /// in the same turn of the loop.
  void push();

  /// Sends one command whose answer changes nothing.
  void tell(std::initializer_list<std::string_view> words);
  /// Sends one command and completes with its reply, which may be an error of the server's. Throws `connection_failed` when the
  /// connection breaks. Cancelling the wait leaves the command to its fate.
  awaitable<Kept> ask(std::vector<std::string> words);
  /// Several, with a reply each; `before` commands stand in the buffer already, and have their replies first.
  awaitable<std::vector<Kept>> ask_all(std::vector<std::vector<std::string>> commands, std::size_t before = 0);

  /// From now on whatever comes is a push, and an answer to `say`: the connection is for subscriptions.
  void listen(std::weak_ptr<Pushes> pushes);
  void say(std::span<const std::string_view> words);
  void say(std::initializer_list<std::string_view> words) { say(std::span(words.begin(), words.size())); }
  /// Reads nothing more for now: the server has to keep it.
  void hold() noexcept { held_ = true; }
  void go_on();
  [[nodiscard]] bool is_held() const noexcept { return held_; }

  /// Commands without an answer.
  [[nodiscard]] std::size_t outstanding() const noexcept { return outstanding_; }
  /// The command by which another connection ends this one at the server, should it be there still; empty where the server does not say
  /// who we are. What this one had sent is then done, or never will be.
  [[nodiscard]] const std::vector<std::string>& kill_command() const noexcept { return kill_command_; }
  /// Asks whether the server is there, without counting as use.
  void ping();
  /// For how long the server has owed an answer and said nothing, as far as can be told by asking this again and again.
  [[nodiscard]] Duration owes(TimePoint now) noexcept;
  /// When something came last, and when a command was sent last.
  [[nodiscard]] TimePoint last_heard() const noexcept { return heard_; }
  [[nodiscard]] TimePoint last_used() const noexcept { return used_; }

 private:
  using Socket = boost::asio::generic::stream_protocol::socket;
  struct Waiting {
    std::shared_ptr<Call> call;
    std::size_t next;
    std::size_t count;
    std::uint64_t begin;  ///< Where its bytes begin in all that was ever sent.
  };

  awaitable<void> connect_socket(const Address& address, TimePoint deadline);
  void schedule_write();
  void write();
  void read();
  void on_read(std::size_t bytes);
  template <class Work>
  void with_stream(Work work) {
    if (secure_) {
      work(*secure_);
    } else {
      work(socket_);
    }
  }

  boost::asio::any_io_executor executor_;
  std::shared_ptr<Clock> clock_;
  Socket socket_;
  boost::asio::ssl::context* tls_;
  std::string tls_name_;
  std::unique_ptr<boost::asio::ssl::stream<Socket&>> secure_;
  ReplyReader reader_;
  std::vector<char> in_;
  std::string out_;
  std::string writing_;
  std::deque<Waiting> waiting_;
  std::size_t outstanding_ = 0;
  std::uint64_t sent_ = 0;      // bytes that were given to the socket
  std::uint64_t appended_ = 0;  // and those that were appended for a call
  bool open_ = false;
  bool retired_ = false;
  bool write_scheduled_ = false;
  TimePoint heard_{};
  std::optional<TimePoint> owes_since_;
  TimePoint used_{};
  std::function<void(const Failure&)> on_close_;
  std::weak_ptr<Pushes> pushes_;
  bool listening_ = false;
  bool held_ = false;
  bool reading_ = false;
  std::vector<std::string> kill_command_;
};

}  // namespace maestro::messaging::redis

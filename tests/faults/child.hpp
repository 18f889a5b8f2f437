#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/process.hpp>
#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace maestro::messaging::testing {

/// The program of child.cpp in a process of its own. What it prints goes to `line`, also what was printed just before
/// it was killed.
class Child {
 public:
  Child(boost::asio::io_context& context, std::vector<std::string> arguments,
        std::function<void(const std::string&)> line)
      : state_(std::make_shared<State>(context, std::move(line))) {
    state_->process =
        boost::process::child(boost::process::exe = MAESTRO_FAULT_CHILD, boost::process::args = std::move(arguments),
                              boost::process::std_out > state_->output);
    boost::asio::co_spawn(context, read(state_), boost::asio::detached);
  }
  ~Child() { kill(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// SIGKILL.
  void kill() {
    if (!state_->process.valid() || !state_->process.running()) return;
    ::kill(state_->process.id(), SIGKILL);
    state_->process.wait();
  }
  [[nodiscard]] bool running() { return state_->process.running(); }
  [[nodiscard]] int id() const { return state_->process.id(); }
  /// Everything that it printed was read.
  [[nodiscard]] bool ended() const { return state_->ended; }

 private:
  struct State {
    State(boost::asio::io_context& context, std::function<void(const std::string&)> on_line)
        : output(context), line(std::move(on_line)) {}
    boost::process::async_pipe output;
    boost::process::child process;
    std::function<void(const std::string&)> line;
    bool ended = false;
  };

  static boost::asio::awaitable<void> read(std::shared_ptr<State> state) {
    std::string buffer;
    for (;;) {
      boost::system::error_code error;
      const auto size =
          co_await boost::asio::async_read_until(state->output, boost::asio::dynamic_buffer(buffer), '\n',
                                                 boost::asio::redirect_error(boost::asio::use_awaitable, error));
      if (error) break;
      state->line(buffer.substr(0, size - 1));
      buffer.erase(0, size);
    }
    state->ended = true;
  }

  std::shared_ptr<State> state_;
};

}  // namespace maestro::messaging::testing

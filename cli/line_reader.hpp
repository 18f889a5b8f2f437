#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <maestro/messaging/transport.hpp>
#include <string>

namespace maestro::cli {

/// The lines of a file, or of whatever standard input is. Waiting for more can be cancelled, which is how an interrupt
/// ends it.
class LineReader {
 public:
  /// `path`: a file, or `-` for standard input. Of a line that is longer than `longest` no more is kept. Throws
  /// `UsageError` for what cannot be read.
  LineReader(const boost::asio::any_io_executor& executor, const std::string& path, std::size_t longest);

  /// The next line, if all of it is here. One that is too long is empty.
  bool take(std::string& line);
  /// Whether the line that was taken last was too long.
  [[nodiscard]] bool was_too_long() const noexcept { return was_too_long_; }
  /// Whether `fill` would not have to wait.
  [[nodiscard]] bool more_is_here();
  /// Waits until there is more, and reads it. False at the end, before which a last line need not be ended. Throws
  /// `UsageError` for what cannot be read.
  messaging::awaitable<bool> fill();

 private:
  [[noreturn]] void refuse(int error) const;

  std::string name_;
  boost::asio::posix::stream_descriptor stream_;
  std::size_t longest_;
  std::string text_;
  std::size_t begin_ = 0;    ///< Of what was not taken.
  std::size_t scanned_ = 0;  ///< No line ends before it.
  bool is_too_long_ = false;  ///< The line of which the end is not here yet.
  bool was_too_long_ = false;
  bool ended_ = false;
};

}  // namespace maestro::cli

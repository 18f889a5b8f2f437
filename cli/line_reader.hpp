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
  /// `path`: a file, or `-` for standard input. Throws `UsageError` for what cannot be read.
  LineReader(const boost::asio::any_io_executor& executor, const std::string& path);

  /// The next line, if all of it is here.
  bool take(std::string& line);
  /// Whether `fill` would not have to wait.
  [[nodiscard]] bool more_is_here();
  /// Waits until there is more, and reads it. False at the end, before which a last line need not be ended. Throws
  /// `UsageError` for what cannot be read.
  messaging::awaitable<bool> fill();

 private:
  [[noreturn]] void refuse(int error) const;

  std::string name_;
  boost::asio::posix::stream_descriptor stream_;
  std::string text_;
  std::size_t begin_ = 0;    ///< Of what was not taken.
  std::size_t scanned_ = 0;  ///< No line ends before it.
  bool ended_ = false;
};

}  // namespace maestro::cli

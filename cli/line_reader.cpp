#include "line_reader.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <system_error>
#include <utility>

#include "output.hpp"
#include "session.hpp"

namespace maestro::cli {

namespace asio = boost::asio;

LineReader::LineReader(const asio::any_io_executor& executor, const std::string& path, std::size_t longest)
    : name_(path == "-" ? "standard input" : fmt::format("'{}'", printable(path))),
      stream_(executor),
      longest_(longest) {
  // A copy, for the descriptor closes what it has. A named pipe that nobody writes to yet is waited for in `fill`, not
  // here.
  const int file =
      path == "-" ? ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0) : ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) refuse(errno);
  stream_.assign(file);
}

void LineReader::refuse(int error) const {
  throw InputError(fmt::format("cannot read {}: {}. Give a file of lines, or - for standard input", name_,
                               std::system_category().message(error)));
}

bool LineReader::take(std::string& line) {
  const auto end = text_.find('\n', scanned_);
  if (end == std::string::npos) {
    text_.erase(0, begin_);
    begin_ = 0;
    is_too_long_ = is_too_long_ || text_.size() > longest_;
    if (is_too_long_) text_.clear();
    scanned_ = text_.size();
    return false;
  }
  was_too_long_ = std::exchange(is_too_long_, false) || end - begin_ > longest_;
  line.assign(text_, begin_, was_too_long_ ? 0 : end - begin_);
  begin_ = scanned_ = end + 1;
  return true;
}

bool LineReader::more_is_here() {
  pollfd asked{stream_.native_handle(), POLLIN, 0};
  return ::poll(&asked, 1, 0) > 0;
}

messaging::awaitable<bool> LineReader::fill() {
  constexpr std::size_t most = 64 * 1024;
  while (!ended_) {
    boost::system::error_code error;
    co_await stream_.async_wait(asio::posix::stream_descriptor::wait_read,
                                asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_not_supported) {
      // A plain file is always ready; an interrupt is heard between two reads.
      co_await asio::post(stream_.get_executor(), asio::use_awaitable);
    } else if (error) {
      throw boost::system::system_error(error);
    }
    const auto before = text_.size();
    text_.resize(before + most);
    const auto count = ::read(stream_.native_handle(), text_.data() + before, most);
    const int failure = errno;
    text_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    if (count > 0) co_return true;
    if (count < 0 && (failure == EAGAIN || failure == EINTR)) continue;
    if (count < 0) refuse(failure);
    ended_ = true;
    if (text_.size() > begin_ || is_too_long_) {
      text_ += '\n';
      co_return true;
    }
  }
  co_return false;
}

}  // namespace maestro::cli

#pragma once

#include <boost/beast/core/detail/base64.hpp>
#include <string>
#include <string_view>

namespace maestro::messaging::redis {

/// Bytes as text that JSON can carry.
inline std::string to_base64(std::string_view bytes) {
  std::string text(boost::beast::detail::base64::encoded_size(bytes.size()), '\0');
  text.resize(boost::beast::detail::base64::encode(text.data(), bytes.data(), bytes.size()));
  return text;
}

}  // namespace maestro::messaging::redis

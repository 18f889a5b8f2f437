#pragma once

#include <maestro/messaging/event.hpp>
#include <random>
#include <string>
#include <string_view>

namespace maestro::messaging {

/// The headers of one publisher's events. What is the same from one event to the next is laid out once; an event's id, time
/// and trace are written into it, and its type where it changed.
class EventEnvelope {
 public:
  EventEnvelope(std::string_view source, std::string_view content_type, std::mt19937_64& traces);

  /// The headers of an event with a fresh id, this time and a new trace, of whose id the first half is this envelope's own (64 random bits
  /// are left; W3C Trace Context level 2 asks for 56).
  [[nodiscard]] Headers make(std::string_view type, Timestamp time, IdGenerator& ids, std::mt19937_64& traces);

 private:
  void set_time(Timestamp time);
  void set_type(std::string_view type);

  std::string block_;
  std::size_t type_at_;  ///< The last header, where its value begins.
  std::size_t id_at_;
  std::size_t time_at_;
  std::size_t trace_at_;
  /// The whole second that stands in the block.
  std::int64_t second_;
};

}  // namespace maestro::messaging

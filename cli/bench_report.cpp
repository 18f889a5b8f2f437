#include <algorithm>
#include <cmath>
#include <cstring>

#include "bench.hpp"

namespace maestro::cli {

using namespace messaging;

void BenchRecord::fail(std::uint64_t sequence, const boost::system::error_code& error, const std::string& detail) {
  if (error == errc::outcome_unknown) {
    if (unknown_++ == 0) first_doubt_ = detail;
  } else {
    if (failed_++ == 0) first_failure_ = detail + ": " + error.message();
  }
  given_up_[sequence] = true;
  if (!received_[sequence]) ++accounted_;
}

bool BenchRecord::receive(std::string_view payload) {
  if (payload.size() < least_bench_size) return false;
  const auto sequence = read_stamp(payload).sequence;
  if (sequence >= messages_) return false;
  if (received_[sequence]) {
    ++duplicated_;
  } else {
    received_[sequence] = true;
    ++distinct_;
    if (!given_up_[sequence]) ++accounted_;
  }
  return true;
}

std::uint64_t BenchRecord::lost() const {
  std::uint64_t lost = 0;
  for (std::uint64_t sequence = 0; sequence < messages_; ++sequence)
    if (confirmed_[sequence] && !received_[sequence]) ++lost;
  return lost;
}

std::optional<double> BenchRecord::percentile_ms(double part) {
  if (latencies_.empty()) return std::nullopt;
  const auto rank = static_cast<std::size_t>(std::ceil(part * static_cast<double>(latencies_.size())));
  const auto at = latencies_.begin() + static_cast<std::ptrdiff_t>(std::max<std::size_t>(rank, 1) - 1);
  std::nth_element(latencies_.begin(), at, latencies_.end());
  return static_cast<double>(*at) / 1e6;
}

std::vector<OutgoingMessage> bench_messages(const std::string& topic, std::uint64_t first, std::size_t count,
                                            std::size_t size, TimePoint now) {
  auto block = std::make_shared<std::string>(count * size, '.');
  std::vector<OutgoingMessage> messages;
  messages.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const BenchStamp stamp{first + i, now.time_since_epoch().count()};
    char* at = block->data() + i * size;
    std::memcpy(at, &stamp, sizeof stamp);
    messages.push_back(OutgoingMessage{.topic = topic, .payload = Payload(std::string_view(at, size), block)});
  }
  return messages;
}

BenchStamp read_stamp(std::string_view payload) {
  BenchStamp stamp;
  std::memcpy(&stamp, payload.data(), sizeof stamp);
  return stamp;
}

boost::json::object bench_report(const BenchArguments& arguments, const std::string& broker, BenchRecord& record) {
  const auto per_second = [](std::uint64_t count, double seconds) {
    return seconds > 0 ? std::llround(static_cast<double>(count) / seconds) : 0;
  };
  const auto if_any = [](std::optional<double> ms) {
    return ms ? boost::json::value(*ms) : boost::json::value(nullptr);
  };
  return {{"mode", arguments.mode},
          {"broker", broker},
          {"messages", record.messages()},
          {"size", arguments.size},
          {"work_ns", arguments.work_ns},
          {"publish_per_second",
           per_second(record.messages() - record.failed() - record.unknown(), record.publish_seconds)},
          {"consume_per_second", per_second(record.distinct() + record.duplicated(), record.consume_seconds)},
          {"p50_ms", if_any(record.percentile_ms(0.50))},
          {"p99_ms", if_any(record.percentile_ms(0.99))},
          {"latency_of", record.latency_of},
          {"first_delivery_ms", if_any(record.first_delivery_ms)},
          {"lost", record.lost()},
          {"duplicated", record.duplicated()},
          {"failed", record.failed()},
          {"unknown", record.unknown()}};
}

}  // namespace maestro::cli

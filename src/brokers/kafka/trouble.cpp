#include "brokers/kafka/trouble.hpp"

#include <charconv>
#include <utility>

#include "brokers/kafka/handles.hpp"

namespace maestro::messaging::kafka {

namespace {

// "Topic TOPIC changed id from OLD to NEW" (KIP-516), of versions that fetch by these; at first the old one is zero.
std::optional<Trouble> replaced_topic(std::string_view text) {
  constexpr std::string_view begin = "Topic ";
  constexpr std::string_view change = " changed id from ";
  constexpr std::string_view zero = "AAAAAAAAAAAAAAAAAAAAAA";
  const auto from = text.find(begin);
  const auto to = text.find(change, from);
  if (from == std::string_view::npos || to == std::string_view::npos) return std::nullopt;
  if (text.substr(to + change.size()).starts_with(zero)) return std::nullopt;
  const auto name = from + begin.size();
  return Trouble{std::string(text.substr(name, to - name)), std::nullopt, Trouble::Kind::unknown_topic};
}

}  // namespace

// "TOPIC [PARTITION]: offset reset (at …): …: REASON" and "TOPIC [PARTITION]: broker unavailable: fetch: REASON",
// from 1.9 to 2.15 at least; where a later version words them otherwise, nothing is noticed.
std::optional<Trouble> trouble_of(std::string_view facility, std::string_view text) {
  const auto unknown_topic_id = static_cast<rd_kafka_resp_err_t>(100);  // of versions after 2.0
  const auto ends_with = [&](rd_kafka_resp_err_t error) { return text.ends_with(rd_kafka_err2str(error)); };
  if (facility == "METADATA") return replaced_topic(text);
  Trouble trouble;
  std::string_view what;
  if (facility == "OFFSET" && ends_with(RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE)) {
    trouble.kind = Trouble::Kind::out_of_range;
    what = "]: offset reset (";
  } else if (facility == "BROKERUA" &&
             (ends_with(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) || ends_with(unknown_topic_id))) {
    trouble.kind = Trouble::Kind::unknown_topic;
    what = "]: broker unavailable: fetch: ";
  } else {
    return std::nullopt;
  }
  const auto close = text.find(what);
  const auto open = text.rfind(" [", close);
  if (close == std::string_view::npos || open == std::string_view::npos) return std::nullopt;
  const auto* end = text.data() + close;
  const auto [rest, error] = std::from_chars(text.data() + open + 2, end, trouble.partition.emplace());
  if (error != std::errc() || rest != end) return std::nullopt;
  // The thread's name may come first.
  auto topic = text.substr(0, open);
  if (const auto space = topic.rfind(' '); space != std::string_view::npos) topic.remove_prefix(space + 1);
  trouble.topic = topic;
  return trouble;
}

// "Group "GROUP": Partitions owned by members: N, partitions assigned by assignor: N", alike from 1.6 to 2.15.
std::optional<std::int32_t> given_out(std::string_view facility, std::string_view text) {
  constexpr std::string_view what = "partitions assigned by assignor: ";
  const auto at = facility == "CGRP" ? text.find(what) : std::string_view::npos;
  if (at == std::string_view::npos) return std::nullopt;
  std::int32_t partitions = 0;
  const auto digits = text.substr(at + what.size());
  const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), partitions);
  return error == std::errc() ? std::optional(partitions) : std::nullopt;
}

// "Group "GROUP" changed join state STATE -> STATE (state STATE)", alike from 1.6 to 2.15.
std::optional<bool> joining(std::string_view facility, std::string_view text) {
  constexpr std::string_view arrow = " -> ";
  const auto at = facility == "CGRPJOINSTATE" ? text.rfind(arrow) : std::string_view::npos;
  if (at == std::string_view::npos) return std::nullopt;
  const auto state = text.substr(at + arrow.size());
  return state.starts_with("init ") || state.starts_with("wait-metadata ") || state.starts_with("wait-join ");
}

// "NAME: Broker API support:", then "NAME:   ApiKey Produce (0) Versions 0..8" for each, then "NAME:  Feature …", alike
// from 1.9 to 2.15. Every Kafka with ZooKeeper names LeaderAndIsr (4), which nothing else does, and DescribeCluster
// (60) is there since 2.8. So other servers that speak the protocol are not judged by what they leave out.
std::optional<std::string> Offers::read(std::string_view text) {
  constexpr std::string_view begin = ": Broker API support:";
  constexpr std::string_view api = ":   ApiKey ";
  constexpr std::string_view end = ":  Feature ";
  if (text.ends_with(begin)) {
    open_.insert_or_assign(std::string(text.substr(0, text.size() - begin.size())), Offer{});
    return std::nullopt;
  }
  if (const auto at = text.find(api); at != std::string_view::npos) {
    const auto offer = open_.find(text.substr(0, at));
    if (offer == open_.end()) return std::nullopt;
    offer->second.leader_and_isr |= text.find(" (4) ", at) != std::string_view::npos;
    offer->second.describe_cluster |= text.find(" (60) ", at) != std::string_view::npos;
    return std::nullopt;
  }
  const auto offer = open_.find(text.substr(0, text.find(end)));
  if (offer == open_.end()) return std::nullopt;
  const auto entry = open_.extract(offer);
  if (!entry.mapped().leader_and_isr || entry.mapped().describe_cluster) return std::nullopt;
  // "[thrd:ssl://HOST:PORT/bootstrap]: ssl://HOST:PORT/bootstrap", or with the broker's id behind the slash.
  auto name = entry.key();
  if (const auto space = name.rfind(' '); space != std::string::npos) name.erase(0, space + 1);
  if (const auto scheme = name.find("://"); scheme != std::string::npos) name.erase(0, scheme + 3);
  return name.substr(0, name.find('/'));
}

// The numbers are those of X509_V_ERR_… in openssl/x509_vfy.h.
std::string_view certificate_trouble(int x509_error) {
  switch (x509_error) {
    case 9:
      return "the broker's certificate is not valid yet; is this machine's clock right?";
    case 10:
      return "the broker's certificate, or one above it, has expired";
    case 2:
    case 18:
    case 19:
    case 20:
    case 21:
      return "the broker's certificate was signed by nobody in ssl_ca_location (absent: by nobody whom this system "
             "trusts)";
    case 23:
      return "the broker's certificate was revoked";
    case 62:
      return "the broker's certificate is for another host name than the one in the connection string or in "
             "advertised.listeners";
    case 64:
      return "the broker's certificate is not for the IP address in the connection string or in advertised.listeners";
    default:
      return "";
  }
}

void Troubles::note(Trouble trouble) {
  const std::lock_guard lock(mutex_);
  noted_.push_back(std::move(trouble));
  any_.store(true, std::memory_order_release);
}

std::vector<Trouble> Troubles::take() {
  const std::lock_guard lock(mutex_);
  any_.store(false, std::memory_order_relaxed);
  return std::exchange(noted_, {});
}

void Troubles::note_undelivered(Undelivered undelivered) {
  const std::lock_guard lock(mutex_);
  if (!undelivered_) undelivered_ = std::move(undelivered);
}

std::optional<Troubles::Undelivered> Troubles::take_undelivered() {
  const std::lock_guard lock(mutex_);
  return std::exchange(undelivered_, std::nullopt);
}

void Troubles::note_offer(std::string_view text) {
  const std::lock_guard lock(mutex_);
  if (auto old = offers_.read(text)) too_old_ = *std::move(old);
}

std::string Troubles::too_old() {
  const std::lock_guard lock(mutex_);
  return too_old_;
}

}  // namespace maestro::messaging::kafka

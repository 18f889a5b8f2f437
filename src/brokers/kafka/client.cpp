#include "brokers/kafka/client.hpp"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>

#include "brokers/kafka/failure.hpp"

namespace maestro::messaging::kafka {
namespace {

constexpr std::size_t lot = 4096;
constexpr std::size_t lot_bytes = 2'097'152;
constexpr int most_lots = 2;  // more than that wait in vain: the other threads are all in use

void free_all(std::span<rd_kafka_message_t* const> messages) {
  for (auto* each : messages) rd_kafka_message_destroy(each);
}

// librdkafka names its property, and neither our option nor the file.
std::string file_meant(const rd_kafka_conf_t& properties, std::string_view said) {
  for (const std::string_view option : {"ssl_ca_location", "ssl_certificate_location", "ssl_key_location"}) {
    std::string property(option);
    std::ranges::replace(property, '_', '.');
    char path[4096] = "";
    std::size_t size = sizeof path;
    if (!said.starts_with(property + " failed") || rd_kafka_conf_get(&properties, property.c_str(), path, &size)) continue;
    return fmt::format("{}: \"{}\" is not what it should be: ", option, path);
  }
  return "";
}

}  // namespace

Client::Client(rd_kafka_type_t type, ConfHandle properties) {
  char text[512] = "";
  rd_kafka_conf_set_opaque(properties.get(), troubles_.get());  // for the log
  client_ = rd_kafka_new(type, properties.get(), text, sizeof text);
  if (!client_) {
    const std::string_view said = text;
    const bool tls = said.find("ssl.") != std::string_view::npos || said.find("SSL") != std::string_view::npos ||
                     said.find("certificate") != std::string_view::npos;
    throw MessagingError(tls ? errc::tls_failed : errc::invalid_option,
                         fmt::format("{}librdkafka: {}", file_meant(*properties, said), said));
  }
  static_cast<void>(properties.release());  // the client's now
  if (type == RD_KAFKA_CONSUMER) {
    rd_kafka_poll_set_consumer(client_);
    events_ = rd_kafka_queue_get_consumer(client_);
    messages_ = rd_kafka_queue_new(client_);
  } else {
    events_ = rd_kafka_queue_get_main(client_);
  }
}

Client::~Client() {
  free_all(given_back_);
  run_blocking([client = client_, events = events_, messages = messages_, troubles = troubles_] {
    rd_kafka_queue_destroy(events);
    if (messages) rd_kafka_queue_destroy(messages);
    rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
  });
}

void Client::redirect(const std::string& topic, std::int32_t partition) const {
  const QueueHandle queue(rd_kafka_queue_get_partition(client_, topic.c_str(), partition));
  if (queue) rd_kafka_queue_forward(queue.get(), messages_);
}

std::span<rd_kafka_message_t*> Client::consume(std::span<rd_kafka_message_t*> into) const {
  const auto count = rd_kafka_consume_batch_queue(messages_, 0, into.data(), into.size());
  return into.first(count > 0 ? static_cast<std::size_t>(count) : 0);
}

void Client::give_back(std::span<rd_kafka_message_t* const> messages, std::size_t bytes) {
  std::vector<rd_kafka_message_t*> whole;
  {
    const std::lock_guard lock(giving_back_);
    given_back_.insert(given_back_.end(), messages.begin(), messages.end());
    given_back_bytes_ += bytes;
    if (given_back_.size() < lot && given_back_bytes_ < lot_bytes) return;
    whole.swap(given_back_);
    given_back_.reserve(lot);
    given_back_bytes_ = 0;
  }
  if (lots_being_freed_ >= most_lots) return free_all(whole);
  ++lots_being_freed_;
  run_blocking([self = shared_from_this(), whole = std::move(whole)] {
    free_all(whole);
    --self->lots_being_freed_;
  });
}

void Client::free_given_back() {
  std::vector<rd_kafka_message_t*> whole;
  {
    const std::lock_guard lock(giving_back_);
    whole.swap(given_back_);
    given_back_bytes_ = 0;
  }
  free_all(whole);
  whole.clear();
  const std::lock_guard lock(giving_back_);
  if (given_back_.empty()) given_back_.swap(whole);  // its room
}

std::shared_ptr<EventWatch> EventWatch::start(const boost::asio::any_io_executor& executor, std::shared_ptr<Client> client,
                                              std::function<void()> ready) {
  auto watch = std::make_shared<EventWatch>(executor, std::move(client), std::move(ready));
  watch->wait();
  return watch;
}

EventWatch::EventWatch(const boost::asio::any_io_executor& executor, std::shared_ptr<Client> client, std::function<void()> ready)
    : descriptor_(executor), client_(std::move(client)), ready_(std::move(ready)) {
  const int fd = ::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);  // 1: what came before this watch is looked at too
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  descriptor_.assign(fd);
  ring_from(fd);
}

void EventWatch::ring_from(int descriptor) {
  static constexpr std::uint64_t one = 1;
  for (auto* queue : {client_->events_, client_->messages_})
    if (queue) rd_kafka_queue_io_event_enable(queue, descriptor, descriptor < 0 ? nullptr : &one, descriptor < 0 ? 0 : sizeof one);
}

void EventWatch::stop() {
  if (!client_) return;
  ring_from(-1);
  client_.reset();
  ready_ = nullptr;
  boost::system::error_code ignored;
  descriptor_.close(ignored);
}

void EventWatch::wait() {
  descriptor_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                         [weak = weak_from_this()](const boost::system::error_code& error) {
                           const auto self = weak.lock();
                           if (error || !self || !self->client_) return;
                           std::uint64_t rings = 0;
                           static_cast<void>(::read(self->descriptor_.native_handle(), &rings, sizeof rings));
                           const auto ready = self->ready_;
                           ready();
                           if (self->client_) self->wait();
                         });
}

}  // namespace maestro::messaging::kafka

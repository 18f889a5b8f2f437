#include "brokers/redis/session.hpp"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <maestro/messaging/log.hpp>
#include <map>

#include "runtime/notifier.hpp"

namespace maestro::messaging::redis {

namespace asio = boost::asio;

namespace {

constexpr Duration look = std::chrono::seconds(1);
// A server that owes an answer and says nothing for so long is taken for gone.
constexpr Duration patience = std::chrono::seconds(10);
// An idle connection is asked whether it lives, and one that the pool can do without is closed.
constexpr Duration idle_ping = std::chrono::seconds(15);
constexpr Duration idle_limit = std::chrono::minutes(5);

std::unique_ptr<asio::ssl::context> make_tls(const Address& address, const Options& options) {
  if (!address.tls) return nullptr;
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
  const auto use = [](std::string_view option, const std::string& file, auto load) {
    boost::system::error_code error;
    load(error);
    if (error) throw MessagingError(errc::invalid_option, fmt::format("{}: \"{}\": {}", option, file, error.message()));
  };
  boost::system::error_code ignored;
  if (const auto file = options.text_if("ssl_ca_location")) {
    use("ssl_ca_location", *file, [&](auto& error) { context->load_verify_file(*file, error); });
  } else {
    context->set_default_verify_paths(ignored);
  }
  if (const auto password = options.text_if("ssl_key_password"))
    context->set_password_callback([secret = *password](std::size_t, asio::ssl::context::password_purpose) { return secret; });
  if (const auto file = options.text_if("ssl_certificate_location"))
    use("ssl_certificate_location", *file, [&](auto& error) { context->use_certificate_chain_file(*file, error); });
  if (const auto file = options.text_if("ssl_key_location"))
    use("ssl_key_location", *file, [&](auto& error) { context->use_private_key_file(*file, asio::ssl::context::pem, error); });
  context->set_verify_mode(options.boolean("ssl_insecure_skip_verification") ? asio::ssl::verify_none : asio::ssl::verify_peer,
                           ignored);
  return context;
}

}  // namespace

Session::Session(asio::any_io_executor ex, std::shared_ptr<Clock> time, const std::string& connection_string, const Options& given)
    : executor(std::move(ex)),
      clock(std::move(time)),
      options(given),
      address(parse_address(connection_string, given)),
      connect_timeout(given.duration("connect_timeout")),
      client_name(given.text_if("client_id").value_or("maestro")),
      random(std::random_device{}()),
      tls_(make_tls(address, given)),
      slots_(static_cast<std::size_t>(given.integer("pool_size"))),
      opened_(clock, executor) {
  // CLIENT SETNAME takes no white space.
  for (auto& c : client_name)
    if (c <= ' ' || c > '~') c = '_';
}

awaitable<std::shared_ptr<Connection>> Session::connect(TimePoint deadline) {
  const bool verified = address.tls && !options.boolean("ssl_insecure_skip_verification");
  auto connection = std::make_shared<Connection>(executor, clock, tls_.get(), verified ? address.host : "");
  co_await connection->open(address, client_name, deadline);
  co_return connection;
}

std::size_t Session::index_of(std::string_view topic) const {
  return slots_.size() == 1 ? 0 : 1 + std::hash<std::string_view>{}(topic) % (slots_.size() - 1);
}

std::shared_ptr<Connection> Session::if_open(std::size_t index) const {
  const auto& connection = slots_[index].connection;
  return connection && connection->is_open() ? connection : nullptr;
}

awaitable<std::shared_ptr<Connection>> Session::commands(std::string_view topic, TimePoint deadline) {
  return pooled(index_of(topic), deadline);
}

awaitable<std::shared_ptr<Connection>> Session::pooled(std::size_t index, TimePoint deadline) {
  const auto self = shared_from_this();
  for (;;) {
    if (closed) throw MessagingError(errc::closed, "the broker was disconnected");
    if (auto open = if_open(index)) co_return open;
    auto& slot = slots_[index];
    if (slot.opening) {
      if (!co_await opened_.wait_until(deadline))
        throw MessagingError(errc::connection_failed, fmt::format("no Redis at {} in time", address.shown()));
      continue;
    }
    slot.opening = true;
    struct Done {
      Session& session;
      std::size_t index;
      ~Done() {
        session.slots_[index].opening = false;
        session.opened_.ring();
      }
    } const done{*this, index};
    auto connection = co_await connect(std::min(deadline, clock->now() + connect_timeout));
    if (persistence.empty()) co_await learn_persistence(connection);
    // What an earlier connection had sent and nobody has answered must not come after what is sent now.
    if (const auto& before = slots_[index].connection; before && index == 0) {
      // Not to be found is as good as ended; not to be allowed is not.
      fenced = !before->kill_command().empty();
      if (fenced) {
        const auto ended = co_await connection->ask(before->kill_command());
        fenced = !ended->is_error() || !is_error(ended->text, "NOPERM");
      }
    }
    slots_[index].connection = connection;
    if (!std::exchange(kept_alive_, true)) asio::co_spawn(executor, keep_alive(weak_from_this(), clock), asio::detached);
    reconnected();
    co_return connection;
  }
}

awaitable<Kept> Session::ask(std::string topic, std::vector<std::string> words, std::string what) {
  const auto connection = co_await commands(topic, deadline());
  auto reply = co_await connection->ask(std::move(words));
  if (reply->is_error()) fail(reply->text, what);
  co_return reply;
}

awaitable<void> Session::learn_persistence(std::shared_ptr<Connection> connection) {
  std::map<std::string, std::string> known;
  std::vector<std::vector<std::string>> asks;
  for (const auto* name : {"appendonly", "appendfsync", "save"}) asks.push_back({"CONFIG", "GET", name});
  for (const auto& reply : co_await connection->ask_all(std::move(asks))) {
    if (reply->is_error()) {
      persistence = "in the server's memory, with the persistence that it is set up for, which this user may not read";
      co_return;
    }
    if (reply->count == 2) known[std::string(reply->items()[0].text)] = reply->items()[1].text;
  }
  if (known["appendonly"] == "yes") {
    persistence = known["appendfsync"] == "always"     ? "in the append-only file, synced before the answer (appendfsync always)"
                  : known["appendfsync"] == "everysec" ? "in the append-only file, synced once a second: a crash of the machine may "
                                                         "lose the last second, a crash of the server nothing"
                                                       : "in the append-only file, synced when the system likes";
  } else if (!known["save"].empty()) {
    persistence = fmt::format("in the server's memory; a crash loses what came after the last snapshot (save {})", known["save"]);
  } else {
    persistence = "in the server's memory alone: its end loses everything (appendonly no, no save)";
  }
}

// Finds connections whose other end is gone without a word, and closes those that nobody needs.
awaitable<void> Session::keep_alive(std::weak_ptr<Session> weak, std::shared_ptr<Clock> clock) {
  for (;;) {
    co_await sleep_for(*clock, look);
    const auto self = weak.lock();
    if (!self || self->closed) co_return;
    const auto now = clock->now();
    for (std::size_t i = 0; i < self->slots_.size(); ++i) {
      auto& connection = self->slots_[i].connection;
      if (!connection || !connection->is_open()) continue;
      const auto silent = now - connection->last_heard();
      if (connection->outstanding() > 0 && silent > patience) {
        self->was_lost = true;
        connection->close({errc::connection_failed,
                           fmt::format("Redis at {} said nothing for {} s", self->address.shown(), patience / std::chrono::seconds(1))});
      } else if (i > 0 && connection->outstanding() == 0 && now - connection->last_used() > idle_limit) {
        connection->close({errc::connection_failed, "closed, for nobody used it"});
      } else if (connection->outstanding() == 0 && silent > idle_ping) {
        connection->ping();
      }
    }
  }
}

void Session::close() {
  closed = true;
  for (auto& slot : slots_)
    if (slot.connection) slot.connection->close({errc::closed, "the broker was disconnected"});
  opened_.ring();
}

}  // namespace maestro::messaging::redis

#include "brokers/redis/session.hpp"

#include <fmt/format.h>

#include <maestro/messaging/log.hpp>
#include <map>

#include "core/readable_file.hpp"

namespace maestro::messaging::redis {

namespace asio = boost::asio;

namespace {

constexpr Duration look = std::chrono::seconds(1);
// A server that owes an answer and says nothing for so long is taken for gone.
constexpr Duration patience = std::chrono::seconds(10);
// An idle connection is asked whether it lives.
constexpr Duration idle_ping = std::chrono::seconds(15);

std::unique_ptr<asio::ssl::context> make_tls(const Address& address, const Options& options) {
  if (!address.tls) return nullptr;
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
  const auto use = [](std::string_view option, const std::string& file, auto load) {
    if (const auto why = why_unreadable(file); !why.empty())
      throw MessagingError(errc::invalid_option, fmt::format("{}: \"{}\" cannot be read: {}", option, file, why));
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
      idle_limit_(given.duration("pool_idle_timeout")),
      opened_(clock, executor) {
  // CLIENT SETNAME takes no white space.
  for (auto& c : client_name)
    if (c <= ' ' || c > '~') c = '_';
}

awaitable<std::shared_ptr<Connection>> Session::connect(TimePoint deadline) {
  const bool verified = address.tls && !options.boolean("ssl_insecure_skip_verification");
  auto connection = std::make_shared<Connection>(executor, clock, tls_.get(), verified ? address.host : "");
  co_await connection->open(address, client_name, deadline);
  made_.push_back(connection);
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
    require_open();
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
        session.slots_[index].next = nullptr;
        session.opened_.ring();
      }
    } const done{*this, index};
    auto connection = co_await connect(std::min(deadline, clock->now() + connect_timeout));
    struct Close {
      Connection* connection;
      ~Close() {
        if (connection) connection->close({errc::closed, "it is not fit for what is wanted of it"});
      }
    } unless_used{connection.get()};
    require_open();
    slot.next = connection;
    // The server may have been started again with other settings, or be another one.
    if (index == 0 || persistence.empty()) {
      co_await check_promises(connection);
      co_await learn(connection);
    }
    // What an earlier connection had sent and nobody has answered must not come after what is sent now.
    if (const auto& before = slots_[index].connection; before && index == 0) {
      // Not to be found is as good as ended; not to be allowed is not.
      fenced = !before->kill_command().empty();
      if (fenced) {
        const auto ended = co_await connection->ask(before->kill_command());
        fenced = !ended->is_error() || !is_error(ended->text, "NOPERM");
      }
    }
    require_open();
    unless_used.connection = nullptr;
    slots_[index].connection = connection;
    connection->on_close([weak = weak_from_this()](const Failure& why) {
      const auto alive = weak.lock();
      if (!alive) return;
      const bool wanted = why.code == errc::closed || why.code == errc::timed_out;
      if (!wanted) alive->lost(why.detail);
      alive->reports.pool_closed(why.code == errc::closed ? "disconnected" : wanted ? "idle" : "broken");
      alive->report_pool();
    });
    if (!next_look_) {
      next_look_ = clock->make_timer(executor);
      look_after_connections();
    }
    report_pool();
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

awaitable<void> Session::learn(std::shared_ptr<Connection> connection) {
  std::map<std::string, std::string> known;
  std::vector<std::vector<std::string>> asks;
  for (const auto* name : {"appendonly", "appendfsync", "no-appendfsync-on-rewrite", "save", "min-replicas-to-write",
                           "maxmemory", "maxmemory-policy"})
    asks.push_back({"CONFIG", "GET", name});
  asks.push_back({"INFO", "replication"});
  const auto replies = co_await connection->ask_all(std::move(asks));
  bool readable = true;
  for (std::size_t i = 0; i + 1 < replies.size(); ++i) {
    if (replies[i]->is_error()) readable = false;
    if (replies[i]->count == 2) known[std::string(replies[i]->items()[0].text)] = replies[i]->items()[1].text;
  }
  if (!readable) {
    persistence = "in the server's memory, with the persistence that it is set up for, which this user may not read";
  } else if (known["appendonly"] == "yes") {
    persistence = known["appendfsync"] == "always"
                      ? "in the append-only file, synced before the answer (appendfsync always)"
                  : known["appendfsync"] == "everysec"
                      ? "in the append-only file, synced once a second: a crash of the machine may "
                        "lose the last second or two; a crash of the server alone only what it holds "
                        "back while the disk is slow, up to about two seconds"
                      : "in the append-only file, synced when the system likes";
    if (known["appendfsync"] != "no" && known["no-appendfsync-on-rewrite"] == "yes")
      persistence += "; while the file is rewritten, when the system likes (no-appendfsync-on-rewrite yes)";
  } else if (!known["save"].empty()) {
    persistence = fmt::format("in the server's memory; a crash loses what came after the last snapshot (save {})", known["save"]);
  } else {
    persistence = "in the server's memory alone: its end loses everything (appendonly no, no save)";
  }
  if (options.boolean("wait_fsync")) persistence += "; a publish waits until the file is synced (wait_fsync)";
  const auto replicas = replies.back()->is_error() ? std::nullopt : info_number(replies.back()->text, "connected_slaves");
  if (!replies.back()->is_error() && replies.back()->text.find("role:slave") != std::string_view::npos)
    persistence += "; this server is a replica, which takes no publishes until it is made master";
  if (known["maxmemory"] != "0" && known["maxmemory-policy"].starts_with("allkeys"))
    persistence += fmt::format("; but whole topics may be evicted when memory is short (maxmemory-policy {})", known["maxmemory-policy"]);
  const auto waited = options.integer("wait_replicas");
  if (waited > 0) {
    persistence += fmt::format("; {} {} it before a publish completes (wait_replicas)", waited, waited == 1 ? "replica has" : "replicas have");
    const bool too_few = replicas && *replicas < waited;
    if (too_few) persistence += fmt::format(", but only {} of them connected, and so none completes", *replicas);
    if (!std::exchange(said_too_few_, too_few) && too_few)
      log(LogLevel::warning,
          "fewer replicas are connected than wait_replicas asks for; no publish completes until there are enough",
          {{"broker", "redis"}, {"connected", std::to_string(*replicas)}, {"wait_replicas", std::to_string(waited)}});
  } else if (replicas) {
    persistence += *replicas == 0 ? "; no replica" : fmt::format("; {} {} without being waited for", *replicas,
                                                                  *replicas == 1 ? "replica follows" : "replicas follow");
  }
  if (const auto least = known["min-replicas-to-write"]; !least.empty() && least != "0")
    persistence += fmt::format("; refused with fewer than {} replicas", least);
}

awaitable<void> Session::check_promises(std::shared_ptr<Connection> connection) {
  if (!options.boolean("wait_fsync")) co_return;
  const auto reply = co_await connection->ask({"WAITAOF", "1", "0", "1"});
  if (!reply->is_error()) co_return;
  throw MessagingError(errc::unsupported,
                       fmt::format("wait_fsync: the server cannot wait for its append-only file ({}); it needs Redis 7.2 with appendonly "
                                   "yes. Leave it out, or set appendfsync always at the server",
                                   reply->text));
}

void Session::require_open() const {
  if (closed) throw MessagingError(errc::closed, "the broker was disconnected");
}

void Session::report_pool() const {
  PoolFigures figures{0, slots_.size(), 0};
  for (const auto& slot : slots_) {
    if (!slot.connection || !slot.connection->is_open()) continue;
    ++figures.open;
    figures.outstanding += slot.connection->outstanding();
  }
  reports.pool(figures);
}

// Finds connections whose other end is gone without a word, and closes those that nobody needs.
void Session::look_after_connections() {
  const auto now = clock->now();
  std::vector<std::shared_ptr<Connection>> silent;
  std::erase_if(made_, [&](const auto& each) {
    const auto connection = each.lock();
    if (connection && connection->owes(now) > patience) silent.push_back(connection);
    return !connection;
  });
  for (const auto& each : silent)
    each->close({errc::connection_failed, fmt::format("Redis at {} said nothing for {} s", address.shown(),
                                                      patience / std::chrono::seconds(1))});
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const auto connection = if_open(i);
    if (!connection) continue;
    if (i > 0 && connection->outstanding() == 0 && now - connection->last_used() > idle_limit_) {
      connection->close({errc::timed_out, "closed, for nobody used it"});
    } else if (connection->outstanding() == 0 && now - connection->last_heard() > idle_ping) {
      connection->ping();
    }
  }
  report_pool();
  next_look_->expires_at(now + look);
  next_look_->async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    if (!error && self && !self->closed) self->look_after_connections();
  });
}

void Session::close() {
  closed = true;
  if (next_look_) next_look_->cancel();
  for (const auto& slot : slots_)
    for (const auto& connection : {slot.connection, slot.next})
      if (connection) connection->close({errc::closed, "the broker was disconnected"});
  opened_.ring();
}

}  // namespace maestro::messaging::redis

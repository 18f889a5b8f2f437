#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <optional>
#include <string>
#include <vector>

#include "brokers/redis/reader.hpp"

namespace maestro::messaging::redis {

/// What readers of streams have in common, with a group and without: they block in a read of all streams that belong to the topic or the
/// pattern.
class StreamReader : public Reader {
 public:
  StreamReader(std::shared_ptr<Session> session, SubscribeRequest request);

  awaitable<void> start() override;
  void stop() override;
  awaitable<std::int64_t> offset_at(std::string topic, Timestamp time) override;

 protected:
  struct Stream {
    std::string key;
    EntryId last_read = {};      ///< Of a reader without a group.
    EntryId read_before = {};    ///< The same some seconds ago.
    TimePoint read_before_at{};
    bool from_end = false;       ///< Where a new group, or a reader without one, starts.
    bool ready = false;          ///< Its group is there, or its place is known.
    bool left_out = false;       ///< It was said that this key is no stream.
  };

  using Reader::prepare;
  /// Makes a stream readable: its group, or its place.
  virtual awaitable<void> prepare_stream(Connection& connection, std::size_t stream) = 0;
  /// The same; of a pattern, a key that is something else than a stream is left out, and that is said once.
  awaitable<void> make_ready(Connection& connection, std::size_t stream);
  /// What is to be done before the first read.
  virtual awaitable<void> begin() { co_return; }
  /// The read of these streams, of so many of each at most; it blocks where a time is given.
  virtual std::vector<std::string> read_command(std::span<const std::size_t> streams, std::size_t at_most,
                                                std::optional<Duration> block) const = 0;
  /// The number of messages that may be fetched now.
  [[nodiscard]] virtual std::size_t room() const = 0;
  /// Entries of one stream, in order.
  virtual void on_entries(std::size_t stream, std::span<const Value> entries, const Kept& reply) = 0;
  /// Nothing came for a while.
  virtual awaitable<void> on_silence(Connection& connection) {
    static_cast<void>(connection);
    co_return;
  }
  /// Regular work beside the reading, each `tick`.
  virtual awaitable<void> tend() { co_return; }
  [[nodiscard]] virtual Duration tick() const { return std::chrono::seconds(1); }

  awaitable<void> prepare(Connection& connection) override;
  awaitable<void> read_until_broken() override;

  /// What the server said to a read. Throws what will not mend by looking at the streams again.
  awaitable<void> mend(std::string error);
  /// A group or its stream is gone at the server: it is made again, and read from its beginning.
  awaitable<void> make_again(Connection& connection, std::string cause);
  void add_ready(EntryBatch& batch);
  void wake_tending() { tending_.notify(); }
  [[nodiscard]] std::optional<std::size_t> find_stream(std::string_view key) const;
  /// Looks for topics that fit the pattern and are new.
  awaitable<void> discover(Connection& connection);

  std::vector<Stream> streams_;

 private:
  [[nodiscard]] std::vector<std::size_t> ready_streams() const;
  static awaitable<void> run_tending(std::shared_ptr<StreamReader> self);
  awaitable<void> make_all_ready(Connection& connection);

  Notifier tending_;
  std::size_t turn_ = 0;  // whose turn it is, where there is no room for one of each stream
};

}  // namespace maestro::messaging::redis

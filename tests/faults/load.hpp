#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <maestro/messaging.hpp>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace maestro::messaging::testing {

/// What a run counts. Everything but the last four has to be 0, whatever the fault.
struct Counts {
  std::size_t lost = 0;         ///< acknowledged, and never handled
  std::size_t reordered = 0;    ///< handled for the first time after a later one of its key was
  std::size_t overlaps = 0;     ///< two handlers of one key at once
  std::size_t not_refused = 0;  ///< said to be surely not done, and handled
  std::size_t published = 0;
  std::size_t acknowledged = 0;
  std::size_t duplicates = 0;  ///< handled again
  std::size_t unknown = 0;     ///< publishes whose outcome is not known
  std::size_t refused = 0;     ///< publishes that failed, surely not done
  Duration longest_pause{};    ///< between two handled messages
};

/// Keyed messages published by many writers (awaited, in batches, and through the buffer) and consumed by a group,
/// while a fault goes on. Everything runs on one `io_context`, on real time.
class Load {
 public:
  struct Plan {
    int writers = 24;
    int keys_per_writer = 8;
    int rate = 2500;  ///< messages a second, all writers together
    std::size_t at_least = 20'000;
    int members = 2;                                ///< consumers of the group in this process
    /// Several members of a broker without partitions: they may handle messages of one key at once, so that it is not counted.
    bool members_share_keys = false;
    Duration patience = std::chrono::seconds(120);  ///< for the rest to be handled, at the end
  };

  Load(std::string url, Plan plan, ConfigMap consumer_config = {});
  ~Load();
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  /// Runs the load, and the fault beside it; ends when the fault has ended, `at_least` messages were published, and
  /// everything acknowledged was handled (or `patience` is over).
  Counts run(std::function<awaitable<void>(Load&)> fault);

  [[nodiscard]] boost::asio::io_context& context() { return context_; }
  [[nodiscard]] const std::string& topic() const { return topic_; }
  [[nodiscard]] const std::string& group() const { return group_; }
  [[nodiscard]] std::size_t handled() const { return handled_; }
  [[nodiscard]] MessageBroker broker() const;
  awaitable<void> sleep(Duration span) const;
  awaitable<void> until(std::function<bool()> condition, Duration patience = std::chrono::seconds(60)) const;

  /// One more consumer of the group in this process; the number to remove it by.
  std::size_t add_member();
  awaitable<void> remove_member(std::size_t number);
  /// A consumer in another process handled a message.
  void note_handled(const std::string& key, std::size_t number);
  /// What is kept of a topic that was deleted says nothing about what was in it: only what is acknowledged from now on
  /// counts.
  void forget_acknowledged();
  /// What was acknowledged may be gone with the topic: at the end, what is kept in the new one has to have been
  /// handled.
  void topic_was_deleted() { recreated_ = true; }

 private:
  enum class Outcome : char { waiting, acknowledged, unknown, refused, forgotten };
  struct Key {
    std::vector<Outcome> outcomes;
    std::vector<std::uint32_t> times_handled;
    std::size_t furthest = 0;  // above the latest that was handled
  };
  struct Member;

  awaitable<void> write_awaited(int writer);
  awaitable<void> write_batches(int writer);
  awaitable<void> write_buffered(int writer);
  awaitable<void> consume(std::shared_ptr<Member> member);
  void start_writers();
  awaitable<boost::system::error_code> outcome_of(awaitable<Receipt> publish);
  awaitable<void> pace(TimePoint& due, Duration period, bool failed);
  OutgoingMessage next_message(const std::string& key);
  void settle(const std::string& key, std::size_t number, const boost::system::error_code& error);
  [[nodiscard]] static std::string key_of(int writer, int index);
  /// Reads the topic: what is not in it was deleted, whatever was said of it.
  awaitable<void> look_what_is_kept();
  /// Where in the topic it is.
  void say_what_is_missing();
  [[nodiscard]] std::size_t missing() const;
  [[nodiscard]] Counts count() const;

  boost::asio::io_context context_{1};
  std::shared_ptr<Clock> clock_ = Clock::real();
  std::string url_;
  Plan plan_;
  ConfigMap consumer_config_;
  std::string topic_;
  std::string group_;
  std::unique_ptr<MessageBroker> publisher_;
  std::unique_ptr<MessageBroker> buffered_;
  std::map<std::string, Key> keys_;
  std::set<std::string> running_;
  std::map<std::size_t, std::shared_ptr<Member>> members_;
  std::size_t next_member_ = 0;
  std::size_t writing_ = 0;
  bool enough_ = false;
  bool recreated_ = false;
  std::map<std::string, std::map<std::size_t, Position>> kept_;  // by key and number
  std::size_t handled_ = 0;
  std::size_t published_ = 0;
  std::size_t overlaps_ = 0;
  std::size_t reordered_ = 0;
  Duration longest_pause_{};
  TimePoint last_handled_ = TimePoint::max();
  std::map<std::string, int> errors_;
};

/// Fails the test where a promise was broken, and adds a line to the table of faults (the file of
/// `MAESTRO_FAULT_TABLE`).
void expect_kept(const std::string& broker, const std::string& fault, const Counts& counts);

}  // namespace maestro::messaging::testing

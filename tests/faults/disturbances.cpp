#include "faults/disturbances.hpp"

#include "faults/child.hpp"

namespace maestro::messaging::testing {

using namespace std::chrono_literals;

awaitable<void> kill_and_revive(Load& load, FaultyServer& server) {
  for (int i = 0; i < 3; ++i) {
    co_await load.sleep(1s);
    co_await server.kill();
    co_await load.sleep(1s);
    co_await server.revive();
    const auto before = load.handled();
    co_await load.until([&] { return load.handled() > before + 2000; });
  }
}

awaitable<void> freeze(Load& load, FaultyServer& server) {
  co_await load.sleep(1s);
  co_await server.freeze();
  co_await load.sleep(20s);
  co_await server.thaw();
}

awaitable<void> cut(Load& load, TcpGate& gate) {
  for (int i = 0; i < 20; ++i) {
    gate.cut();
    co_await load.sleep(400ms);
  }
}

awaitable<void> mistreat(Load& load, TcpGate& gate) {
  gate.set(TcpGate::Mode::slow);
  co_await load.sleep(4s);
  gate.set(TcpGate::Mode::sliced);
  co_await load.sleep(4s);
  gate.set(TcpGate::Mode::swallowed);
  co_await load.sleep(8s);
  gate.set(TcpGate::Mode::closed);
  gate.cut();  // the streams have holes
  co_await load.sleep(3s);
  gate.set(TcpGate::Mode::open);
}

awaitable<void> kill_members(Load& load, std::string url, std::string option) {
  for (int i = 0; i < 3; ++i) {
    std::size_t its = 0;
    Child child(load.context(), {"member", url, load.topic(), load.group(), "consumer:" + option}, [&](const std::string& line) {
      const auto space = line.find(' ');
      load.note_handled(line.substr(0, space), std::stoul(line.substr(space + 1)));
      ++its;
    });
    co_await load.until([&] { return its > 1000; });
    child.kill();
    co_await load.until([&] { return child.ended(); });
  }
}

awaitable<void> come_and_go(Load& load) {
  for (int i = 0; i < 6; ++i) {
    const auto added = load.add_member();
    co_await load.sleep(700ms);
    co_await load.remove_member(added);
    co_await load.sleep(300ms);
  }
}

}  // namespace maestro::messaging::testing

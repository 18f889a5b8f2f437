#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <maestro/messaging/consumer.hpp>
#include <maestro/messaging/topic.hpp>

#include "messaging/consumer_state.hpp"

namespace maestro::messaging {

void reject(const std::string& reason) { throw Rejected(reason); }

EventConsumer::Route& EventConsumer::Route::on_error(std::string dead_letter_topic) {
  validate_topic(dead_letter_topic);
  state_->dead_letter_topic = std::move(dead_letter_topic);
  return *this;
}

EventConsumer::EventConsumer(MessageBroker broker, EventConsumerOptions options)
    : state_(std::make_shared<State>(broker.state(), std::move(options))) {}

EventConsumer::Route EventConsumer::add(std::string topic_or_pattern, EventHandler handler) {
  auto route = std::make_shared<Route::State>();
  route->topic = std::move(topic_or_pattern);
  route->handler = std::move(handler);
  state_->add(route);
  return Route(std::move(route));
}

EventConsumer::Route EventConsumer::subscribe(std::string topic_or_pattern, EventHandler handler) {
  return add(std::move(topic_or_pattern), std::move(handler));
}

awaitable<void> EventConsumer::start() {
  return state_->start(state_->stops());
}

void EventConsumer::stop() {
  boost::asio::dispatch(state_->executor(), [state = state_] { state->request_stop(); });
}

std::string EventConsumer::explain() const { return state_->explain(); }
const std::string& EventConsumer::group() const noexcept {
  return state_->group();
}
ConsumerCounts EventConsumer::counts() const { return state_->counts; }
awaitable<ReadinessReport> EventConsumer::readiness() {
  return boost::asio::co_spawn(state_->executor(), State::readiness(state_), boost::asio::use_awaitable);
}
CircuitState EventConsumer::circuit() const { return state_->circuit(); }
void EventConsumer::pause() { state_->pause(); }
void EventConsumer::resume() { state_->resume(); }

}  // namespace maestro::messaging

#include "broker.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace maestro::python {

namespace {

ConfigMap to_map(nb::dict from) {
  ConfigMap made;
  for (const auto [key, value] : from) {
    if (!PyUnicode_Check(key.ptr()))
      throw MessagingError(errc::invalid_option,
                           fmt::format("an option's name is {}; allowed is str", name_of_type(key)));
    const auto name = nb::cast<std::string>(key);
    if (PyBool_Check(value.ptr())) {
      made.insert_or_assign(name, OptionValue(value.is(Py_True)));
    } else if (PyLong_Check(value.ptr())) {
      std::int64_t number = 0;
      if (!nb::try_cast(value, number))
        throw MessagingError(errc::invalid_option, fmt::format("{}: {}; allowed are whole numbers of 64 bits", name,
                                                               nb::cast<std::string>(nb::str(value))));
      made.insert_or_assign(name, OptionValue(number));
    } else if (PyFloat_Check(value.ptr())) {
      made.insert_or_assign(name, OptionValue(nb::cast<double>(value)));
    } else if (PyUnicode_Check(value.ptr())) {
      made.insert_or_assign(name, OptionValue(nb::cast<std::string>(value)));
    } else {
      throw MessagingError(
          errc::invalid_option,
          fmt::format("{}: a value of type {}; allowed are str, int, float and bool", name, name_of_type(value)));
    }
  }
  return made;
}

nb::dict to_dict(const ConfigMap& map) {
  nb::dict made;
  for (const auto& [name, value] : map)
    made[name.c_str()] = std::visit([](const auto& held) { return nb::cast(held); }, value.get());
  return made;
}

nb::tuple to_tuple(const MessagingConfig& config) {
  return nb::make_tuple(to_text(to_string(config.broker_type)), config.connection_string,
                        to_dict(config.connection_config), to_dict(config.consumer_config),
                        to_dict(config.producer_config), config.enable_monitoring);
}

nb::object to_status(const BrokerStatus& status) {
  nb::list lag;
  for (const auto& each : status.lag)
    lag.append(nb::make_tuple(to_text(each.topic), each.partition, each.lag, to_text_or_none(each.group)));
  nb::dict made;
  made["connected"] = status.connected;
  made["subscription_count"] = status.subscription_count;
  made["messages_sent"] = status.messages_sent;
  made["messages_received"] = status.messages_received;
  made["lag"] = lag;
  made["circuit"] = to_word(status.circuit);
  made["last_error"] = to_text(status.last_error);
  made["acknowledged_means"] = to_text(status.acknowledged_means);
  return made;
}

/// What a serializer of Python's says of itself; the bytes are made before they come here.
class ForeignFormat final : public Serializer {
 public:
  explicit ForeignFormat(std::string content_type) : content_type_(std::move(content_type)) {}
  [[nodiscard]] std::string content_type() const override { return content_type_; }
  [[nodiscard]] Payload serialize(const Value&) const override { return {}; }
  [[nodiscard]] Value deserialize(const Message&) const override { return nullptr; }

 private:
  std::string content_type_;
};

class Publisher {
 public:
  Publisher(Broker& of, std::string content_type, std::optional<std::string> source)
      : broker_(&of),
        publisher_(of.broker, std::make_shared<ForeignFormat>(std::move(content_type)), {std::move(source)}) {}

  nb::object publish(std::string topic, nb::handle payload, const std::string& type, nb::handle key,
                     nb::handle attributes, nb::handle headers, bool confirm) {
    EventOptions options;
    options.key = to_key(key);
    options.headers = to_headers(headers);
    if (!attributes.is_none()) {
      const auto text = [&](const char* name) -> std::optional<std::string> {
        const nb::object value = attributes.attr("get")(name);
        return value.is_none() ? std::nullopt : std::optional(nb::cast<std::string>(value));
      };
      options.attributes.id = text("id");
      options.attributes.source = text("source");
      options.attributes.type = text("type");
      options.attributes.subject = text("subject");
      if (const nb::object time = attributes.attr("get")("time"); !time.is_none())
        options.attributes.time = to_timestamp(nb::cast<double>(time));
    }
    return broker_->send(publisher_.make_message(std::move(topic), Payload(std::string(bytes_of(encode(payload)))),
                                                 type, std::move(options)),
                         confirm);
  }

 private:
  Broker* broker_;
  EventPublisher publisher_;
};

const Delivery& read_here(nb::handle message) {
  if (!nb::isinstance<Delivery>(message))
    throw MessagingError(
        errc::invalid_argument,
        fmt::format("message: {}; allowed is a Message that this subscription handed out", name_of_type(message)));
  return nb::cast<const Delivery&>(message);
}

nb::object hand_out(const std::shared_ptr<Reader>& reader, Message message) {
  return nb::cast(Delivery{std::move(message), reader->decode, reader}, nb::rv_policy::move);
}

Subscription& open(Reader& reader) {
  require_not_forked();
  if (!reader.subscription) throw MessagingError(errc::closed, "the subscription was closed");
  return *reader.subscription;
}

awaitable<void> transact(MessageBroker broker, std::vector<OutgoingMessage> messages,
                         std::vector<std::pair<std::shared_ptr<Reader>, Message>> settled) {
  co_await broker.transaction([&](Transaction& transaction) -> awaitable<void> {
    for (auto& message : messages) transaction.publish(std::move(message));
    for (const auto& [reader, message] : settled) transaction.acknowledge(open(*reader), message);
    co_return;
  });
}

awaitable<std::shared_ptr<Reader>> read(ForeignLoop& loop, MessageBroker broker, std::string topic,
                                        SubscribeOptions options, nb::object decode) {
  auto subscription = co_await broker.subscribe(std::move(topic), std::move(options));
  co_return std::make_shared<Reader>(loop, broker, std::move(subscription), std::move(decode));
}

nb::object to_topic(const TopicInfo& topic) {
  nb::list partitions, groups;
  for (const auto& each : topic.partitions) partitions.append(nb::make_tuple(each.partition, each.first, each.next));
  for (const auto& each : topic.groups) groups.append(nb::make_tuple(to_text(each.group), each.members, each.lag));
  return nb::make_tuple(to_text(topic.name), topic.messages, partitions, groups);
}

}  // namespace

std::optional<OffsetReset> to_reset(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  if (*name == "earliest") return OffsetReset::earliest;
  if (*name == "latest") return OffsetReset::latest;
  throw MessagingError(errc::invalid_option,
                       fmt::format("auto_offset_reset: \"{}\"; allowed are earliest, latest", *name));
}

const char* to_word(CircuitState state) {
  return state == CircuitState::closed ? "closed" : state == CircuitState::open ? "open" : "half_open";
}

MessagingConfig to_config(std::string_view type, const std::string& connection_string, nb::dict connection,
                          nb::dict consumer, nb::dict producer, bool enable_monitoring) {
  MessagingConfig config;
  config.broker_type = parse_broker_type(type);
  config.connection_config = to_map(std::move(connection));
  config.connection_string = connection_string;
  if (config.broker_type == BrokerType::memory) {
    // What stands behind the ? of a URL are options.
    auto from_url = MessagingConfig::from_url(connection_string);
    config.connection_string = from_url.connection_string;
    config.connection_config.merge(from_url.connection_config);
  }
  config.consumer_config = to_map(std::move(consumer));
  config.producer_config = to_map(std::move(producer));
  config.enable_monitoring = enable_monitoring;
  return config;
}

// Leaves the group in good order where that is still possible: what was handed out and not settled goes to another
// member.
Reader::~Reader() {
  if (!subscription || loop.descriptor() < 0) return;
  constexpr auto close = [](Subscription last) -> awaitable<void> {
    try {
      co_await last.close();
    } catch (const boost::system::system_error&) {
      // The broker takes it for a member that died, which comes to the same.
    }
  };
  asio::co_spawn(loop.executor(), close(std::move(*subscription)), asio::detached);
}

void bind_broker(nb::module_& module) {
  module.def("check_config", [](const std::string& type, const std::string& url, nb::dict connection, nb::dict consumer,
                                nb::dict producer) {
    auto config = to_config(type, url, std::move(connection), std::move(consumer), std::move(producer), false);
    asio::io_context nowhere;
    const MessageBroker tried(nowhere.get_executor(), std::move(config));
  });
  module.def(
      "config_from_env",
      [](const std::optional<std::string>& broker) {
        return to_tuple(MessagingConfig::from_env(broker ? std::optional(parse_broker_type(*broker)) : std::nullopt));
      },
      nb::arg("broker").none());
  module.def("config_from_url", [](const std::string& url) { return to_tuple(MessagingConfig::from_url(url)); });
  module.def("redact", [](const std::string& text) { return redact(text); });
  module.def("secret_options", [] {
    nb::list names;
    for (const auto& spec : option_table())
      if (spec.secret) names.append(to_text(spec.name));
    return names;
  });
  module.def("expose_metrics", [] { return metrics_registry()->expose(); });

  nb::class_<Broker>(module, "Broker", nb::is_weak_referenceable())
      .def(
          "__init__",
          [](Broker* self, Loop& loop, const std::string& type, const std::string& url, nb::dict connection,
             nb::dict consumer, nb::dict producer, bool enable_monitoring) {
            require_not_forked();
            new (self) Broker(loop, to_config(type, url, std::move(connection), std::move(consumer),
                                              std::move(producer), enable_monitoring));
          },
          nb::keep_alive<1, 2>())
      .def("connect", [](Broker& self) { return self.start(self.broker.connect()); })
      .def("disconnect",
           [](Broker& self) {
             self.unflushed = 0;
             return self.start(self.broker.disconnect());
           })
      .def("unflushed", [](const Broker& self) { return self.unflushed; })
      .def("commit", [](Broker& self) { return self.start(self.broker.commit()); })
      .def(
          "health_check",
          [](Broker& self) { return self.start(self.broker.health_check(), [](bool well) { return nb::cast(well); }); })
      .def("get_status", [](Broker& self) { return self.start(self.broker.get_status(), to_status); })
      .def(
          "publish",
          [](Broker& self, std::string topic, nb::handle message, nb::handle key, nb::handle headers,
             std::optional<std::int32_t> partition, std::optional<double> timestamp, bool confirm) {
            return self.send(to_outgoing(std::move(topic), message, key, headers, partition, timestamp), confirm);
          },
          nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
          nb::arg())
      .def(
          "publish_many",
          [](Broker& self, const std::string& topic, nb::iterable messages, nb::handle keys, nb::handle headers) {
            std::vector<OutgoingMessage> batch;
            nb::iterator key = keys.is_none() ? nb::iterator{} : nb::iter(keys);
            for (const auto each : messages) {
              nb::object its_key = nb::none();
              if (!keys.is_none()) {
                if (key == nb::iterator::sentinel())
                  throw MessagingError(errc::invalid_argument, "keys: fewer than messages; allowed is one for each");
                its_key = nb::borrow(*key);
                ++key;
              }
              batch.push_back(to_outgoing(topic, each, its_key, headers, std::nullopt, std::nullopt));
            }
            if (!keys.is_none() && key != nb::iterator::sentinel())
              throw MessagingError(errc::invalid_argument, "keys: more than messages; allowed is one for each");
            return self.start(self.broker.publish_many(std::move(batch)), to_results);
          },
          nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none())
      .def("flush",
           [](Broker& self) {
             return self.start(self.broker.flush(), [self = nb::find(self),
                                                     count = self.unflushed](FlushReport report) {
               auto& unflushed = nb::cast<Broker&>(self).unflushed;
               unflushed -= std::min(unflushed, count);
               nb::list failures;
               for (auto& failure : report.failures) {
                 std::vector<PublishResult> one(1);
                 one[0].error = failure.error;
                 one[0].detail = failure.detail;
                 failures.append(
                     nb::make_tuple(to_text(failure.message.topic), to_bytes(failure.message.payload.view()),
                                    failure.message.key ? to_text(*failure.message.key) : nb::object(nb::none()),
                                    to_results(std::move(one))[0]));
               }
               return nb::make_tuple(report.confirmed, failures);
             });
           })
      .def(
          "subscribe",
          [](Broker& self, const std::string& topic, std::optional<std::string> group,
             const std::optional<std::string>& reset, std::optional<bool> auto_commit,
             std::optional<std::size_t> prefetch, nb::object decode) {
            return self.start(read(self.loop, self.broker, topic,
                                   {std::move(group), to_reset(reset), auto_commit, prefetch}, std::move(decode)),
                              [](const std::shared_ptr<Reader>& reader) { return nb::cast(reader); });
          },
          nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none())
      .def("transaction",
           [](Broker& self, nb::list messages, nb::list settled) {
             std::vector<OutgoingMessage> out;
             for (const auto each : messages)
               out.push_back(
                   to_outgoing(nb::cast<std::string>(each[0]), each[1], each[2], each[3], std::nullopt, std::nullopt));
             std::vector<std::pair<std::shared_ptr<Reader>, Message>> acknowledged;
             for (const auto each : settled) {
               const auto& delivery = read_here(each);
               auto reader = delivery.reader.lock();
               if (!reader)
                 throw MessagingError(errc::invalid_argument,
                                      "acknowledge: a message that no open subscription handed out");
               acknowledged.emplace_back(std::move(reader), delivery.message);
             }
             return self.start(transact(self.broker, std::move(out), std::move(acknowledged)));
           })
      .def("capabilities",
           [](const Broker& self) {
             const auto can = self.broker.capabilities();
             nb::dict made;
             made["broker"] = to_text(can.broker);
             made["groups"] = can.groups;
             made["patterns"] = can.patterns;
             made["partitions"] = can.partitions;
             made["persistent_topics"] = can.persistent_topics;
             made["release_with_delay"] = can.release_with_delay;
             made["counts_deliveries"] = can.counts_deliveries;
             made["transactions"] = can.transactions;
             made["administration"] = can.administration;
             made["survives_restart"] = can.survives_restart;
             made["max_message_bytes"] = can.max_message_bytes;
             made["acknowledged_means"] = to_text(can.acknowledged_means);
             return made;
           })
      .def("list_topics",
           [](Broker& self) {
             return self.start(self.broker.administration().list_topics(), [](const std::vector<std::string>& names) {
               nb::list made;
               for (const auto& name : names) made.append(to_text(name));
               return made;
             });
           })
      .def("describe_topic",
           [](Broker& self, std::string topic) {
             return self.start(self.broker.administration().describe_topic(std::move(topic)), to_topic);
           })
      .def(
          "create_topic",
          [](Broker& self, std::string topic, std::optional<std::int32_t> partitions, nb::dict configuration) {
            TopicSettings settings{partitions, {}};
            for (const auto [name, value] : configuration)
              settings.configuration.emplace(nb::cast<std::string>(name), nb::cast<std::string>(nb::str(value)));
            return self.start(self.broker.administration().create_topic(std::move(topic), std::move(settings)));
          },
          nb::arg(), nb::arg().none(), nb::arg())
      .def("delete_topic",
           [](Broker& self, std::string topic) {
             return self.start(self.broker.administration().delete_topic(std::move(topic)));
           })
      .def("purge_topic", [](Broker& self, std::string topic) {
        return self.start(self.broker.administration().purge_topic(std::move(topic)),
                          [](std::int64_t count) { return nb::cast(count); });
      });

  nb::class_<Publisher>(module, "Publisher")
      .def(nb::init<Broker&, std::string, std::optional<std::string>>(), nb::arg(), nb::arg(), nb::arg().none(),
           nb::keep_alive<1, 2>())
      .def("publish", &Publisher::publish, nb::arg(), nb::arg().none(), nb::arg(), nb::arg().none(), nb::arg().none(),
           nb::arg().none(), nb::arg());

  nb::class_<Reader>(module, "Reader")
      .def("try_next",
           [](const std::shared_ptr<Reader>& self) -> nb::object {
             // Every so often the loop is let turn, however much is here.
             constexpr int at_once = 256;
             auto& subscription = open(*self);
             if (++self->at_once >= at_once) {
               self->at_once = 0;
               return nb::none();
             }
             auto message = subscription.try_next();
             return message ? hand_out(self, std::move(*message)) : nb::object(nb::none());
           })
      .def("try_next_batch",
           [](const std::shared_ptr<Reader>& self, std::size_t at_most) {
             nb::list batch;
             for (auto& message : open(*self).try_next_batch(at_most)) batch.append(hand_out(self, std::move(message)));
             return batch;
           })
      .def("ready",
           [](const std::shared_ptr<Reader>& self) {
             return nb::cast(
                 Operation::start(self->loop, open(*self).ready(), [](bool more) { return nb::cast(more); }, self));
           })
      .def("commit",
           [](const std::shared_ptr<Reader>& self) {
             return nb::cast(Operation::start(self->loop, open(*self).commit(), self));
           })
      .def("close",
           [](const std::shared_ptr<Reader>& self) {
             return nb::cast(Operation::start(self->loop, open(*self).close(), self));
           })
      .def(
          "acknowledge", [](Reader& self, nb::handle message) { open(self).acknowledge(read_here(message).message); },
          nb::arg().none())
      .def(
          "release",
          [](Reader& self, nb::handle message, double delay) {
            open(self).release(read_here(message).message, to_duration("delay", delay));
          },
          nb::arg().none(), nb::arg())
      .def("pause", [](Reader& self) { open(self).pause(); })
      .def("resume", [](Reader& self) { open(self).resume(); })
      .def("seek",
           [](const std::shared_ptr<Reader>& self, std::string topic, std::int32_t partition, std::int64_t offset) {
             return nb::cast(Operation::start(self->loop, open(*self).seek(std::move(topic), partition, offset), self));
           })
      .def("seek_time",
           [](const std::shared_ptr<Reader>& self, std::string topic, std::int32_t partition, double seconds) {
             return nb::cast(Operation::start(
                 self->loop, open(*self).seek(std::move(topic), partition, to_timestamp(seconds)), self));
           });
}

}  // namespace maestro::python

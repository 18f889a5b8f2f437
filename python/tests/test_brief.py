"""The snippets of the product's description, as they are written there: only topics, and what a snippet leaves open, are ours."""

import asyncio
import logging
import sys
import types

import pytest
from pydantic import BaseModel

from maestro_core_messaging import (
    BrokerType,
    Event,
    EventConsumer,
    EventPublisher,
    InvalidOptionError,
    MessageBroker,
    MessageHandler,
    MessagingConfig,
    UnsupportedError,
)
from support import until


async def test_quick_start(address, topic, capsys):
    broker_type, connection_string = address
    broker = MessageBroker(broker_type=broker_type, connection_string=connection_string)

    publisher = EventPublisher(broker)
    await publisher.publish(
        topic=topic,
        event={"event_type": "user_created", "user_id": 123, "timestamp": "2023-01-01T00:00:00Z"},
    )

    consumer = EventConsumer(broker, group_id=topic)

    @consumer.subscribe(topic)
    async def handle_user_event(event):
        print(f"Received: {event}")
        consumer.stop()

    await consumer.start()
    assert capsys.readouterr().out == (
        "Received: {'event_type': 'user_created', 'user_id': 123, 'timestamp': '2023-01-01T00:00:00Z'}\n"
    )
    await broker.disconnect()


async def test_kafka_example(kafka_url, topic):
    broker = MessageBroker(
        broker_type=BrokerType.KAFKA,
        connection_string=kafka_url,
        connection_config={
            "client_id": "my-service",
            "group_id": "my-consumer-group",
            "auto_offset_reset": "earliest",
        },
    )
    await broker.connect()
    await broker.publish(topic=topic, message={"type": "order_created", "order_id": 456}, key="order-456")
    async for message in broker.subscribe(topic, group_id="processors"):
        assert f"Processing: {message}" == "Processing: {'type': 'order_created', 'order_id': 456}"
        assert message.key == "order-456"
        await broker.commit()
        break
    status = await broker.describe_topic(topic)
    assert [(group.group, group.lag) for group in status.groups] == [("processors", 0)]
    await broker.disconnect()


async def test_redis_example(redis_url, topic):
    broker = MessageBroker(broker_type=BrokerType.REDIS, connection_string=redis_url)
    await broker.connect()

    # Publish
    await broker.publish(topic, {"text": "Hello!"})

    # Subscribe
    async for message in broker.subscribe(topic):
        assert f"{message}" == "{'text': 'Hello!'}"
        break
    await broker.disconnect()


async def test_redis_from_the_environment(redis_url, topic, monkeypatch):
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("REDIS_DB", "2")
    broker = MessageBroker.from_config(MessagingConfig.from_env())
    receipt = await broker.publish(topic, {"a": 1})
    assert "-" in receipt.position
    assert topic in await broker.list_topics()
    await broker.delete_topic(topic)
    await broker.disconnect()


async def test_redis_channels(redis_url, topic):
    broker = MessageBroker("redis", redis_url, {"mode": "pubsub"})
    heard = []

    async def listen():
        async for message in broker.subscribe(f"{topic}.*"):
            heard.append((message.topic, message["text"]))
            if message["text"] == "last":
                break

    listening = asyncio.create_task(listen())
    while not (await broker.publish(f"{topic}.a", {"text": "first"})).routed:
        await asyncio.sleep(0.01)
    await broker.publish(f"{topic}.b", {"text": "last"})
    await asyncio.wait_for(listening, 10)
    assert heard == [(f"{topic}.a", "first"), (f"{topic}.b", "last")]
    consumer = EventConsumer(broker, group_id="g")

    @consumer.subscribe(topic)
    async def handle(event):
        pass

    with pytest.raises(UnsupportedError, match="cannot keep a consumer group in this mode"):
        await consumer.start()
    await broker.disconnect()


async def test_pydantic_events(broker, topic):
    class UserCreatedEvent(BaseModel):
        user_id: int
        email: str
        timestamp: str

    publisher = EventPublisher(broker)
    await publisher.publish(
        topic=topic,
        event=UserCreatedEvent(user_id=123, email="user@example.com", timestamp="2023-01-01T00:00:00Z"),
    )

    consumer = EventConsumer(broker, group_id=topic)
    received = []

    @consumer.subscribe(topic)
    async def handle(event: UserCreatedEvent):
        received.append(event)
        consumer.stop()

    await consumer.start()
    assert received == [UserCreatedEvent(user_id=123, email="user@example.com", timestamp="2023-01-01T00:00:00Z")]
    assert Event is not None


async def test_dead_letter_queue_handling(broker, topic):
    saved = []

    def validate_order(event):
        return event["amount"] > 0

    async def save_order(event):
        saved.append(event["order_id"])

    consumer = EventConsumer(broker, group_id=topic, enable_dead_letter_queue=True, max_retry_attempts=3, initial_backoff=0.01)

    @consumer.subscribe(topic)
    @consumer.on_error(f"{topic}.failed")  # Failed messages go here
    async def process_order(event):
        # Process order
        if not validate_order(event):
            raise ValueError("Invalid order")
        await save_order(event)

    handler: MessageHandler = process_order
    assert handler is process_order
    for order_id, amount in enumerate([10, -1, 20]):
        await broker.publish(topic, {"order_id": order_id, "amount": amount}, key=str(order_id))
    running = asyncio.create_task(consumer.start())
    await until(lambda: consumer.counts.dead_lettered == 1 and len(saved) == 2)
    consumer.stop()
    await running
    assert sorted(saved) == [0, 2]
    assert consumer.counts.retried == 3
    (letter,) = await broker.dead_letters(f"{topic}.failed").list()
    assert (letter.topic, letter.reason, letter.error_type, letter.error_message, letter.attempts) == (
        topic,
        "retries_exhausted",
        "ValueError",
        "Invalid order",
        4,
    )
    assert letter.message == {"order_id": 1, "amount": -1}
    assert 'raise ValueError("Invalid order")' in letter.error_stack
    assert "process_order" in letter.error_stack


async def test_health_and_status(broker, topic):
    is_healthy = await broker.health_check()
    assert is_healthy is True
    await broker.publish(topic, {"a": 1})
    subscription = await broker.subscribe(topic).open()
    assert await subscription.next() == {"a": 1}
    status = await broker.get_status()
    assert f"Connected: {status.connected}" == "Connected: True"
    assert f"Active subscriptions: {status.subscription_count}" == "Active subscriptions: 1"
    assert f"Messages sent: {status.messages_sent}" == "Messages sent: 1"
    assert f"Messages received: {status.messages_received}" == "Messages received: 1"
    await subscription.close()


async def test_monitoring(address, topic):
    import prometheus_client

    broker = MessageBroker(*address, enable_monitoring=True)
    await broker.publish(topic, {"a": 1})
    consumer = EventConsumer(broker, group_id=topic)

    @consumer.subscribe(topic)
    async def handle(event):
        consumer.stop()

    await consumer.start()
    assert await broker.health_check()

    def value(name, **labels):
        return prometheus_client.REGISTRY.get_sample_value(name, {"broker": address[0], **labels})

    assert value("messaging_messages_published_total", topic=topic, status="ok") == 1
    assert value("messaging_messages_consumed_total", topic=topic, group=topic, status="handled") == 1
    assert value("messaging_message_processing_duration_seconds_count", topic=topic, group=topic) == 1
    assert value("messaging_broker_health") == 1
    await broker.disconnect()


async def test_environment_variables(kafka_url, topic, monkeypatch):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_url)
    monkeypatch.setenv("KAFKA_CLIENT_ID", "my-service")
    monkeypatch.setenv("KAFKA_GROUP_ID", topic)
    monkeypatch.setenv("MESSAGING_ENABLE_MONITORING", "true")
    monkeypatch.setenv("MESSAGING_MAX_RETRY_ATTEMPTS", "1")
    monkeypatch.setenv("MESSAGING_ENABLE_DLQ", "true")
    config = MessagingConfig.from_env()
    assert (config.broker_type, config.connection_string, config.enable_monitoring) == ("kafka", kafka_url, True)
    for broker in (MessageBroker.from_config(config), MessageBroker("kafka")):
        assert broker.config.enable_monitoring
        await broker.publish(topic, {"a": 1})
        consumer = EventConsumer(broker)
        explained = consumer.explain() if consumer._routes else None
        assert explained is None

        @consumer.subscribe(topic)
        async def handle(event):
            raise ValueError("always")

        assert f'as group "{topic}"' in consumer.explain()
        assert "1 after the first try" in consumer.explain()
        assert f'dead letters to "{topic}.{topic}.dlq"' in consumer.explain()
        await broker.disconnect()


@pytest.mark.parametrize(("said", "means"), [("true", True), ("True", True), ("yes", True), ("on", True), ("Off", False), ("0", False)])
def test_monitoring_is_what_the_environment_says_unless_it_is_configured(monkeypatch, said, means):
    monkeypatch.setenv("MESSAGING_ENABLE_MONITORING", said)
    monkeypatch.setenv("MESSAGING_BROKER", "memory")
    untouched = MessagingConfig("memory", "memory://monitored")
    for config in (untouched, MessagingConfig.from_env(), MessagingConfig.from_url("memory://monitored")):
        assert MessageBroker.from_config(config).config.enable_monitoring is means
    refused = MessagingConfig("memory", "memory://monitored", enable_monitoring=not means)
    assert MessageBroker.from_config(refused).config.enable_monitoring is not means
    monkeypatch.setenv("MESSAGING_ENABLE_MONITORING", "perhaps")
    with pytest.raises(InvalidOptionError, match='"perhaps"; allowed are true and false'):
        MessageBroker.from_config(untouched)


async def test_configuration_object(kafka_url, topic):
    config = MessagingConfig(
        broker_type="kafka",
        connection_string=kafka_url,
        connection_config={"client_id": "my-service"},
        consumer_config={"auto_offset_reset": "earliest", "enable_auto_commit": False, "max_poll_records": 500},
        producer_config={"acks": "all", "compression_type": "snappy", "max_in_flight_requests_per_connection": 5},
    )
    broker = MessageBroker.from_config(config)
    await broker.publish(topic, {"a": 1})
    async for message in broker.subscribe(topic, group_id=topic):
        assert message == {"a": 1}
        break
    await broker.disconnect()


def test_configuration_object_with_a_password_does_not_show_it():
    config = MessagingConfig(
        broker_type="kafka",
        connection_string="localhost:9092",
        connection_config={
            "client_id": "my-service",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_username": "user",
            "sasl_password": "s3cr3t",
        },
    )
    broker = MessageBroker.from_config(config)
    assert "s3cr3t" not in repr(config) + repr(broker) + str(broker)
    assert "'sasl_password': '***'" in repr(config)


async def test_unit_tests_on_the_in_memory_broker():
    # Use in-memory broker for testing
    broker = MessageBroker(broker_type=BrokerType.MEMORY, connection_string="memory://test")

    await broker.publish("test-topic", {"test": "data"})

    messages = []
    async for message in broker.subscribe("test-topic"):
        messages.append(message)
        if len(messages) >= 1:
            break

    assert messages[0]["test"] == "data"
    await broker.disconnect()


def test_integration_tests_with_testcontainers(kafka_url, pytester, monkeypatch):
    """The fixture of the description, unchanged, with an object that gives a bootstrap address."""
    module = types.ModuleType("testcontainers.kafka")

    class KafkaContainer:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def get_bootstrap_server(self):
            return kafka_url

    module.KafkaContainer = KafkaContainer
    monkeypatch.setitem(sys.modules, "testcontainers", types.ModuleType("testcontainers"))
    monkeypatch.setitem(sys.modules, "testcontainers.kafka", module)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(
        """
        import pytest
        from testcontainers.kafka import KafkaContainer
        from maestro_core_messaging import MessageBroker

        @pytest.fixture
        async def kafka_broker():
            with KafkaContainer() as kafka:
                broker = MessageBroker(
                    broker_type="kafka",
                    connection_string=kafka.get_bootstrap_server()
                )
                await broker.connect()
                yield broker
                await broker.disconnect()

        async def test_kafka_publish_consume(kafka_broker):
            await kafka_broker.publish("test", {"data": "value"})
            async for message in kafka_broker.subscribe("test"):
                assert message["data"] == "value"
                break
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


async def test_error_handling(broker, topic):
    class ValidationError(Exception):
        pass

    errors = []
    logger = types.SimpleNamespace(error=lambda text, **fields: errors.append((text, fields["error"])))
    failures = iter([ValidationError("wrong"), RuntimeError("down"), None])

    async def validate_and_process(event):
        if failure := next(failures):
            raise failure

    consumer = EventConsumer(broker, group_id=topic, initial_backoff=0.01)

    @consumer.subscribe(topic)
    async def process_order(event):
        try:
            await validate_and_process(event)
        except ValidationError as e:
            logger.error("Validation failed", error=str(e), event=event)
            # Don't retry validation errors
            return
        except Exception as e:
            logger.error("Processing failed", error=str(e), event=event)
            # Will retry based on configuration
            raise

    for number in range(2):
        await broker.publish(topic, {"order_id": number}, key="same")
    running = asyncio.create_task(consumer.start())
    await until(lambda: consumer.counts.handled == 2)
    consumer.stop()
    await running
    assert errors == [("Validation failed", "wrong"), ("Processing failed", "down")]
    assert consumer.counts.retried == 1
    assert consumer.counts.dead_lettered == 0


async def test_consumer_groups_for_scalability(address, topic):
    """Two instances of the same service share the messages; each message goes to one of them."""
    brokers = [MessageBroker(*address) for _ in range(2)]
    await brokers[0].create_topic(topic, partitions=6 if brokers[0].capabilities().partitions else None)
    consumers = [EventConsumer(broker, group_id="order-processors") for broker in brokers]
    seen = [[], []]
    for consumer, mine in zip(consumers, seen):

        def register(consumer=consumer, mine=mine):
            @consumer.subscribe(topic)
            async def process_order(event):
                mine.append(event["order_id"])

        register()
    running = [asyncio.create_task(consumer.start()) for consumer in consumers]
    published = 0
    for _ in range(400):
        await brokers[0].publish(topic, {"order_id": published}, key=str(published))
        published += 1
        await asyncio.sleep(0.02)
        if all(len(mine) >= 20 for mine in seen):
            break
    await until(lambda: len(set(seen[0] + seen[1])) == published)
    for consumer in consumers:
        consumer.stop()
    await asyncio.gather(*running)
    assert all(len(mine) >= 20 for mine in seen), [len(mine) for mine in seen]
    for broker in brokers:
        await broker.disconnect()


async def test_monitoring_message_processing(broker, topic, capsys):
    from maestro_core_logging import get_logger

    logger = get_logger(__name__)
    consumer = EventConsumer(broker, group_id=topic)

    async def process(event):
        get_logger("elsewhere").info("In between")

    @consumer.subscribe(topic)
    async def process_order(event):
        with logger.bind(order_id=event["order_id"]):
            logger.info("Processing order")
            await process(event)
            logger.info("Order processed successfully")
        logger.info("After it")
        consumer.stop()

    await broker.publish(topic, {"order_id": 4711})
    await consumer.start()
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if "order_id" in line and "4711" in line]
    assert len(found) == 3, lines
    assert any("After it" in line and "4711" not in line for line in lines)


async def test_logging_takes_the_fields_of_the_description(capsys):
    from maestro_core_logging import get_logger

    get_logger("orders").error("Validation failed", error="wrong", event={"order_id": 1})
    line = capsys.readouterr().out
    assert "Validation failed" in line and "wrong" in line and "order_id" in line


async def test_migration_from_kafka_python(kafka_url, topic):
    processed = []

    async def process(message):
        processed.append(message)

    broker = MessageBroker("kafka", kafka_url)
    await broker.publish(topic, {"data": "message"})

    async for message in broker.subscribe(topic):
        await process(message)
        break
    assert processed == [{"data": "message"}]
    await broker.disconnect()


def test_a_broker_built_outside_of_a_loop_is_used_inside_one(topic):
    broker = MessageBroker("memory", "memory://outside")

    async def main():
        await broker.publish(topic, {"a": 1})
        async for message in broker.subscribe(topic):
            return message.value

    assert asyncio.run(main()) == {"a": 1}

    async def again():
        await broker.publish(topic, {"a": 1})

    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        asyncio.run(again())


async def test_logs_come_through_the_standard_module(topic, caplog):
    caplog.set_level(logging.INFO, logger="maestro_core_messaging")
    broker = MessageBroker("memory", "memory://logs")
    consumer = EventConsumer(broker, group_id="g")

    @consumer.subscribe(topic)
    async def handle(event):
        consumer.stop()

    await broker.publish(topic, {})
    await consumer.start()
    (record,) = [each for each in caplog.records if "at least once" in each.message]
    assert record.name == "maestro_core_messaging"
    assert record.messaging == {"broker": "memory", "group": "g"}
    await broker.disconnect()


async def test_a_level_that_is_set_later_counts(topic, caplog):
    caplog.set_level(logging.ERROR, logger="maestro_core_messaging")
    broker = MessageBroker("memory", "memory://levels")
    consumer = EventConsumer(broker, group_id="g")

    @consumer.subscribe(topic)
    async def handle(event):
        consumer.stop()

    for level in (logging.ERROR, logging.INFO):
        caplog.set_level(level, logger="maestro_core_messaging")
        await asyncio.sleep(0)
        await broker.publish(topic, {})
        await consumer.start()
        explained = [each for each in caplog.records if "at least once" in each.message]
        assert len(explained) == (level == logging.INFO)
    await broker.disconnect()

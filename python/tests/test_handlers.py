"""What handlers get, what their exceptions mean, and what publishers and consumers refuse."""

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import math
import uuid
from typing import Any, Literal

import pydantic
import pytest

import maestro_core_messaging as mcm
from maestro_core_messaging import Event, EventConsumer, EventPublisher, JsonSerializer, Message, MessageBroker

from support import consume


class Order(pydantic.BaseModel):
    order_id: int
    amount: decimal.Decimal
    kind: Literal["new", "old"] = "new"


async def given_to(broker, topic, handler_for):
    """What a handler with this annotation gets for an event that was published with all it can have."""
    got = []
    await EventPublisher(broker, source="shop").publish(
        topic,
        {"order_id": 7, "amount": 12.5},
        "k",
        id="id-1",
        type="ordered",
        subject="order 7",
        time=dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc),
        headers={"x": "1"},
    )
    await consume(broker, topic, 1, handler_for(got))
    return got[0]


async def test_the_annotation_decides_what_a_handler_gets(broker, topic):
    def none(got):
        async def handle(event):
            got.append(event)

        return handle

    def dictionary(got):
        async def handle(event: dict[str, Any]) -> None:
            got.append(event)

        return handle

    def model(got):
        async def handle(event: Order) -> None:
            got.append(event)

        return handle

    def data(got):
        async def handle(event: bytes) -> None:
            got.append(event)

        return handle

    value = {"order_id": 7, "amount": 12.5}
    assert await given_to(broker, f"{topic}.a", none) == value
    assert await given_to(broker, f"{topic}.b", dictionary) == value
    assert await given_to(broker, f"{topic}.c", model) == Order(order_id=7, amount=decimal.Decimal("12.5"))
    assert await given_to(broker, f"{topic}.d", data) == b'{"order_id":7,"amount":12.5}'


async def test_an_event_has_its_attributes(broker, topic):
    def event(got):
        async def handle(event: Event) -> None:
            got.append(event)

        return handle

    got = await given_to(broker, topic, event)
    assert isinstance(got, Event) and isinstance(got, Message)
    assert (got.id, got.source, got.type, got.subject) == ("id-1", "shop", "ordered", "order 7")
    assert got.time == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)
    assert (got.key, got.topic, got.attempt, got.content_type) == ("k", topic, 1, "application/json")
    assert got.headers["x"] == "1"
    assert got.traceparent.startswith("00-")
    assert got.data == got.value == {"order_id": 7, "amount": 12.5}


async def test_a_message_behaves_as_its_value(broker, topic):
    def message(got):
        async def handle(message: Message) -> None:
            got.append(message)

        return handle

    got = await given_to(broker, topic, message)
    value = {"order_id": 7, "amount": 12.5}
    assert got == value and value == got.value and got != {"order_id": 8}
    assert got["order_id"] == 7 and got.get("none", 3) == 3 and got.get("amount") == 12.5
    assert "amount" in got and "none" not in got
    assert list(got) == ["order_id", "amount"] and len(got) == 2 and bool(got)
    assert dict(got.items()) == value and list(got.keys()) == list(value) and list(got.values()) == list(value.values())
    assert str(got) == f"{got}" == str(value)
    assert topic in repr(got) and "'k'" in repr(got)
    if broker.capabilities().partitions:
        assert got.position.offset == 0 and got.position.partition >= 0
        assert str(got.position) == f"{got.position.partition}/0"
    else:
        assert got.position.offset > 0 and got.position.partition == -1
    assert abs(got.timestamp - dt.datetime.now(dt.timezone.utc)) < dt.timedelta(minutes=1)
    assert (got.delivery_count, got.redelivered) == (1, False)
    with pytest.raises(KeyError):
        got["none"]
    with pytest.raises(TypeError):
        hash(got)


async def letters_of(broker, topic, handler, *payloads, **options):
    for payload in payloads:
        await broker.publish(topic, payload)
    await consume(broker, topic, len(payloads), handler, initial_backoff=0.001, **options)
    return await broker.dead_letters(f"{topic}.{topic}.dlq").list()


async def test_an_invalid_event_is_dead_lettered_at_once_with_every_field_named(broker, topic):
    async def handle(event: Order) -> None:
        raise AssertionError("never called")

    (letter,) = await letters_of(broker, topic, handle, {"order_id": "x", "kind": "odd"})
    assert (letter.reason, letter.attempts) == ("invalid", 1)
    assert letter.error_type == "maestro_core_messaging._errors.InvalidEventError"
    assert "order_id: Input should be a valid integer" in letter.error_message
    assert "amount: Field required" in letter.error_message
    assert "kind: Input should be 'new' or 'old'" in letter.error_message
    assert letter.message.payload == b'{"order_id":"x","kind":"odd"}'


@pytest.mark.parametrize("annotation", [Any, Order, Event])
async def test_what_is_no_json_is_dead_lettered_at_once(broker, topic, annotation):
    async def handle(event) -> None:
        raise AssertionError("never called")

    handle.__annotations__["event"] = annotation
    (letter,) = await letters_of(broker, topic, handle, b'{"order_id": ')
    assert (letter.reason, letter.attempts) == ("undecodable", 1)
    assert "not JSON" in letter.error_message
    assert letter.message.payload == b'{"order_id": '


async def test_reject_dead_letters_without_retries(broker, topic):
    async def handle(event: Event) -> None:
        await asyncio.sleep(0)
        mcm.reject("no such customer")

    (letter,) = await letters_of(broker, topic, handle, {"a": 1})
    assert (letter.reason, letter.attempts, letter.error_message) == ("rejected", 1, "no such customer")


async def test_attempts_count_and_the_last_exception_is_kept_whole(broker, topic):
    attempts = []

    async def inner(attempt):
        if attempt % 2:
            await asyncio.sleep(0.001)
        raise LookupError(f"attempt {attempt} füllt nichts") from ValueError("the cause")

    async def handle(event: Event) -> None:
        attempts.append(event.attempt)
        await inner(event.attempt)

    (letter,) = await letters_of(broker, topic, handle, {"a": 1}, max_retry_attempts=2)
    assert attempts == [1, 2, 3]
    assert (letter.reason, letter.attempts, letter.error_type) == ("retries_exhausted", 3, "LookupError")
    assert letter.error_message == "attempt 3 füllt nichts"
    assert "ValueError: the cause" in letter.error_stack and "in inner" in letter.error_stack


async def test_dead_letters_are_replayed(broker, topic):
    broken = True
    seen = []

    async def handle(event):
        if broken and event["n"] % 2:
            raise RuntimeError("down")
        seen.append(event["n"])

    for number in range(4):
        await broker.publish(topic, {"n": number})
    await consume(broker, topic, 4, handle, max_retry_attempts=0)
    console = broker.dead_letters(f"{topic}.{topic}.dlq")
    letters = await console.list()
    assert sorted(letter.message["n"] for letter in letters) == [1, 3]
    shown = await console.show(letters[0].message.position.partition, letters[0].message.position.offset)
    assert shown is not None and shown.message.value == letters[0].message.value
    dry = await console.replay(dry_run=True)
    assert (dry.seen, dry.replayed) == (2, 2)
    broken = False
    report = await console.replay()
    assert (report.seen, report.replayed, report.refused) == (2, 2, 0)
    await consume(broker, topic, 2, handle)
    assert sorted(seen) == [0, 1, 2, 3]
    assert await console.purge() == 2
    with pytest.raises(mcm.InvalidArgumentError, match="allowed are retries_exhausted"):
        await console.list(reason="because")


async def test_duplicates_are_told_by_id(broker, topic):
    seen = []

    async def handle(event: Event) -> None:
        seen.append(event.id)

    publisher = EventPublisher(broker)
    for id in ("a", "b", "a"):
        await publisher.publish(topic, {}, "k", id=id)
    consumer = EventConsumer(broker, group_id=topic, deduplication=True)
    consumer.subscribe(topic)(handle)
    running = asyncio.create_task(consumer.start())
    while consumer.counts.handled + consumer.counts.duplicates < 3:
        await asyncio.sleep(0.01)
    consumer.stop()
    await running
    assert seen == ["a", "b"]
    assert consumer.counts.duplicates == 1


async def test_duplicates_are_told_by_a_store_that_processes_share(broker, redis_url, topic):
    shared = MessageBroker("redis", redis_url)
    seen = []

    async def handle(event: Event) -> None:
        seen.append(event.id)

    publisher = EventPublisher(broker)
    id = f"{topic}.id"
    for _ in range(3):
        await publisher.publish(topic, {}, "k", id=id)
    consumer = EventConsumer(broker, group_id=topic, deduplication=mcm.SharedDeduplicationStore(shared, window=60))
    consumer.subscribe(topic)(handle)
    running = asyncio.create_task(consumer.start())
    while consumer.counts.handled + consumer.counts.duplicates < 3:
        await asyncio.sleep(0.01)
    consumer.stop()
    await running
    assert seen == [id]
    assert consumer.counts.duplicates == 2
    with pytest.raises(mcm.UnsupportedError, match="no keys that could be shared"):
        other = EventConsumer(shared, deduplication=mcm.SharedDeduplicationStore(MessageBroker("memory", "memory://no-keys")))
        other.subscribe(topic)(handle)
        await other.start()
    await shared.disconnect()


async def test_transactions_take_effect_together_or_not_at_all(broker, topic):
    await broker.create_topic(f"{topic}.in", partitions=1)
    for number in range(3):
        await broker.publish(f"{topic}.in", number)
    subscription = broker.subscribe(f"{topic}.in", group_id=topic, enable_auto_commit=False)
    message = await subscription.next()
    with pytest.raises(ZeroDivisionError):
        async with broker.transaction() as tx:
            tx.publish(f"{topic}.out", "never")
            tx.acknowledge(message)
            1 / 0
    async with broker.transaction() as tx:
        tx.publish(f"{topic}.out", {"copied": message.value})
        tx.acknowledge(message)
    await subscription.close()
    async for copied in broker.subscribe(f"{topic}.out"):
        assert copied == {"copied": 0}
        break
    async for rest in broker.subscribe(f"{topic}.in", group_id=topic):
        assert rest == 1
        break


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Thing:
    type: str
    size: int


async def test_what_can_be_published(broker, topic):
    identity = uuid.uuid4()
    when = dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc)
    await broker.create_topic(topic, partitions=1)
    await broker.publish_many(
        topic,
        [
            {"a": [1, None, True, "ü"]},
            [1, 2],
            "text",
            7,
            Thing("thing", 3),
            Order(order_id=1, amount=decimal.Decimal("0.10")),
            {"nested": Order(order_id=2, amount=decimal.Decimal("0.20"))},
            {"id": identity, "when": when, "color": Color.RED, "amount": decimal.Decimal("12.50")},
            2**63,
        ],
    )
    values = []
    async for message in broker.subscribe(topic):
        values.append(message.value)
        if len(values) == 9:
            break
    assert values == [
        {"a": [1, None, True, "ü"]},
        [1, 2],
        "text",
        7,
        {"type": "thing", "size": 3},
        {"order_id": 1, "amount": "0.10", "kind": "new"},
        {"nested": {"order_id": 2, "amount": "0.20", "kind": "new"}},
        {"id": str(identity), "when": "2026-01-02T00:00:00+00:00", "color": "red", "amount": "12.50"},
        2**63,
    ]


@pytest.mark.parametrize("value", [{1, 2}, {"a": object()}, 2**70, {"a": {"b": b"bytes"}}])
async def test_what_json_does_not_have_is_refused(memory_broker, topic, value):
    for publish in (memory_broker.publish, EventPublisher(memory_broker).publish):
        with pytest.raises(mcm.InvalidEventError, match="allowed is what JSON has") as caught:
            await publish(topic, value)
        assert isinstance(caught.value, ValueError) and isinstance(caught.value, TypeError)
    assert (await memory_broker.get_status()).messages_sent == 0


async def test_numbers_that_are_none_are_refused(memory_broker, topic):
    for value in (math.nan, math.inf):
        with pytest.raises(mcm.InvalidEventError, match="JSON has no NaN"):
            await memory_broker.publish(topic, {"amount": value, "none": None})
        with pytest.raises(mcm.InvalidEventError, match="JSON has no NaN"):
            await memory_broker.publish(topic, [Thing("x", value)])
    await memory_broker.publish(topic, {"amount": None, "null": [1.5]})


class Upper:
    """A format of the user's own."""

    content_type = "text/upper"

    def serialize(self, data):
        return str(data).upper().encode()

    def deserialize(self, payload):
        if not payload.decode().isupper():
            raise mcm.UndecodableError("not upper")
        return payload.decode().lower()


async def test_a_serializer_of_ones_own(broker, topic):
    await EventPublisher(broker, serializer=Upper()).publish(topic, "hello")
    got = []

    async def handle(event: Event) -> None:
        got.append((event.data, event.content_type, event.payload))

    await consume(broker, topic, 1, handle, serializer=Upper())
    assert got == [("hello", "text/upper", b"HELLO")]
    assert isinstance(Upper(), mcm.Serializer) and isinstance(JsonSerializer(), mcm.Serializer)


async def test_bad_arguments_are_named_with_what_is_allowed(memory_broker, topic):
    with pytest.raises(mcm.InvalidTopicError, match="white space"):
        await memory_broker.publish("no topic", 1)
    with pytest.raises(TypeError, match="key: int; allowed are str and bytes"):
        await memory_broker.publish(topic, 1, key=7)
    with pytest.raises(TypeError, match="a header's value: int"):
        await memory_broker.publish(topic, 1, headers={"a": 1})
    with pytest.raises(mcm.InvalidArgumentError, match="no time zone"):
        await memory_broker.publish(topic, 1, timestamp=dt.datetime(2026, 1, 1))
    with pytest.raises(mcm.InvalidOptionError, match="auto_offset_reset: \"first\"; allowed are earliest, latest"):
        await memory_broker.subscribe(topic, auto_offset_reset="first").next()
    with pytest.raises(mcm.InvalidArgumentError, match="group_id"):
        await memory_broker.subscribe(topic, "a b").next()
    with pytest.raises(mcm.InvalidArgumentError, match="fewer than messages"):
        await memory_broker.publish_many(topic, [1, 2], keys=["a"])
    with pytest.raises(mcm.InvalidOptionError, match="ordering: \"keys\"; allowed are key, partition, none"):
        EventConsumer(memory_broker, ordering="keys")
    with pytest.raises(mcm.InvalidOptionError, match="concurrency: 0"):
        EventConsumer(memory_broker, concurrency=0)
    with pytest.raises(TypeError, match="concurrency: '4'; allowed is an int"):
        EventConsumer(memory_broker, concurrency="4")
    with pytest.raises(TypeError, match="concurency"):
        EventConsumer(memory_broker, concurency=4)
    with pytest.raises(mcm.InvalidArgumentError, match="called with one argument"):

        @EventConsumer(memory_broker).subscribe(topic)
        async def handle(event, more):
            pass

    with pytest.raises(mcm.InvalidArgumentError, match="without any subscribe"):
        await EventConsumer(memory_broker).start()
    with pytest.raises(mcm.AlreadyExistsError):
        await memory_broker.create_topic(topic)
        await memory_broker.create_topic(topic)
    with pytest.raises(mcm.TopicNotFoundError) as caught:
        await memory_broker.describe_topic("nowhere")
    assert isinstance(caught.value, LookupError) and caught.value.reason == "topic_not_found"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("kafak", "localhost:9092"), mcm.InvalidOptionError, 'did you mean "kafka"'),
        (("kafka", "localhost:9092", {"clientid": "x"}), mcm.UnknownOptionError, "client_id"),
        (("kafka", "localhost:9092", {"client_id": 7}), mcm.InvalidOptionError, "client_id"),
        (("kafka", "localhost:9092", {"client_id": ["x"]}), mcm.InvalidOptionError, "a value of type list"),
        (("memory", "memory://x", {"max_retry_attempts": 1}), mcm.UnknownOptionError, "belongs into consumer_config"),
        (("nats", "nats://localhost:4222"), mcm.UnsupportedError, "no transport for nats"),
        ((7, "x"), TypeError, "broker_type: int; allowed are BrokerType and str"),
    ],
)
def test_bad_configurations_are_refused_when_the_broker_is_made(arguments, error, text):
    with pytest.raises(error, match=text):
        MessageBroker(*arguments)


def test_an_address_that_is_nowhere_is_named(monkeypatch):
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with pytest.raises(mcm.InvalidOptionError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        MessageBroker("kafka")


async def test_a_broker_that_is_not_there():
    broker = MessageBroker("kafka", "127.0.0.1:9", {"connect_timeout": 300})
    with pytest.raises(mcm.ConnectionFailedError, match="no Kafka at 127.0.0.1:9 within 300 ms") as caught:
        await broker.connect()
    assert isinstance(caught.value, ConnectionError) and caught.value.retriable and not caught.value.outcome_unknown
    assert await broker.health_check() is False
    await broker.disconnect()

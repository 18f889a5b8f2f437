"""What handlers get, what their exceptions mean, and what publishers and consumers refuse."""

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import math
import sys
import uuid
from typing import Annotated, Any, Literal, Union

import pydantic
import pytest

import maestro_core_messaging as mcm
from maestro_core_messaging import Event, EventConsumer, EventPublisher, JsonSerializer, Message, MessageBroker

from support import consume, until


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
    assert letter.error_type == "maestro_core_messaging.InvalidEventError"
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
    headers = {"dlq-topic": topic, "dlq-group": topic, "dlq-reason": "rejected", "dlq-attempts": "1", "dlq-replay-count": "3"}
    await broker.publish(f"{topic}.{topic}.dlq", {}, headers=headers)
    assert (await console.replay()).refused == 1
    assert [letter.replay_count for letter in await console.list(min_replays=3)] == [3]
    report = await console.replay(min_replays=3, max_replays=4)
    assert (report.replayed, report.filtered) == (1, 2)
    await broker.publish(f"{topic}.{topic}.dlq", {}, headers=headers | {"dlq-topic": "bad topic", "dlq-replay-count": "0"})
    report = await console.replay()
    assert (report.seen, report.replayed, report.failed) == (1, 0, 1)
    assert report.first_failure is not None and report.first_failure.error == "invalid_topic"
    with pytest.raises(mcm.InvalidOptionError, match="min_replays: -1"):
        await console.list(min_replays=-1)
    assert await console.purge() == 4
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
    with pytest.raises(mcm.InvalidOptionError, match="concurrency: 0; allowed is 1 to"):
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


def test_a_handler_with_a_yield_is_refused(memory_broker):
    async def asynchronous(event):
        yield event

    def plain(event):
        yield event

    class Callable:
        async def __call__(self, event):
            yield event

        def method(self, event):
            yield event

    for handler in (asynchronous, plain, functools.partial(asynchronous), Callable(), Callable().method):
        with pytest.raises(mcm.InvalidArgumentError, match="it has a yield"):
            EventConsumer(memory_broker).subscribe("t")(handler)


async def test_a_function_that_returns_a_generator_has_not_handled(memory_broker, topic):
    def handle(event):
        return (each for each in event)

    (letter,) = await letters_of(memory_broker, topic, handle, [1], max_retry_attempts=0)
    assert (letter.error_type, letter.reason) == ("TypeError", "retries_exhausted")


async def test_a_partial_gets_what_its_function_asks_for(memory_broker, topic):
    got = []

    async def handle(sink, event: Order, *, more=None):
        sink.append((event, more))

    await memory_broker.publish(topic, {"order_id": 1, "amount": 2})
    await consume(memory_broker, topic, 1, functools.partial(handle, got, more=3))
    assert got == [(Order(order_id=1, amount=decimal.Decimal(2)), 3)]


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


async def test_constraints_of_an_annotation_hold(memory_broker, topic):
    got = []

    async def more_than_ten(event: Annotated[int, pydantic.Field(gt=10)]):
        got.append(event)

    (letter,) = await letters_of(memory_broker, topic, more_than_ten, 5)
    assert letter.reason == "invalid" and "greater than 10" in letter.error_message
    assert got == []

    async def either(event: Annotated[Union[Cat, Dog], pydantic.Field(discriminator="kind")]):
        got.append(event)

    (letter,) = await letters_of(memory_broker, f"{topic}.either", either, {"kind": "cow"})
    assert "does not match any of the expected tags" in letter.error_message

    async def short(event: Annotated[bytes, pydantic.Field(max_length=3)]):
        got.append(event)

    await memory_broker.publish(f"{topic}.bytes", b"abc")
    await consume(memory_broker, f"{topic}.bytes", 1, short)

    async def event(event: Annotated[Event, "documented"]):
        got.append(event.topic)

    await memory_broker.publish(f"{topic}.event", 1)
    await consume(memory_broker, f"{topic}.event", 1, event)
    assert got == [b"abc", f"{topic}.event"]


def test_an_annotation_that_nobody_can_validate_names_its_handler(memory_broker):
    class Opaque:
        pass

    async def handle_opaque(event: Opaque):
        pass

    with pytest.raises(mcm.InvalidArgumentError, match="Opaque of the handler .*handle_opaque: pydantic cannot validate it"):
        EventConsumer(memory_broker).subscribe("t")(handle_opaque)


class Invoice(pydantic.BaseModel):
    number: int = pydantic.Field(alias="invoiceNumber")


class Spelled(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(serialize_by_alias=False, populate_by_name=True)
    number: int = pydantic.Field(alias="invoiceNumber")


async def test_a_model_with_an_alias_is_read_back_by_the_same_model(memory_broker, topic):
    got = []

    async def handle(event: Invoice):
        got.append(event)

    await EventPublisher(memory_broker).publish(topic, Invoice(invoiceNumber=1))
    await consume(memory_broker, topic, 1, handle)
    assert got == [Invoice(invoiceNumber=1)]
    await memory_broker.create_topic(f"{topic}.raw", partitions=1)
    await memory_broker.publish(f"{topic}.raw", {"in": Invoice(invoiceNumber=2)})
    await memory_broker.publish(f"{topic}.raw", Spelled(number=3))  # the model's own word
    reader = memory_broker.subscribe(f"{topic}.raw")
    assert [(await reader.next()).value for _ in range(2)] == [{"in": {"invoiceNumber": 2}}, {"number": 3}]
    await reader.close()


async def test_on_error_covers_every_topic_of_its_handler(memory_broker, topic):
    def made(consumer, *decorators):
        async def handle(event):
            raise ValueError("always")

        for decorate in decorators:
            handle = decorate(handle)
        return consumer

    for number in range(3):
        name = f"{topic}.{number}"
        consumer = EventConsumer(memory_broker, group_id="g", max_retry_attempts=0)
        decorators = [consumer.subscribe(f"{name}.a"), consumer.subscribe(f"{name}.b")]
        decorators.insert(number, consumer.on_error(f"{name}.failed"))
        made(consumer, *decorators)
        for each in "ab":
            await memory_broker.publish(f"{name}.{each}", each)
        running = asyncio.create_task(consumer.start())
        await until(lambda: consumer.counts.dead_lettered == 2)
        consumer.stop()
        await running
        letters = await memory_broker.dead_letters(f"{name}.failed").list()
        assert sorted(letter.topic for letter in letters) == [f"{name}.a", f"{name}.b"]


async def test_stop_iteration_of_a_plain_handler_is_a_failure_like_another(memory_broker, topic):
    def handle(event):
        next(iter(()))

    (letter,) = await letters_of(memory_broker, topic, handle, 1, max_retry_attempts=1)
    assert (letter.error_type, letter.attempts) == ("RuntimeError", 2)
    assert "StopIteration" in letter.error_message


@pytest.mark.skipif(sys.version_info < (3, 11), reason="uncancel() came with 3.11")
async def test_a_handler_that_cancels_its_own_task_in_its_first_step(memory_broker, topic):
    seen = []

    async def gives_up(event):
        asyncio.current_task().cancel("enough")
        await asyncio.sleep(30)

    (letter,) = await letters_of(memory_broker, topic, gives_up, 1, max_retry_attempts=0)
    assert letter.error_type == "asyncio.exceptions.CancelledError"
    assert "gives_up" in letter.error_stack

    async def goes_on(event):
        asyncio.current_task().cancel()
        inner = asyncio.ensure_future(asyncio.sleep(30))
        try:
            await inner
        except asyncio.CancelledError:
            seen.append(inner.cancelled())
            asyncio.current_task().uncancel()
        await asyncio.sleep(0)
        seen.append("went on")

    for number in range(2):  # a fresh task, and one that was used before
        await memory_broker.publish(f"{topic}.on", number)
    await consume(memory_broker, f"{topic}.on", 2, goes_on)
    assert seen == [True, "went on"] * 2


async def test_a_cancellation_that_a_handler_raises_is_its_failure(memory_broker, topic):
    async def handle(event):
        raise asyncio.CancelledError("on my own")

    (letter,) = await letters_of(memory_broker, topic, handle, 1, max_retry_attempts=0)
    assert letter.error_type == "asyncio.exceptions.CancelledError"
    if sys.version_info >= (3, 11):  # before, a task keeps no more of it
        assert letter.error_message == "on my own"
        assert "in handle" in letter.error_stack


async def test_an_exception_without_a_text_is_described(memory_broker, topic):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    async def handle(event):
        raise Mute

    (letter,) = await letters_of(memory_broker, topic, handle, 1, max_retry_attempts=0)
    assert letter.error_type.endswith("Mute")
    assert letter.error_message == "its text could not be made: __str__ raised RuntimeError"
    assert "in handle" in letter.error_stack


async def test_messages_compare_as_their_values_do(memory_broker, topic):
    await memory_broker.create_topic(topic, partitions=1)
    await memory_broker.publish_many(topic, [1, None, [1, None], {"a": None}])
    reader = memory_broker.subscribe(topic)
    one, none, listed, mapped = [await reader.next() for _ in range(4)]
    await reader.close()
    assert one == 1.0 and 1.0 == one and one != 2 and one != "1"
    assert not one == None and one != None and none == None  # noqa: E711
    assert one in [None, 1] and None in listed and 1.0 in listed and None not in mapped and mapped["a"] is None
    assert one.position != None and one.position == one.position and one.position not in (None, 1)  # noqa: E711
    with pytest.raises(TypeError, match="int"):
        1 in one
    with pytest.raises(KeyError):
        mapped[None]


async def test_none_is_published_as_null(memory_broker, topic):
    await memory_broker.create_topic(topic, partitions=1)
    await memory_broker.publish(topic, None)
    await EventPublisher(memory_broker).publish(topic, None)
    async with memory_broker.transaction() as tx:
        tx.publish(topic, None)
    reader = memory_broker.subscribe(topic)
    assert [(await reader.next()).payload for _ in range(3)] == [b"null"] * 3
    await reader.close()


async def test_a_store_of_ones_own_is_used_while_it_is_empty(memory_broker, topic):
    store = mcm.MemoryDeduplicationStore()
    for _ in range(2):
        await EventPublisher(memory_broker).publish(topic, {}, "k", id="same")
    consumer = EventConsumer(memory_broker, group_id=topic, deduplication=store)

    async def handle(event):
        pass

    consumer.subscribe(topic)(handle)
    running = asyncio.create_task(consumer.start())
    await until(lambda: consumer.counts.handled + consumer.counts.duplicates == 2)
    consumer.stop()
    await running
    assert (consumer.counts.handled, len(store)) == (1, 1)


REFUSED = [
    ({"initial_backoff": "1"}, "initial_backoff: '1'; allowed is a number"),
    ({"initial_backoff": -1}, "initial_backoff: -1; allowed is 0 to"),
    ({"max_backoff": math.nan}, "max_backoff: nan; allowed is 0 to"),
    ({"drain_timeout": -1}, "drain_timeout: -1; allowed is 0 to"),
    ({"backoff_multiplier": 0}, "backoff_multiplier: 0; allowed is 1 to 100"),
    ({"deduplication_lease": 0}, "deduplication_lease: 0; allowed is more than 0 s"),
    ({"circuit_reset_timeout": -1}, "circuit_reset_timeout: -1; allowed is 0 to"),
    ({"circuit_failure_threshold": 0}, "circuit_failure_threshold: 0; allowed is 1 to"),
    ({"enable_dead_letter_queue": "yes"}, "enable_dead_letter_queue: 'yes'; allowed is True or False"),
    ({"deduplication": "yes"}, "deduplication: 'yes'; allowed is True, MemoryDeduplicationStore"),
    ({"group_id": 7}, "group_id: 7; allowed is str"),
    ({"prefetch": 2**70}, "prefetch: 1180591620717411303424; allowed is 1 to"),
    ({"auto_offset_reset": "first"}, 'auto_offset_reset: "first"; allowed are earliest, latest'),
    ({"serializer": 5}, "serializer: 5; allowed is an object with content_type"),
]


@pytest.mark.parametrize(("options", "text"), REFUSED, ids=[next(iter(each[0])) for each in REFUSED])
async def test_options_of_a_consumer_are_refused_by_name_when_it_is_made(memory_broker, options, text):
    with pytest.raises(mcm.MessagingError) as caught:
        EventConsumer(memory_broker, **options)
    assert text in str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, TypeError)


async def test_wrong_arguments_are_named_wherever_they_go(memory_broker, topic):
    publisher = EventPublisher(memory_broker)
    consumer = EventConsumer(memory_broker)

    async def in_a_transaction(*arguments, **named):
        async with memory_broker.transaction() as tx:
            tx.publish(*arguments, **named)

    calls = [
        (lambda: memory_broker.publish(7, 1), "topic: 7; allowed is str"),
        (lambda: memory_broker.publish(topic, 1, partition="0"), "partition: '0'; allowed is an int"),
        (lambda: memory_broker.publish(topic, 1, confirm="no"), "confirm: 'no'; allowed is True or False"),
        (lambda: memory_broker.publish(topic, 1, headers=["a"]), "headers: a list; allowed is a mapping"),
        (lambda: memory_broker.publish(topic, 1, headers="a"), "headers: 'a'; allowed is a mapping"),
        (lambda: memory_broker.publish(topic, 1, timestamp=1.0), "timestamp: 1.0; allowed is an aware datetime"),
        (lambda: memory_broker.publish_many(7, [1]), "topic: 7; allowed is str"),
        (lambda: memory_broker.publish_many(topic, 7), "messages: 7; allowed is an iterable"),
        (lambda: memory_broker.publish_many(topic, [1], keys=["a", "b"]), "keys: more than messages"),
        (lambda: publisher.publish(None, 1), "topic: None; allowed is str"),
        (lambda: publisher.publish(topic, 1, id=5), "id: 5; allowed is str"),
        (lambda: publisher.publish(topic, 1, confirm=1), "confirm: 1; allowed is True or False"),
        (lambda: in_a_transaction(5, 1), "topic: 5; allowed is str"),
        (lambda: in_a_transaction(topic, 1, headers=[1]), "headers: a list; allowed is a mapping"),
        (lambda: memory_broker.describe_topic(5), "topic: 5; allowed is str"),
        (lambda: memory_broker.create_topic(topic, partitions="1"), "partitions: '1'; allowed is an int"),
        (lambda: memory_broker.dead_letters(topic).list(limit="1"), "limit: '1'; allowed is an int"),
        (lambda: memory_broker.subscribe(5), "topic: 5; allowed is str"),
        (lambda: memory_broker.subscribe(topic, 5), "group_id: 5; allowed is str"),
        (lambda: memory_broker.subscribe(topic, prefetch="1"), "prefetch: '1'; allowed is an int"),
        (lambda: memory_broker.subscribe(topic, serializer=str), "serializer: a type; allowed is an object"),
        (lambda: consumer.subscribe(lambda event: None), 'as in @consumer.subscribe("orders")'),
        (lambda: consumer.subscribe("t")(None), "the handler: None; allowed is a function"),
        (lambda: EventConsumer("x"), "broker: 'x'; allowed is a MessageBroker"),
        (lambda: EventPublisher("x"), "broker: 'x'; allowed is a MessageBroker"),
        (lambda: EventPublisher(memory_broker, source=5), "source: 5; allowed is str"),
        (lambda: mcm.SharedDeduplicationStore(memory_broker, window="x"), "window: 'x'; allowed is a number"),
        (lambda: mcm.MemoryDeduplicationStore(window=-1.0), "window: -1 s; allowed is 0 to"),
        (lambda: MessageBroker.from_config({}), "config: a dict; allowed is a MessagingConfig"),
        (lambda: MessageBroker("memory", 5), "connection_string: 5; allowed is str"),
        (lambda: MessageBroker("memory", "memory://x", enable_monitoring="yes"), "enable_monitoring: 'yes'; allowed is True or False"),
        (lambda: MessageBroker("memory", "memory://x", ["a"]), "connection_config: a list; allowed is a mapping"),
        (lambda: MessageBroker("memory", "memory://x", {5: 1}), "an option's name is int; allowed is str"),
        (lambda: MessageBroker("memory", "memory://x", {"partitions": 2**70}), "partitions: 1180591620717411303424; allowed are whole numbers"),
    ]
    for call, text in calls:
        with pytest.raises(mcm.MessagingError) as caught:
            made = call()
            assert asyncio.iscoroutine(made), text
            await made
        assert text in str(caught.value)
        assert isinstance(caught.value, (TypeError, ValueError))
    assert (await memory_broker.get_status()).messages_sent == 0


async def test_two_that_wait_for_a_private_reader_share_it(memory_broker, topic):
    await memory_broker.create_topic(topic, partitions=1)
    await memory_broker.publish_many(topic, [1, 2])
    subscription = memory_broker.subscribe(topic)
    messages = await asyncio.wait_for(asyncio.gather(subscription.next(), subscription.next()), 10)
    assert sorted(message.value for message in messages) == [1, 2]
    assert (await memory_broker.get_status()).subscription_count == 1
    await subscription.close()

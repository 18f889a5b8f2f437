"""The one door to a broker, and what is reached through it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

from . import _check, _codec, _core, _errors, _logging, _monitoring, _runtime, _tracing
from ._config import BrokerType, MessagingConfig, OptionValue, name_of

_Receipt = _core.Receipt


@dataclasses.dataclass(frozen=True)
class PartitionLag:
    """Messages of a partition that a group has not settled; without a group, that a private reader has not had."""

    topic: str
    partition: int
    lag: int
    group: str | None = None


@dataclasses.dataclass(frozen=True)
class BrokerStatus:
    """What a broker is doing. `acknowledged_means` says what an acknowledged publish survives."""

    connected: bool
    subscription_count: int
    messages_sent: int
    messages_received: int
    lag: list[PartitionLag]
    circuit: str
    last_error: str
    acknowledged_means: str


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What a broker can promise."""

    broker: str
    groups: bool
    patterns: bool
    partitions: bool
    persistent_topics: bool
    release_with_delay: bool
    counts_deliveries: bool
    transactions: bool
    administration: bool
    survives_restart: bool
    max_message_bytes: int
    acknowledged_means: str


@dataclasses.dataclass(frozen=True)
class FlushFailure:
    """A message that was published with `confirm=False` and did not reach the broker, or may not have."""

    topic: str
    payload: bytes
    key: str | None
    error: _errors.MessagingError


@dataclasses.dataclass(frozen=True)
class FlushReport:
    """What became of everything that was published with `confirm=False` since the last flush."""

    confirmed: int
    failures: list[FlushFailure]


@dataclasses.dataclass(frozen=True)
class PartitionInfo:
    """The positions that a partition keeps: from `first` up to, and without, `next`."""

    partition: int
    first: int
    next: int


@dataclasses.dataclass(frozen=True)
class GroupInfo:
    """A group that reads a topic: how many members it has, and how many messages it has not settled."""

    group: str
    members: int
    lag: int


@dataclasses.dataclass(frozen=True)
class TopicInfo:
    """A topic: how many messages it keeps (on Kafka, with the end of each transaction), in which partitions, and the groups that read it."""

    name: str
    messages: int
    partitions: list[PartitionInfo]
    groups: list[GroupInfo]


@dataclasses.dataclass(frozen=True)
class DeadLetter:
    """A message that failed for good, with where it came from and why."""

    topic: str
    group: str
    partition: int
    position: str
    reason: str
    error_type: str
    error_message: str
    error_stack: str
    attempts: int
    first_failed_at: str
    failed_at: str
    replay_count: int
    message: _core.Message


@dataclasses.dataclass(frozen=True)
class ReplayFailure:
    """A dead letter that could not be published again: its position in the dead-letter topic, the kind of error, and its text."""

    position: str
    error: str
    detail: str


@dataclasses.dataclass(frozen=True)
class ReplayReport:
    """What a replay did: dead letters seen, published again, passed over by the filter, refused for having been replayed too often,
    messages of the topic that are no dead letters, and those that failed: for a reason of their own they could not be published."""

    seen: int
    replayed: int
    filtered: int
    refused: int
    foreign: int
    held: int
    failed: int = 0
    first_failure: ReplayFailure | None = None


def _monitoring_from_env() -> bool:
    value = os.environ.get("MESSAGING_ENABLE_MONITORING", "")
    if value.lower() not in ("", "0", "1", "false", "true", "no", "yes", "off", "on"):
        raise _errors.InvalidOptionError(f'MESSAGING_ENABLE_MONITORING: "{value}"; allowed are true and false')
    return value.lower() in ("1", "true", "yes", "on")


def require_broker(broker: object) -> None:
    if not isinstance(broker, MessageBroker):
        raise _check.kind("broker", broker, "a MessageBroker")


@_check.keywords
class MessageBroker:
    """The one door to a broker.

    It connects by itself on first use, and belongs to the event loop in which it is used first. Making one checks the configuration and
    connects to nothing.

    Args:
        broker_type: A `BrokerType` or its name.
        connection_string: `host:port[,host:port]` for Kafka, `memory://name`, and so on. By default the one of the environment
            (`KAFKA_BOOTSTRAP_SERVERS`, `REDIS_URL`, `RABBITMQ_URL`, `NATS_URL`).
        connection_config, consumer_config, producer_config: Options by name; `maestro config` prints all of them.
        enable_monitoring: Counts into `prometheus_client`'s default registry. By default what `MESSAGING_ENABLE_MONITORING` says.

    Raises:
        UnknownOptionError, InvalidOptionError: A key, a type or a value that is not allowed; the text says what is.
        UnsupportedError: A broker that this build lacks.
    """

    def __init__(
        self,
        broker_type: BrokerType | str,
        connection_string: str | None = None,
        connection_config: Mapping[str, OptionValue] | None = None,
        *,
        consumer_config: Mapping[str, OptionValue] | None = None,
        producer_config: Mapping[str, OptionValue] | None = None,
        enable_monitoring: bool | None = None,
    ) -> None:
        broker_name = name_of(broker_type)
        _check.text_or_none("connection_string", connection_string)
        _check.flag_or_none("enable_monitoring", enable_monitoring)
        for name, options in (
            ("connection_config", connection_config),
            ("consumer_config", consumer_config),
            ("producer_config", producer_config),
        ):
            _check.mapping(name, options)
        if connection_string is None:
            connection_string = MessagingConfig.from_env(broker_type).connection_string
        self._config = MessagingConfig(
            broker_name,
            connection_string,
            dict(connection_config or {}),
            dict(consumer_config or {}),
            dict(producer_config or {}),
            _monitoring_from_env() if enable_monitoring is None else enable_monitoring,
        )
        _core.check_config(*self._arguments())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._native: _core.Broker | None = None
        if self._config.enable_monitoring:
            _monitoring.expose()

    @classmethod
    def from_config(cls, config: MessagingConfig) -> MessageBroker:
        """The broker that the configuration describes."""
        if not isinstance(config, MessagingConfig):
            raise _check.kind("config", config, "a MessagingConfig")
        return cls(
            config.broker_type,
            config.connection_string,
            config.connection_config,
            consumer_config=config.consumer_config,
            producer_config=config.producer_config,
            enable_monitoring=config.enable_monitoring,
        )

    @property
    def config(self) -> MessagingConfig:
        """The configuration that it was made with."""
        return self._config

    def __repr__(self) -> str:
        return f"<MessageBroker {name_of(self._config.broker_type)} {_core.redact(self._config.connection_string)}>"

    def _arguments(self) -> tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]]:
        config = self._config
        return (
            name_of(config.broker_type),
            config.connection_string,
            dict(config.connection_config),
            dict(config.consumer_config),
            dict(config.producer_config),
        )

    def _bind(self) -> _core.Broker:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            _core.require_not_forked()  # the loop did not come along either
            raise
        if self._loop is loop:
            assert self._native is not None
            return self._native
        if self._loop is not None:
            raise _errors.UnsupportedError(
                f"{self!r} belongs to another event loop, the one in which it was used first; make a broker for each loop"
            )
        _logging.follow_level()
        native = _core.Broker(_runtime.join(loop), *self._arguments(), bool(self._config.enable_monitoring))
        _runtime.follow(self, loop, native)
        self._loop, self._native = loop, native
        return native

    async def connect(self) -> None:
        """Completes when the broker has answered. Everything else connects by itself on first use.

        Raises `ConnectionFailedError`, `AuthenticationFailedError` or `TlsFailedError` within `connect_timeout`.
        """
        await _runtime.finish(self._bind().connect())

    async def disconnect(self) -> None:
        """Flushes, closes the subscriptions, leaves the groups. Afterwards every call raises `ClosedError`, and iterations end.

        A broker that was never used has nothing to do. Cancelling it still closes everything before it is cancelled.
        """
        if self._native is None:
            return
        await _runtime.finish_in_order(self._bind().disconnect())

    async def __aenter__(self) -> MessageBroker:
        await self.connect()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.disconnect()

    async def publish(
        self,
        topic: str,
        message: Any,
        key: str | bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        partition: int | None = None,
        timestamp: dt.datetime | None = None,
        confirm: bool = True,
    ) -> _core.Receipt:
        """Publishes a message. Completes when the broker has it by the strongest means that it offers.

        Args:
            message: Anything that JSON has, a pydantic model or a dataclass, published as JSON; or bytes, as they are.
            key: Same key, same partition, in order.
            headers: Text to text.
            partition: Chosen by the key's hash when it is absent.
            timestamp: An aware datetime; the broker's own time when it is absent.
            confirm: False completes when the bounded buffer has it; `flush()` reports what became of it.

        Raises `InvalidTopicError`, `InvalidEventError`, `MessageTooLargeError`, `CircuitOpenError`, `QueueFullError`, `TimedOutError`
        (surely not done) or `OutcomeUnknownError` within `publish_timeout`. Cancelling it leaves the outcome unknown.
        """
        native, time = self._bind(), _check.instant("timestamp", timestamp)
        if _tracing.active():
            _check.message(topic, headers, partition, confirm)
            with _tracing.sending(topic, headers) as headers:
                result = native.publish(topic, message, key, headers, partition, time, confirm)
                return result if isinstance(result, _Receipt) else await _runtime.finish(result)
        try:
            result = native.publish(topic, message, key, headers, partition, time, confirm)
        except TypeError:
            _check.message(topic, headers, partition, confirm)
            raise
        return result if isinstance(result, _Receipt) else await _runtime.finish(result)

    async def publish_many(
        self,
        topic: str,
        messages: Iterable[Any],
        *,
        keys: Iterable[str | bytes | None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> list[_core.Receipt | _errors.MessagingError]:
        """Publishes a batch: one round trip where the broker allows. Completes with a receipt or the error of each, in order.

        Raises for what no message of the batch was tried with: a bad topic, an open circuit, a message that cannot be encoded.
        """
        native = self._bind()
        _check.topic(topic)
        _check.mapping("headers", headers)
        for name, each in (("messages", messages), ("keys", keys if keys is not None else ())):
            if not isinstance(each, Iterable):
                raise _check.kind(name, each, "an iterable")
        if _tracing.active():
            messages = list(messages)
            with _tracing.sending(topic, headers, len(messages)) as headers:
                return await _runtime.finish(native.publish_many(topic, messages, keys, headers))
        return await _runtime.finish(native.publish_many(topic, messages, keys, headers))

    async def flush(self) -> FlushReport:
        """Waits for everything that was published with `confirm=False`, and says what became of it."""
        confirmed, failures = await _runtime.finish(self._bind().flush())
        return FlushReport(confirmed, [FlushFailure(*each) for each in failures])

    def subscribe(
        self,
        topic: str,
        group_id: str | None = None,
        *,
        auto_offset_reset: Literal["earliest", "latest"] | None = None,
        enable_auto_commit: bool | None = None,
        prefetch: int | None = None,
        serializer: _codec.Serializer | None = None,
    ) -> Subscription:
        """A subscription to a topic or a pattern, to be iterated with `async for`. Connects by itself, when the iteration begins.

        Args:
            topic: A topic, or a pattern in which `*` stands for one token and a final `>` or `#` for one or more. Kafka's
                own topics, whose names begin with two underscores, are found only by a pattern whose first token names them.
            group_id: The group that shares the work. None: a private reader, which sees everything and settles nothing for others.
            auto_offset_reset: Where a new group, or a private reader, starts: `earliest` (the default) or `latest`.
            enable_auto_commit: Asking for the next message acknowledges the last. Default: true.
            prefetch: Messages fetched ahead of need, at most.
            serializer: What decodes the payload. Default: JSON.
        """
        _check.topic(topic)
        _check.text_or_none("group_id", group_id)
        if auto_offset_reset not in (None, "earliest", "latest"):
            raise _errors.InvalidOptionError(f'auto_offset_reset: "{auto_offset_reset}"; allowed are earliest, latest')
        _check.flag_or_none("enable_auto_commit", enable_auto_commit)
        _check.whole("prefetch", prefetch, 1)
        _check.serializer(serializer)
        return Subscription(self, topic, group_id, auto_offset_reset, enable_auto_commit, prefetch, serializer)

    async def commit(self) -> None:
        """Acknowledges all that every open subscription of this broker has handed out; completes when the broker has it."""
        await _runtime.finish(self._bind().commit())

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """`async with broker.transaction() as tx`: what is put into it takes effect at once when the block ends, and not at all when
        it raises. Raises `UnsupportedError` on a broker without transactions, `TransactionAbortedError` with the reason when
        another try may help, else the cause's own error, such as `MessageTooLargeError`."""
        collected = Transaction()
        yield collected
        await _runtime.finish(self._bind().transaction(collected._messages, collected._settled))

    async def health_check(self) -> bool:
        """A round trip to the broker; false when it fails, or when a subscription no longer makes progress. Raises nothing."""
        return await _runtime.finish(self._bind().health_check())

    async def get_status(self) -> BrokerStatus:
        """What the broker is doing; see `BrokerStatus`."""
        status = await _runtime.finish(self._bind().get_status())
        status["lag"] = [PartitionLag(*each) for each in status["lag"]]
        return BrokerStatus(**status)

    def capabilities(self) -> Capabilities:
        """What this broker can promise. Inside an event loop."""
        return Capabilities(**self._bind().capabilities())

    def dead_letters(self, topic: str) -> DeadLetters:
        """The dead-letter console of one dead-letter topic."""
        _check.topic(topic)
        return DeadLetters(self, topic)

    async def list_topics(self) -> list[str]:
        """The names of the broker's topics. Raises `UnsupportedError` where the broker has no administration."""
        return await _runtime.finish(self._bind().list_topics())

    async def describe_topic(self, topic: str) -> TopicInfo:
        """Partitions, groups and their lag. Raises `TopicNotFoundError`."""
        _check.topic(topic)
        name, messages, partitions, groups = await _runtime.finish(self._bind().describe_topic(topic))
        return TopicInfo(name, messages, [PartitionInfo(*each) for each in partitions], [GroupInfo(*each) for each in groups])

    async def create_topic(
        self, topic: str, *, partitions: int | None = None, configuration: Mapping[str, str] | None = None
    ) -> None:
        """Makes a topic; `configuration` is in the broker's own words. Raises `AlreadyExistsError`."""
        _check.topic(topic)
        _check.whole("partitions", partitions, 1)
        _check.mapping("configuration", configuration)
        await _runtime.finish(self._bind().create_topic(topic, partitions, dict(configuration or {})))

    async def delete_topic(self, topic: str) -> None:
        """Deletes a topic and all that it keeps. Raises `TopicNotFoundError`."""
        _check.topic(topic)
        await _runtime.finish(self._bind().delete_topic(topic))

    async def purge_topic(self, topic: str) -> int:
        """Removes what the topic keeps at the moment; completes with how many messages that were."""
        _check.topic(topic)
        return await _runtime.finish(self._bind().purge_topic(topic))


class Transaction:
    """Publishes and acknowledgements that take effect together, or not at all."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, bytes, str | bytes | None, Mapping[str, str] | None]] = []
        self._settled: list[_core.Message] = []

    def publish(
        self, topic: str, message: Any, key: str | bytes | None = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Adds a message; it is encoded now, and sent when the block ends."""
        _check.topic(topic)
        _check.mapping("headers", headers)
        if _tracing.active():
            headers = _tracing.inject(headers)
        self._messages.append((topic, _codec.encode(message), key, headers))

    def acknowledge(self, message: _core.Message) -> None:
        """Acknowledges a message that a subscription of this broker handed out, and all before it in its partition where the broker
        keeps positions."""
        self._settled.append(message)


class Subscription:
    """Messages of a topic or a pattern, read by hand.

    `async for message in subscription` acknowledges a message when the next one is asked for. Leaving the loop by `break` or an
    exception leaves the last message unsettled: it will be delivered again. Cancelling a wait loses no message. One coroutine at a time.
    """

    def __init__(
        self,
        broker: MessageBroker,
        topic: str,
        group_id: str | None,
        auto_offset_reset: str | None,
        enable_auto_commit: bool | None,
        prefetch: int | None,
        serializer: _codec.Serializer | None,
    ) -> None:
        self._broker = broker
        self._request = (topic, group_id, auto_offset_reset, enable_auto_commit, prefetch)
        self._decode = None if serializer is None else serializer.deserialize
        self._reader: _core.Reader | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    def __repr__(self) -> str:
        topic, group, *_ = self._request
        return f"<Subscription {topic}{'' if group is None else f' as {group}'} of {self._broker!r}>"

    async def open(self) -> Subscription:
        """Subscribes, if that was not done yet; iterating does it by itself. Waits for a broker that is not there yet."""
        await self._opened()
        return self

    async def _opened(self) -> _core.Reader:
        async with self._opening:  # whoever comes meanwhile gets the same reader
            if self._reader is None:
                self._require_open()
                reader = await _runtime.finish(self._broker._bind().subscribe(*self._request, self._decode))
                if self._closed:
                    await _runtime.finish_in_order(reader.close())
                self._require_open()
                self._reader = reader
            return self._reader

    def _require_open(self) -> None:
        if self._closed:
            raise _errors.ClosedError("the subscription was closed")

    def _now(self) -> _core.Reader:
        if self._reader is None:
            raise _errors.InvalidArgumentError(
                "the subscription was closed" if self._closed else "the subscription is not open; iterate it, or await open() first"
            )
        return self._reader

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> _core.Message:
        reader = self._reader
        if reader is None:
            try:
                reader = await self._opened()
            except _errors.ClosedError:
                if self._closed:
                    raise StopAsyncIteration from None
                raise
        while True:
            message = reader.try_next()
            if message is not None:
                return message
            if not await _runtime.finish(reader.ready()):
                raise StopAsyncIteration

    async def next(self) -> _core.Message | None:
        """The next message; none once the subscription was closed or the broker disconnected."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return None

    async def batches(self, at_most: int = 500) -> AsyncIterator[list[_core.Message]]:
        """Batches of at least one message and at most `at_most`; asking for the next acknowledges the one before."""
        _check.whole("at_most", at_most, 1)
        reader = await self._opened()
        while True:
            batch = reader.try_next_batch(at_most)
            if batch:
                yield batch
            elif not await _runtime.finish(reader.ready()):
                return

    def acknowledge(self, message: _core.Message) -> None:
        """Accepts the message as done; sent with the next batch of acknowledgements or `commit()`."""
        self._now().acknowledge(message)

    def release(self, message: _core.Message, delay: float = 0.0) -> None:
        """Gives the message back, to be delivered again after `delay` seconds. Raises `UnsupportedError` where the broker cannot."""
        self._now().release(message, _check.seconds("delay", delay))

    async def commit(self) -> None:
        """Acknowledges all that was handed out so far; completes when the broker has it."""
        await _runtime.finish(self._now().commit())

    def pause(self) -> None:
        """Stops deliveries without losing the place in the group. Messages fetched ahead are kept."""
        self._now().pause()

    def resume(self) -> None:
        """Goes on with deliveries after `pause()`."""
        self._now().resume()

    async def seek(self, topic: str, partition: int, to: int | dt.datetime) -> None:
        """Goes on from an offset in one partition (-1 is the beginning, -2 the end), or from the first message that is not older than
        an aware datetime."""
        _check.topic(topic)
        _check.whole("partition", partition, 0)
        if isinstance(to, dt.datetime):
            seconds = _check.instant("to", to)
            assert seconds is not None
            await _runtime.finish(self._now().seek_time(topic, partition, seconds))
        else:
            await _runtime.finish(self._now().seek(topic, partition, _check.whole("to", to, -2, 2**63 - 1)))

    async def close(self) -> None:
        """Leaves the group; what was handed out and not acknowledged is delivered again to another member. Ends the iteration."""
        reader, self._reader, self._closed = self._reader, None, True
        if reader is not None:
            await _runtime.finish_in_order(reader.close())

    async def __aenter__(self) -> Subscription:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class DeadLetters:
    """The dead-letter console of one topic, on any broker that can list its topics."""

    def __init__(self, broker: MessageBroker, topic: str) -> None:
        self._broker = broker
        self._topic = topic

    def __repr__(self) -> str:
        return f"<DeadLetters {self._topic} of {self._broker!r}>"

    async def list(
        self,
        *,
        reason: str | None = None,
        error_contains: str | None = None,
        key: str | None = None,
        min_replays: int = 0,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """At most `limit` dead letters, oldest first in each partition; nothing is settled."""
        _check_filter(reason, error_contains, key, min_replays)
        _check.whole("limit", limit, 1)
        letters = await _runtime.finish(
            _core.list_dead_letters(
                self._broker._bind(), self._topic, reason, error_contains, key, min_replays, limit
            )
        )
        return [DeadLetter(**letter) for letter in letters]

    async def show(self, partition: int, offset: int) -> DeadLetter | None:
        """The dead letter at this place, whole. None when there is none."""
        _check.whole("partition", partition, -1)
        _check.whole("offset", offset, 0, 2**63 - 1)
        letter = await _runtime.finish(_core.show_dead_letter(self._broker._bind(), self._topic, partition, offset))
        return None if letter is None else DeadLetter(**letter)

    async def replay(
        self,
        *,
        reason: str | None = None,
        error_contains: str | None = None,
        key: str | None = None,
        min_replays: int = 0,
        dry_run: bool = False,
        per_second: float | None = None,
        max_replays: int = 3,
        limit: int | None = None,
    ) -> ReplayReport:
        """Publishes each matching dead letter to the topic it came from, under a fresh id, and commits after each confirmed copy, so
        that a replay that was cut short goes on where it stopped. One that cannot be published for a reason of its own (too large, or
        from a topic that is not there or not allowed) is passed over, and counted as `failed`. `dry_run` counts, and changes nothing. What was replayed
        `max_replays` times is passed over; to go back to it alone, say `min_replays` with that number, and a higher `max_replays`."""
        _check_filter(reason, error_contains, key, min_replays)
        _check.flag("dry_run", dry_run)
        _check.number("per_second", per_second, 0, 1e9)
        _check.whole("max_replays", max_replays, 0)
        _check.whole("limit", limit, 1)
        report = await _runtime.finish(
            _core.replay_dead_letters(
                self._broker._bind(),
                self._topic,
                reason,
                error_contains,
                key,
                min_replays,
                dry_run,
                per_second,
                max_replays,
                limit,
            )
        )
        first = report.pop("first_failure")
        return ReplayReport(**report, first_failure=ReplayFailure(**first) if first else None)

    async def purge(self) -> int:
        """Removes everything in the topic; completes with how many there were."""
        return await _runtime.finish(_core.purge_dead_letters(self._broker._bind(), self._topic))


def _check_filter(reason: object, error_contains: object, key: object, min_replays: object) -> None:
    _check.text_or_none("reason", reason)
    _check.text_or_none("error_contains", error_contains)
    _check.text_or_none("key", key)
    _check.whole("min_replays", min_replays, 0, 2**31 - 1)

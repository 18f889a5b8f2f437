"""Handlers over events: in parallel, in order for each key, with retries, dead letters, deduplication and a circuit breaker."""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from . import _broker, _check, _codec, _core, _errors, _logging, _runtime, _tracing

MemoryDeduplicationStore = _core.MemoryDeduplicationStore


class SharedDeduplicationStore:
    """Ids that were handled, shared by every process that reaches the same broker (today: Redis), for consumers on any broker. A done
    id is remembered for `window` seconds. It belongs to the event loop of its broker."""

    def __init__(self, broker: _broker.MessageBroker, window: float = 86_400.0) -> None:
        _broker.require_broker(broker)
        self._broker = broker
        self._window = _check.seconds("window", window)

    def __repr__(self) -> str:
        return f"<SharedDeduplicationStore in {self._broker!r}>"


class MessageHandler(typing.Protocol):
    """What handles the events of a topic: `async def`, or a plain function, which runs in a thread pool.

    The annotation of its one parameter says what it gets: the decoded value (no annotation, `dict`, `Any`), a pydantic model, `Event`,
    `Message` or `bytes`. Returning means done; raising means that it is tried again, and dead-lettered in the end.
    """

    def __call__(self, event: Any, /) -> Any: ...


_Handler = TypeVar("_Handler", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class ConsumerCounts:
    """What a consumer has done: deliveries received (redeliveries included), handled, tried again, dead-lettered, discarded (dead
    letters being off), and settled as duplicates."""

    received: int
    handled: int
    retried: int
    dead_lettered: int
    discarded: int
    duplicates: int


@dataclasses.dataclass
class _Route:
    topic: str
    handler: Callable[..., Any]
    gives: str
    decode: Callable[[bytes], Any] | None


@_check.keywords
class EventConsumer:
    """Runs handlers over the events of its topics. Options that are absent take the configured value, else the default.

    Args:
        broker: Where from.
        group_id: The group that shares the work. Default: the configured one, else `client_id`, else `maestro`; logged.
        concurrency: Handlers that may run at once, over all topics. Default: 1.
        ordering: `key` (events of one key run one after the other), `partition` or `none`.
        max_retry_attempts: After the first try. Default: 3.
        enable_dead_letter_queue: Default: true.
        initial_backoff, backoff_multiplier, max_backoff: Seconds; by default 0.1, 2 and 30, with full jitter.
        drain_timeout: Seconds that running handlers get to finish when the consumer stops. Default: 30.
        prefetch: Unsettled messages held in this process. Default: 1024.
        auto_offset_reset: Where a new group starts: `earliest` (the default) or `latest`.
        deduplication: By message id, within the group: true for a store of this process, or a store. Default: none.
        deduplication_lease: Seconds after which a claim counts as a crashed one.
        circuit_failure_threshold: Pauses deliveries after so many failures in a row. Default: never.
        circuit_reset_timeout: Seconds until one probe is let through.
        serializer: What decodes payloads. Default: JSON.
    """

    def __init__(
        self,
        broker: _broker.MessageBroker,
        group_id: str | None = None,
        *,
        concurrency: int | None = None,
        ordering: Literal["key", "partition", "none"] = "key",
        max_retry_attempts: int | None = None,
        enable_dead_letter_queue: bool | None = None,
        initial_backoff: float | None = None,
        backoff_multiplier: float | None = None,
        max_backoff: float | None = None,
        drain_timeout: float | None = None,
        prefetch: int | None = None,
        auto_offset_reset: Literal["earliest", "latest"] | None = None,
        deduplication: bool | MemoryDeduplicationStore | SharedDeduplicationStore | None = None,
        deduplication_lease: float | None = None,
        circuit_failure_threshold: int | None = None,
        circuit_reset_timeout: float | None = None,
        serializer: _codec.Serializer | None = None,
    ) -> None:
        _broker.require_broker(broker)
        _check.text_or_none("group_id", group_id)
        _check.flag_or_none("enable_dead_letter_queue", enable_dead_letter_queue)
        if ordering not in ("key", "partition", "none"):
            raise _errors.InvalidOptionError(f'ordering: "{ordering}"; allowed are key, partition, none')
        if auto_offset_reset not in (None, "earliest", "latest"):
            raise _errors.InvalidOptionError(f'auto_offset_reset: "{auto_offset_reset}"; allowed are earliest, latest')
        if deduplication not in (None, False, True) and not isinstance(
            deduplication, (MemoryDeduplicationStore, SharedDeduplicationStore)
        ):
            raise _check.kind("deduplication", deduplication, "True, MemoryDeduplicationStore or SharedDeduplicationStore")
        _check.serializer(serializer)
        self._broker = broker
        self._options: dict[str, Any] = {
            "group_id": group_id,
            "concurrency": _check.whole("concurrency", concurrency, 1),
            "ordering": ordering,
            "max_retry_attempts": _check.whole("max_retry_attempts", max_retry_attempts, 0),
            "enable_dead_letter_queue": enable_dead_letter_queue,
            "initial_backoff": _check.seconds("initial_backoff", initial_backoff),
            "backoff_multiplier": _check.number("backoff_multiplier", backoff_multiplier, 1, 100),
            "max_backoff": _check.seconds("max_backoff", max_backoff),
            "drain_timeout": _check.seconds("drain_timeout", drain_timeout),
            "prefetch": _check.whole("prefetch", prefetch, 1),
            "auto_offset_reset": auto_offset_reset,
            "deduplication": MemoryDeduplicationStore() if deduplication is True else None if deduplication is False else deduplication,
            "deduplication_lease": _check.seconds("deduplication_lease", deduplication_lease, more_than_none=True),
            "circuit_failure_threshold": _check.whole("circuit_failure_threshold", circuit_failure_threshold, 1),
            "circuit_reset_timeout": _check.seconds("circuit_reset_timeout", circuit_reset_timeout, more_than_none=True),
        }
        self._serializer = serializer
        self._routes: list[_Route] = []
        self._dead_letters: list[tuple[Callable[..., Any], str]] = []
        self._native: _core.Consumer | None = None
        self._stops = 0
        self._begun = False

    def __repr__(self) -> str:
        return f"<EventConsumer {self._options['group_id'] or '(default group)'} of {self._broker!r}>"

    def subscribe(self, topic: str) -> Callable[[_Handler], _Handler]:
        """`@consumer.subscribe("orders")`: registers the handler of a topic or a pattern, before `start()`. See `MessageHandler`."""
        if callable(topic):
            raise _check.kind("subscribe", topic, 'a topic or a pattern, as in @consumer.subscribe("orders")')
        _check.topic(topic)

        def register(handler: _Handler) -> _Handler:
            if self._native is not None:
                raise _errors.AlreadyStartedError(f'subscribe("{topic}") after start(); subscribe first')
            gives, decode = self._argument_of(handler)
            self._routes.append(_Route(topic, handler, gives, decode))
            return handler

        return register

    def on_error(self, dead_letter_topic: str) -> Callable[[_Handler], _Handler]:
        """`@consumer.on_error("orders.dlq")`: what fails for good goes to this topic, instead of `{topic}.{group}.dlq`. Above or below
        `subscribe`, for every topic of the handler."""
        _check.topic(dead_letter_topic, "on_error")

        def register(handler: _Handler) -> _Handler:
            if self._native is not None:
                raise _errors.AlreadyStartedError(f'on_error("{dead_letter_topic}") after start(); say it first')
            self._dead_letters.append((handler, dead_letter_topic))
            return handler

        return register

    def _dead_letters_of(self, handler: Callable[..., Any]) -> str | None:
        return next((topic for each, topic in reversed(self._dead_letters) if each == handler), None)

    def _argument_of(self, handler: Callable[..., Any]) -> tuple[str, Callable[[bytes], Any] | None]:
        decode = None if self._serializer is None else self._serializer.deserialize
        if not callable(handler):
            raise _check.kind("the handler", handler, "a function, or another callable")
        called = _function_of(handler)
        name = getattr(called, "__qualname__", repr(handler))
        _refuse_generator(called, name)
        try:
            parameters = list(inspect.signature(handler).parameters.values())
        except (TypeError, ValueError):
            return "value", decode
        positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD, each.VAR_POSITIONAL)]
        required = [each for each in positional if each.default is each.empty and each.kind is not each.VAR_POSITIONAL]
        if not positional or len(required) > 1:
            raise _errors.InvalidArgumentError(f"the handler {name}{inspect.signature(handler)}: it is called with one argument, the event")
        try:
            wanted = typing.get_type_hints(called, include_extras=True).get(positional[0].name, Any)
        except Exception as error:  # an annotation that names nothing, or only something for type checkers
            if isinstance(positional[0].annotation, str):
                raise _errors.InvalidArgumentError(
                    f"the annotation {positional[0].annotation!r} of the handler {name} cannot be resolved: {error}; name a type of its module"
                ) from error
            wanted = positional[0].annotation
        plain = wanted.__origin__ if typing.get_origin(wanted) is typing.Annotated else wanted
        if isinstance(plain, type) and issubclass(plain, _core.Event):
            return "event", decode
        if isinstance(plain, type) and issubclass(plain, _core.Message):
            return "message", decode
        if wanted is bytes:
            return "bytes", None
        origin = typing.get_origin(wanted) or wanted
        if wanted is Any or wanted is inspect.Parameter.empty or wanted is object or (
            isinstance(origin, type) and origin in (dict, collections.abc.Mapping, collections.abc.MutableMapping)
        ):
            return "value", decode
        try:
            if plain is bytes:
                return "value", _codec.value_checker(wanted)
            if self._serializer is not None:
                return "value", _validated(wanted, self._serializer)
            return "value", _codec.model_decoder(wanted)
        except _codec.NoSchemaError as error:
            raise _errors.InvalidArgumentError(
                f"the annotation {getattr(wanted, '__qualname__', wanted)} of the handler {name}: pydantic cannot validate it ({str(error).splitlines()[0]}); "
                "allowed are pydantic models and what they are made of, dict, Any, Event, Message and bytes"
            ) from error

    def start(self) -> Coroutine[Any, Any, None]:
        """Consumes until `stop()` or cancellation, then drains: stops fetching, lets running handlers finish for up to
        `drain_timeout`, settles, leaves the group. First logs `explain()`, and waits for a broker that is not there yet.

        Raises `AlreadyStartedError` while it runs, `UnsupportedError` when the broker cannot keep a promise that the options ask for,
        and what ended a subscription for good.
        """
        return self._run(self._stops if self._begun else 0)

    async def _run(self, stops: int) -> None:
        native = self._built()
        self._begun = True
        if stops == self._stops:  # else stop() came before our first step
            await _runtime.finish_in_order(native.start())

    def _built(self) -> _core.Consumer:
        broker = self._broker._bind()
        _logging.follow_level()
        if self._native is not None:
            return self._native
        for handler, _ in self._dead_letters:
            if not any(route.handler == handler for route in self._routes):
                raise _errors.InvalidArgumentError(f"on_error of {getattr(handler, '__qualname__', handler)}, which subscribes to nothing")
        loop = asyncio.get_running_loop()
        joined = _runtime.join(loop)
        options = dict(self._options)
        if isinstance(store := options["deduplication"], SharedDeduplicationStore):
            options["deduplication"] = _core.SharedDeduplicationStore(store._broker._bind(), store._window)
        native = _core.Consumer(broker, options)
        slots = _runtime.make_slots(loop)
        for route in self._routes:
            handler, gives = _as_coroutine_function(route.handler), route.gives
            if _tracing.active():
                # Within the span the message is taken apart: what is no JSON is no reason to refuse it to those who ask for bytes.
                handler, gives = _tracing.traced(_unwrapping(handler, gives), native.group()), "event" if gives == "event" else "message"
            dead_letters = self._dead_letters_of(route.handler)
            native.add(route.topic, _core.Route(joined, loop, handler, gives, route.decode, slots), dead_letters)
        self._native = native
        return native

    def stop(self) -> None:
        """Ends `start()`, also one that waits for the broker or has not taken its first step; returns at once. Also from within a
        handler. Before the first `start()` it ends that one. When the consumer has run and does not any more, it does nothing."""
        self._stops += 1
        if self._native is not None and self._begun:
            self._native.stop()

    def pause(self) -> None:
        """Stops deliveries, keeping the place in the group."""
        self._built().pause()

    def resume(self) -> None:
        """Goes on with deliveries after `pause()`."""
        self._built().resume()

    def explain(self) -> str:
        """What is in force for each subscription: guarantee, owner of the retries, dead-letter topic, contradictions. Inside an event
        loop."""
        return self._built().explain()

    @property
    def counts(self) -> ConsumerCounts:
        """What it has done so far."""
        return ConsumerCounts(**self._native.counts()) if self._native is not None else ConsumerCounts(0, 0, 0, 0, 0, 0)

    @property
    def circuit(self) -> str:
        """`closed`, `open` or `half_open`."""
        return self._native.circuit() if self._native is not None else "closed"


def _validated(wanted: Any, serializer: _codec.Serializer) -> Callable[[bytes], Any]:
    check = _codec.value_checker(wanted)
    return lambda payload: check(serializer.deserialize(payload))


def _function_of(handler: Callable[..., Any]) -> Any:
    """The function that runs when the handler is called: that of a partial, or of an object."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return handler if inspect.isroutine(handler) or inspect.isclass(handler) else getattr(handler, "__call__", handler)


def _refuse_generator(function: Any, name: str) -> None:
    awaited = getattr(getattr(function, "__code__", None), "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE  # types.coroutine
    if inspect.isasyncgenfunction(function) or (inspect.isgeneratorfunction(function) and not awaited):
        raise _errors.InvalidArgumentError(
            f"the handler {name}: it has a yield, so that calling it runs nothing; allowed are async def and def without yield"
        )


def _as_coroutine_function(handler: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(_function_of(handler)):
        return handler

    def call(event: Any) -> Any:
        try:
            return handler(event)
        except StopIteration as error:  # no future can hold it; a coroutine could not raise it either
            raise RuntimeError("the handler raised StopIteration") from error

    async def in_a_thread(event: Any) -> None:
        outcome = await asyncio.to_thread(call, event)
        if inspect.isawaitable(outcome):  # a function that makes coroutines, such as a decorated one
            await outcome
        elif inspect.isasyncgen(outcome) or inspect.isgenerator(outcome):
            raise TypeError(f"the handler returned a {type(outcome).__name__}, which nobody runs")

    return in_a_thread


def _unwrapping(handler: Callable[..., Any], gives: str) -> Callable[[Any], Any]:
    """The handler for a caller that has the message, whatever it asks for."""
    if gives == "bytes":
        return lambda message: handler(message.payload)
    if gives == "value":
        return lambda message: handler(message.value)
    return handler

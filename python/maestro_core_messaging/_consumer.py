"""Handlers over events: in parallel, in order for each key, with retries, dead letters, deduplication and a circuit breaker."""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from . import _broker, _codec, _core, _errors, _runtime, _tracing

MemoryDeduplicationStore = _core.MemoryDeduplicationStore


class SharedDeduplicationStore:
    """Ids that were handled, shared by every process that reaches the same broker (today: Redis), for consumers on any broker. A done
    id is remembered for `window` seconds. It belongs to the event loop of its broker."""

    def __init__(self, broker: _broker.MessageBroker, window: float = 86_400.0) -> None:
        self._broker = broker
        self._window = window

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
    dead_letters: str | None


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
        ordering: str = "key",
        max_retry_attempts: int | None = None,
        enable_dead_letter_queue: bool | None = None,
        initial_backoff: float | None = None,
        backoff_multiplier: float | None = None,
        max_backoff: float | None = None,
        drain_timeout: float | None = None,
        prefetch: int | None = None,
        auto_offset_reset: str | None = None,
        deduplication: bool | MemoryDeduplicationStore | SharedDeduplicationStore | None = None,
        deduplication_lease: float | None = None,
        circuit_failure_threshold: int | None = None,
        circuit_reset_timeout: float | None = None,
        serializer: _codec.Serializer | None = None,
    ) -> None:
        self._broker = broker
        self._options: dict[str, Any] = {
            "group_id": group_id,
            "concurrency": _whole("concurrency", concurrency, 1),
            "ordering": ordering,
            "max_retry_attempts": _whole("max_retry_attempts", max_retry_attempts, 0),
            "enable_dead_letter_queue": enable_dead_letter_queue,
            "initial_backoff": initial_backoff,
            "backoff_multiplier": backoff_multiplier,
            "max_backoff": max_backoff,
            "drain_timeout": drain_timeout,
            "prefetch": _whole("prefetch", prefetch, 1),
            "auto_offset_reset": auto_offset_reset,
            "deduplication": MemoryDeduplicationStore() if deduplication is True else deduplication or None,
            "deduplication_lease": deduplication_lease,
            "circuit_failure_threshold": circuit_failure_threshold,
            "circuit_reset_timeout": circuit_reset_timeout,
        }
        if ordering not in ("key", "partition", "none"):
            raise _errors.InvalidOptionError(f'ordering: "{ordering}"; allowed are key, partition, none')
        self._serializer = serializer
        self._routes: list[_Route] = []
        self._dead_letters: dict[Callable[..., Any], str] = {}
        self._native: _core.Consumer | None = None

    def __repr__(self) -> str:
        return f"<EventConsumer {self._options['group_id'] or '(default group)'} of {self._broker!r}>"

    def subscribe(self, topic: str) -> Callable[[_Handler], _Handler]:
        """`@consumer.subscribe("orders")`: registers the handler of a topic or a pattern, before `start()`. See `MessageHandler`."""

        def register(handler: _Handler) -> _Handler:
            if self._native is not None:
                raise _errors.AlreadyStartedError(f'subscribe("{topic}") after start(); subscribe first')
            gives, decode = self._argument_of(handler)
            self._routes.append(_Route(topic, handler, gives, decode, self._dead_letters.pop(handler, None)))
            return handler

        return register

    def on_error(self, dead_letter_topic: str) -> Callable[[_Handler], _Handler]:
        """`@consumer.on_error("orders.dlq")`: what fails for good goes to this topic, instead of `{topic}.{group}.dlq`. Above or below
        `subscribe`."""

        def register(handler: _Handler) -> _Handler:
            routes = [route for route in self._routes if route.handler is handler]
            for route in routes:
                route.dead_letters = dead_letter_topic
            if not routes:
                self._dead_letters[handler] = dead_letter_topic
            return handler

        return register

    def _argument_of(self, handler: Callable[..., Any]) -> tuple[str, Callable[[bytes], Any] | None]:
        decode = None if self._serializer is None else self._serializer.deserialize
        called = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)
        try:
            parameters = list(inspect.signature(handler).parameters.values())
        except (TypeError, ValueError):
            return "value", decode
        positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD, each.VAR_POSITIONAL)]
        required = [each for each in positional if each.default is each.empty and each.kind is not each.VAR_POSITIONAL]
        if not positional or len(required) > 1:
            name = getattr(handler, "__qualname__", repr(handler))
            raise _errors.InvalidArgumentError(f"the handler {name}{inspect.signature(handler)}: it is called with one argument, the event")
        try:
            wanted = typing.get_type_hints(called).get(positional[0].name, Any)
        except Exception as error:  # an annotation that names nothing, or only something for type checkers
            if isinstance(positional[0].annotation, str):
                raise _errors.InvalidArgumentError(
                    f"the handler's annotation {positional[0].annotation!r} cannot be resolved: {error}; name a type of its module"
                ) from error
            wanted = positional[0].annotation
        if wanted is bytes:
            return "bytes", None
        if isinstance(wanted, type) and issubclass(wanted, _core.Event):
            return "event", decode
        if isinstance(wanted, type) and issubclass(wanted, _core.Message):
            return "message", decode
        origin = typing.get_origin(wanted) or wanted
        if wanted is Any or wanted is inspect.Parameter.empty or wanted is object or (
            isinstance(origin, type) and origin in (dict, collections.abc.Mapping, collections.abc.MutableMapping)
        ):
            return "value", decode
        if self._serializer is not None:
            return "value", _validated(wanted, self._serializer)
        return "value", _codec.model_decoder(wanted)

    async def start(self) -> None:
        """Consumes until `stop()` or cancellation, then drains: stops fetching, lets running handlers finish for up to
        `drain_timeout`, settles, leaves the group. First logs `explain()`.

        Raises `AlreadyStartedError` while it runs, `UnsupportedError` when the broker cannot keep a promise that the options ask for,
        and what ended a subscription for good.
        """
        native = self._built()
        await _runtime.finish_in_order(native.start())

    def _built(self) -> _core.Consumer:
        broker = self._broker._bind()
        if self._native is not None:
            return self._native
        if self._dead_letters:
            name = next(iter(self._dead_letters))
            raise _errors.InvalidArgumentError(f"on_error of {getattr(name, '__qualname__', name)}, which subscribes to nothing")
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
                handler, gives = _tracing.traced(_unwrapping(handler, gives), self._options["group_id"] or ""), "event"
            native.add(route.topic, _core.Route(joined, loop, handler, gives, route.decode, slots), route.dead_letters)
        self._native = native
        return native

    def stop(self) -> None:
        """Ends `start()`; returns at once. Also from within a handler."""
        if self._native is not None:
            self._native.stop()

    def pause(self) -> None:
        """Stops deliveries, keeping the place in the group."""
        self._built().pause()

    def resume(self) -> None:
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


def _whole(name: str, value: int | None, least: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: {value!r}; allowed is an int")
    if value < least:
        raise _errors.InvalidOptionError(f"{name}: {value}; allowed is {least} and more")
    return value


def _validated(wanted: Any, serializer: _codec.Serializer) -> Callable[[bytes], Any]:
    check = _codec.value_checker(wanted)
    return lambda payload: check(serializer.deserialize(payload))


def _as_coroutine_function(handler: Callable[..., Any]) -> Callable[..., Any]:
    called = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called):
        return handler

    async def in_a_thread(event: Any) -> None:
        outcome = await asyncio.to_thread(handler, event)
        if inspect.isawaitable(outcome):  # a function that makes coroutines, such as a decorated one
            await outcome

    return in_a_thread


def _unwrapping(handler: Callable[..., Any], gives: str) -> Callable[[_core.Event], Any]:
    """The handler for callers that have an event, whatever it asks for."""
    if gives in ("event", "message"):
        return handler
    if gives == "bytes":
        return lambda event: handler(event.payload)
    return lambda event: handler(event.value)

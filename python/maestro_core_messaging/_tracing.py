"""Spans of OpenTelemetry, where its SDK is installed and set up. W3C trace context travels in the headers either way."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from . import _core

_NAME = "maestro_core_messaging"


def active() -> bool:
    """Whether the program has a tracer provider that records. Who has one has imported the module."""
    trace = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(
        trace.get_tracer_provider(), (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
    )


@contextlib.contextmanager
def sending(topic: str, headers: Mapping[str, str] | None, count: int | None = None) -> Iterator[Mapping[str, str]]:
    """A span of a publish, and the headers with its context in them, unless they have one already."""
    from opentelemetry import trace

    attributes: dict[str, Any] = {"messaging.destination.name": topic, "messaging.operation.type": "send"}
    if count is not None:
        attributes["messaging.batch.message_count"] = count
    tracer = trace.get_tracer(_NAME)
    with tracer.start_as_current_span(f"send {topic}", kind=trace.SpanKind.PRODUCER, attributes=attributes):
        yield inject(headers)


def inject(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers, with the current span's context in them."""
    from opentelemetry import propagate

    carrier = dict(headers or {})
    if "traceparent" not in carrier:
        propagate.inject(carrier)
    return carrier


def traced(handle: Callable[[Any], Awaitable[None]], group: str) -> Callable[[Any], Awaitable[None]]:
    """The handler within a span whose parent is the publisher's (OpenTelemetry semantic conventions for messaging)."""
    from opentelemetry import propagate, trace

    tracer = trace.get_tracer(_NAME)

    async def handler(message: _core.Message) -> None:
        attributes: dict[str, Any] = {
            "messaging.destination.name": message.topic,
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": group,
            "messaging.message.id": message.id,
        }
        with tracer.start_as_current_span(
            f"process {message.topic}",
            context=propagate.extract(message.headers),
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes,
        ):
            await handle(message)

    return handler

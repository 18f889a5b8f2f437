"""Spans of OpenTelemetry, where its SDK is installed and set up. W3C trace context travels in the headers either way."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from . import _core



def active() -> bool:
    """Whether the program has a tracer provider that records. Who has one has imported the module."""
    trace = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(
        trace.get_tracer_provider(), (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
    )


def inject(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers, with the current span's context in them."""
    from opentelemetry import propagate

    carrier = dict(headers or {})
    if "traceparent" not in carrier:
        propagate.inject(carrier)
    return carrier


def traced(handle: Callable[[_core.Event], Awaitable[None]], group: str) -> Callable[[_core.Event], Awaitable[None]]:
    """The handler within a span whose parent is the publisher's (OpenTelemetry semantic conventions for messaging)."""
    from opentelemetry import propagate, trace

    tracer = trace.get_tracer("maestro_core_messaging")

    async def handler(event: _core.Event) -> None:
        attributes: dict[str, Any] = {
            "messaging.destination.name": event.topic,
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": group,
            "messaging.message.id": event.id,
        }
        with tracer.start_as_current_span(
            f"process {event.topic}",
            context=propagate.extract(event.headers),
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes,
        ):
            await handle(event)

    return handler

"""Events: data with an envelope."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

from . import _broker, _check, _codec, _core, _runtime, _tracing

_Receipt = _core.Receipt


@_check.keywords
class EventPublisher:
    """Publishes events: serialized data with its CloudEvents 1.0 attributes (binary content mode) and a trace context.

    Args:
        broker: Where to.
        serializer: Default: JSON.
        source: The attribute `source`. Default: `client_id`, else `maestro`.
    """

    def __init__(
        self,
        broker: _broker.MessageBroker,
        serializer: _codec.Serializer | None = None,
        *,
        source: str | None = None,
    ) -> None:
        _broker.require_broker(broker)
        _check.serializer(serializer)
        _check.text_or_none("source", source)
        self._broker = broker
        self._serializer = serializer
        self._source = source
        self._native: _core.Publisher | None = None

    def __repr__(self) -> str:
        return f"<EventPublisher of {self._broker!r}>"

    def _bind(self) -> _core.Publisher:
        broker = self._broker._bind()
        if self._native is None:
            content_type = "application/json" if self._serializer is None else self._serializer.content_type
            self._native = _core.Publisher(broker, content_type, self._source)
        return self._native

    async def publish(
        self,
        topic: str,
        event: Any,
        key: str | bytes | None = None,
        *,
        id: str | None = None,
        type: str | None = None,
        subject: str | None = None,
        time: dt.datetime | None = None,
        headers: Mapping[str, str] | None = None,
        confirm: bool = True,
    ) -> _core.Receipt:
        """Publishes an event. Completes and fails like `MessageBroker.publish`.

        Args:
            event: A dict, a pydantic model, a dataclass, or whatever the serializer takes.
            key: Same key, same partition, in order.
            id, type, subject, time: CloudEvents attributes. By default a fresh id (UUID version 7), the data's text field `event_type`
                or `type`, else the topic, and now.
            headers: Further headers.
            confirm: False completes when the bounded buffer has it; `MessageBroker.flush()` reports what became of it.
        """
        attributes: dict[str, Any] | None = None
        if id is not None or type is not None or subject is not None or time is not None:
            for name, value in (("id", id), ("type", type), ("subject", subject)):
                _check.text_or_none(name, value)
            attributes = {"id": id, "type": type, "subject": subject, "time": _check.instant("time", time)}
        native = self._bind()
        payload = event if self._serializer is None else self._serializer.serialize(event)
        kind = _type_of(event, topic)
        if _tracing.active():
            _check.message(topic, headers, None, confirm)
            with _tracing.sending(topic, headers) as headers:
                result = native.publish(topic, payload, kind, key, attributes, headers, confirm)
                return result if isinstance(result, _Receipt) else await _runtime.finish(result)
        try:
            result = native.publish(topic, payload, kind, key, attributes, headers, confirm)
        except TypeError:
            _check.message(topic, headers, None, confirm)
            raise
        return result if isinstance(result, _Receipt) else await _runtime.finish(result)


def _type_of(event: Any, topic: str) -> str:
    if isinstance(event, dict):
        named = event.get("event_type")
        if not isinstance(named, str):
            named = event.get("type")
        return named if isinstance(named, str) else topic
    if hasattr(event, "model_fields_set") or dataclasses.is_dataclass(event):
        for name in ("event_type", "type"):
            named = getattr(event, name, None)
            if isinstance(named, str):
                return named
    return topic

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import structlog


class Logger:
    """A logger with fields. `bind()` gives one with more of them; as a context manager, it lends its fields to everything that is
    logged inside the block, by any logger of structlog's, in this task and those that it starts."""

    def __init__(self, name: str | None = None, fields: Mapping[str, Any] | None = None) -> None:
        self._name = name
        self._fields = dict(fields or {})
        self._logger = structlog.get_logger(name).bind(**({"logger": name} if name else {}), **self._fields)
        self._tokens: list[Mapping[str, contextvars.Token[Any]]] = []

    def __repr__(self) -> str:
        return f"<Logger {self._name}{f' {self._fields}' if self._fields else ''}>"

    def bind(self, **fields: Any) -> Logger:
        """A logger with these fields too."""
        return Logger(self._name, {**self._fields, **fields})

    def __enter__(self) -> Logger:
        self._tokens.append(structlog.contextvars.bind_contextvars(**self._fields))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        structlog.contextvars.reset_contextvars(**self._tokens.pop())

    def debug(self, message: str, /, **fields: Any) -> None:
        """A line for those who look for a fault."""
        self._logger.debug(message, **self._lent(fields))

    def info(self, message: str, /, **fields: Any) -> None:
        """A line on what goes its way."""
        self._logger.info(message, **self._lent(fields))

    def warning(self, message: str, /, **fields: Any) -> None:
        """A line on what may need attention."""
        self._logger.warning(message, **self._lent(fields))

    def error(self, message: str, /, **fields: Any) -> None:
        """A line on what went wrong."""
        self._logger.error(message, **self._lent(fields))

    def exception(self, message: str, /, **fields: Any) -> None:
        """An error with the current exception's traceback."""
        self._logger.exception(message, **self._lent(fields))

    def critical(self, message: str, /, **fields: Any) -> None:
        """A line on what ends the program."""
        self._logger.critical(message, **self._lent(fields))

    def _lent(self, fields: dict[str, Any]) -> dict[str, Any]:
        """What is bound around it, for configurations of structlog that do not merge it by themselves. A clash with structlog's
        own parameter is spelled with an underscore."""
        lent = {**structlog.contextvars.get_contextvars(), **fields}
        if "event" in lent:
            lent["event_"] = lent.pop("event")
        return lent


def get_logger(name: str | None = None) -> Logger:
    """A logger of this name."""
    return Logger(name)

"""Arguments of the wrong kind, refused with their name, what was given and what is allowed."""

from __future__ import annotations

import collections.abc
import datetime as dt
import difflib
import functools
import inspect
import math
from typing import Any, TypeVar

from . import _errors

_LONGEST = 1e9  # seconds; some thirty years

_Class = TypeVar("_Class", bound=type)


def keywords(cls: _Class) -> _Class:
    """The class, whose constructor names the nearest of its keywords for one that it does not have."""
    make = vars(cls)["__init__"]
    allowed = list(inspect.signature(make).parameters)[1:]

    @functools.wraps(make)
    def checked(self: object, *args: Any, **given: Any) -> None:
        for name in given:
            if name in allowed:
                continue
            near = difflib.get_close_matches(name, allowed, 1)
            hint = f'did you mean "{near[0]}"? ' if near else ""
            raise _errors.InvalidArgumentError(f"{name}: {cls.__name__} has no such argument; {hint}allowed are {', '.join(allowed)}")
        make(self, *args, **given)

    setattr(cls, "__init__", checked)  # noqa: B010
    return cls


def kind(name: str, value: object, allowed: str) -> _errors.InvalidArgumentError:
    return _errors.InvalidArgumentError(f"{name}: {shown(value)}; allowed is {allowed}")


def shown(value: object) -> str:
    text = repr(value) if isinstance(value, (str, int, float, bytes, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise kind(name, value, "str")


def text_or_none(name: str, value: object) -> None:
    if value is not None:
        text(name, value)


def flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise kind(name, value, "True or False")


def flag_or_none(name: str, value: object) -> None:
    if value is not None:
        flag(name, value)


def whole(name: str, value: Any, least: int, most: int = 2**31 - 1) -> Any:
    """The number, or None."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise kind(name, value, "an int")
    if not least <= value <= most:
        raise _errors.InvalidOptionError(f"{name}: {value}; allowed is {least} to {most}")
    return value


def number(name: str, value: Any, least: float, most: float) -> Any:
    """The number, or None."""
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise kind(name, value, "a number")
    if not (math.isfinite(value) and least <= value <= most):
        raise _errors.InvalidOptionError(f"{name}: {value}; allowed is {least:g} to {most:g}")
    return value


def seconds(name: str, value: Any, *, more_than_none: bool = False) -> Any:
    """The time in seconds, or None."""
    if number(name, value, 0, _LONGEST) == 0 and more_than_none:
        raise _errors.InvalidOptionError(f"{name}: {value}; allowed is more than 0 s")
    return value


def instant(name: str, value: object) -> float | None:
    """An aware datetime as seconds since 1970."""
    if value is None:
        return None
    if not isinstance(value, dt.datetime):
        raise kind(name, value, "an aware datetime")
    if value.tzinfo is None:
        raise _errors.InvalidArgumentError(f"{name}: {value.isoformat()} has no time zone; allowed is an aware datetime")
    return value.timestamp()


def mapping(name: str, value: object) -> None:
    if value is not None and not isinstance(value, collections.abc.Mapping):
        raise kind(name, value, "a mapping")


def topic(value: object, name: str = "topic") -> None:
    if not isinstance(value, str):
        raise _errors.InvalidTopicError(f"{name}: {shown(value)}; allowed is str")


def message(topic_: object, headers: object, partition: object, confirm: object) -> None:
    """What is wrong with the arguments of a publish that the core did not take, if it is one of these."""
    topic(topic_)
    mapping("headers", headers)
    whole("partition", partition, 0)
    flag("confirm", confirm)


def serializer(value: object) -> None:
    if value is None:
        return
    missing = [name for name in ("content_type", "serialize", "deserialize") if not hasattr(value, name)]
    if missing or isinstance(value, type):
        lacks = f", which has no {missing[0]}" if missing else ""
        raise kind("serializer", value, f"an object with content_type, serialize and deserialize{lacks}")

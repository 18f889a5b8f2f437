"""Values to bytes and back, and exceptions to what a dead letter says of them."""

from __future__ import annotations

import dataclasses
import decimal
import math
import traceback
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import orjson
import pydantic

from . import _core, _errors

NoSchemaError = (pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation)


def by_alias(model: pydantic.BaseModel) -> bool:
    """The names under which the same model reads it back, unless it says otherwise."""
    return bool(type(model).model_config.get("serialize_by_alias", True))


def other_types(value: object) -> object:
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json", by_alias=by_alias(value))
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, _core.Message):
        return value.value
    raise TypeError


def encode(value: object) -> bytes:
    """What is published: bytes as they are, a pydantic model or anything else as JSON."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, _core.Message):
        return value.payload
    try:
        if isinstance(value, pydantic.BaseModel):
            made = value.model_dump_json(by_alias=by_alias(value)).encode()
        else:
            made = orjson.dumps(value, default=other_types)
        if b"null" in made:
            refuse_nan(value)
        return made
    except TypeError as error:
        raise _errors.InvalidEventError(
            f"{type(value).__name__}: {error}; allowed is what JSON has (dict, list, str, int of 64 bits, float, bool, None), and "
            "datetime, date, UUID, Enum, Decimal, dataclasses, pydantic models; or bytes"
        ) from error


def refuse_nan(value: object) -> None:
    """JSON has no NaN and no infinity, and serializers write null for them: an amount would be lost in silence."""
    rest: list[object] = [value]
    while rest:
        each = rest.pop()
        if isinstance(each, float) and not math.isfinite(each):
            raise _errors.InvalidEventError(f"{each}: JSON has no NaN and no infinity; allowed are finite numbers and None")
        if isinstance(each, pydantic.BaseModel):
            each = each.model_dump()
        elif dataclasses.is_dataclass(each) and not isinstance(each, type):
            each = vars(each) if hasattr(each, "__dict__") else dataclasses.asdict(each)
        if isinstance(each, dict):
            rest.extend(each.values())
        elif isinstance(each, (list, tuple)):
            rest.extend(each)


def loads(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise _errors.UndecodableError(f"not JSON: {error}") from error


@runtime_checkable
class Serializer(Protocol):
    """Turns data into the payload of an event and back."""

    @property
    def content_type(self) -> str:
        """The header `content-type`."""
        ...

    def serialize(self, data: Any) -> bytes:
        """Raises `InvalidEventError` for data that does not fit the format."""
        ...

    def deserialize(self, payload: bytes) -> Any:
        """Raises `UndecodableError` that says where and why."""
        ...


class JsonSerializer:
    """JSON (RFC 8259), UTF-8 only. Decimals become text; integers have 64 bits; NaN and infinity are refused."""

    content_type = "application/json"

    def serialize(self, data: Any) -> bytes:
        """Bytes as they are, anything else as JSON. Raises `InvalidEventError` for what JSON does not have."""
        return encode(data)

    def deserialize(self, payload: bytes) -> Any:
        """The value. Raises `UndecodableError` that says where and why."""
        return loads(payload)


def model_decoder(model: Any) -> Callable[[bytes], Any]:
    """bytes → an instance of the pydantic model (or of any type that pydantic validates), with every wrong field named."""
    return _validating(pydantic.TypeAdapter(model).validate_json)


def value_checker(model: Any) -> Callable[[Any], Any]:
    """The same for data that is decoded already."""
    return _validating(pydantic.TypeAdapter(model).validate_python)


def _validating(validate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def checked(data: Any) -> Any:
        try:
            return validate(data)
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False, include_context=False)
            if any(problem["type"] == "json_invalid" for problem in problems):
                raise _errors.UndecodableError(f"not JSON: {problems[0]['msg']}") from error
            fields = "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'the event'}: {problem['msg']}" for problem in problems)
            raise _errors.InvalidEventError(fields) from error

    return checked


def describe(error: BaseException) -> tuple[str, str, str, str]:
    """What a handler's exception means for its message: verdict, type, text, stack."""
    verdict = error.reason if isinstance(error, _errors.MessagingError) else ""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        text = error.detail if isinstance(error, _errors.MessagingError) else str(error)
    except Exception as failure:
        text = f"its text could not be made: __str__ raised {type(failure).__name__}"
    stack = "".join(traceback.format_exception(kind, error, error.__traceback__))
    return verdict, name, _plain(text), _plain(stack)


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()

"""Which broker, and how it is to be used."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Union

from . import _check, _core, _errors

OptionValue = Union[str, int, float, bool]


class BrokerType(str, enum.Enum):
    """The brokers that there are. A plain string does as well."""

    MEMORY = "memory"
    KAFKA = "kafka"
    REDIS = "redis"
    RABBITMQ = "rabbitmq"
    NATS = "nats"


_SECRET_WORDS = ("pass", "pwd", "secret", "token", "cred", "auth", "key")


def _shown(options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    secret = set(_core.secret_options())
    return {
        name: "***"
        if name in secret or (name.startswith("raw.") and any(word in name.lower() for word in _SECRET_WORDS))
        else _core.redact(value)
        if isinstance(value, str)
        else value
        for name, value in options.items()
    }


@_check.keywords
@dataclasses.dataclass(repr=False)
class MessagingConfig:
    """Everything that a broker needs to be opened.

    The three maps take the keys of the options table (`maestro config` prints it): an unknown key, a wrong type or a value out of range
    is refused by `MessageBroker`, with the key, what is allowed and the nearest known key.
    """

    broker_type: BrokerType | str
    connection_string: str = ""
    connection_config: Mapping[str, OptionValue] = dataclasses.field(default_factory=dict)
    consumer_config: Mapping[str, OptionValue] = dataclasses.field(default_factory=dict)
    producer_config: Mapping[str, OptionValue] = dataclasses.field(default_factory=dict)
    enable_monitoring: bool | None = None  # None: what MESSAGING_ENABLE_MONITORING says

    @classmethod
    def from_env(cls, broker_type: BrokerType | str | None = None) -> MessagingConfig:
        """The broker whose address is set in the environment: `KAFKA_BOOTSTRAP_SERVERS`, `REDIS_URL`, `RABBITMQ_URL` or `NATS_URL`.

        `MESSAGING_BROKER`, and `broker_type` before it, decides where several are. Raises `InvalidOptionError` when none is set or
        none decides.
        """
        return cls(*_core.config_from_env(None if broker_type is None else name_of(broker_type)))

    @classmethod
    def from_url(cls, url: str) -> MessagingConfig:
        """The broker and connection string of a URL such as `memory://demo` or `kafka://host:9092`."""
        _check.text("url", url)
        return cls(*_core.config_from_url(url)[:5])

    def __repr__(self) -> str:
        return (
            f"MessagingConfig(broker_type={name_of(self.broker_type)!r}, connection_string={_core.redact(self.connection_string)!r}, "
            f"connection_config={_shown(self.connection_config)!r}, consumer_config={_shown(self.consumer_config)!r}, "
            f"producer_config={_shown(self.producer_config)!r}, enable_monitoring={self.enable_monitoring!r})"
        )


def name_of(broker_type: BrokerType | str) -> str:
    if isinstance(broker_type, BrokerType):
        return broker_type.value
    if not isinstance(broker_type, str):
        raise _errors.InvalidOptionError(f"broker_type: {type(broker_type).__name__}; allowed are BrokerType and str")
    return broker_type

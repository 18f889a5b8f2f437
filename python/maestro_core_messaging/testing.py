"""pytest fixtures: a broker for a test, connected before it and disconnected after it.

`memory_broker` needs nothing. `kafka_broker`, `redis_broker`, `rabbitmq_broker` and `nats_broker` take the address from the environment
(`KAFKA_BOOTSTRAP_SERVERS`, `REDIS_URL`, `RABBITMQ_URL`, `NATS_URL`), else start a container by `testcontainers`, where that is installed
and a container engine is there; else the test is skipped, with a reason that says so. They are asynchronous fixtures: pytest-asyncio or
anyio's plugin runs them.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar, cast

import pytest

from . import MessageBroker

_Fixture = TypeVar("_Fixture", bound=Callable[..., AsyncIterator[MessageBroker]])


def _fixture(function: _Fixture) -> _Fixture:
    try:
        decorate = importlib.import_module("pytest_asyncio").fixture
    except ImportError:  # anyio's plugin runs plain asynchronous fixtures
        decorate = pytest.fixture
    return cast(_Fixture, decorate(function))


_CONTAINERS: dict[str, tuple[str, str, str, Callable[[Any], str]]] = {
    "kafka": ("KAFKA_BOOTSTRAP_SERVERS", "testcontainers.kafka", "KafkaContainer", lambda it: it.get_bootstrap_server()),
    "redis": (
        "REDIS_URL",
        "testcontainers.redis",
        "RedisContainer",
        lambda it: f"redis://{it.get_container_host_ip()}:{it.get_exposed_port(6379)}",
    ),
    "rabbitmq": (
        "RABBITMQ_URL",
        "testcontainers.rabbitmq",
        "RabbitMqContainer",
        lambda it: f"amqp://guest:guest@{it.get_container_host_ip()}:{it.get_exposed_port(5672)}/",
    ),
    "nats": ("NATS_URL", "testcontainers.nats", "NatsContainer", lambda it: it.nats_uri()),
}


@contextlib.contextmanager
def _address(broker: str) -> Iterator[str]:
    variable, module, name, address_of = _CONTAINERS[broker]
    if given := os.environ.get(variable):
        yield given
        return
    try:
        container: Any = getattr(importlib.import_module(module), name)
    except ImportError as error:
        pytest.skip(f"{variable} is not set, and {module} cannot be imported: {error}")
    if shutil.which("docker") is None and "DOCKER_HOST" not in os.environ:
        pytest.skip(f"{variable} is not set, and there is no container engine")
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(container())
        except _no_engine() as error:
            pytest.skip(f"{variable} is not set, and the container engine does not answer: {error}")
        yield address_of(running)


def _no_engine() -> type[Exception]:
    """What testcontainers raises where there is a command, and no daemon."""
    try:
        return cast("type[Exception]", importlib.import_module("docker.errors").DockerException)
    except ImportError:
        return ConnectionError


@_fixture
async def memory_broker() -> AsyncIterator[MessageBroker]:
    """A broker in this process that no other test shares."""
    async with MessageBroker("memory", f"memory://{uuid.uuid4()}") as broker:
        yield broker


def _broker_fixture(kind: str, name: str) -> Callable[..., AsyncIterator[MessageBroker]]:
    async def broker() -> AsyncIterator[MessageBroker]:
        with _address(kind) as address:
            async with MessageBroker(kind, address) as connected:
                yield connected

    broker.__name__ = broker.__qualname__ = f"{kind}_broker"
    broker.__doc__ = f"A broker on {name}: that of {_CONTAINERS[kind][0]}, else a container; skips the test where there is neither."
    return _fixture(broker)


kafka_broker = _broker_fixture("kafka", "Kafka")
redis_broker = _broker_fixture("redis", "Redis")
rabbitmq_broker = _broker_fixture("rabbitmq", "RabbitMQ")
nats_broker = _broker_fixture("nats", "NATS")

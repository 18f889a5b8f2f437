"""Every test that takes `broker` runs on the embedded broker and on each real server that the library has."""

import os
import pathlib
import subprocess
import uuid

import pytest

from maestro_core_messaging import MessageBroker

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def kafka_url():
    """A real Kafka; started if there is none, and stopped if we started it."""
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given.removeprefix("kafka://")
        return
    brokers = ROOT / "scripts" / "brokers"
    started = subprocess.run([brokers, "start", "kafka"], check=True, capture_output=True, text=True).stdout
    yield started.splitlines()[-1].removeprefix("kafka://")
    subprocess.run([brokers, "stop", "kafka"], check=True, capture_output=True)


@pytest.fixture(scope="session")
def redis_url():
    """A real Redis; started if there is none, and stopped if we started it."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    brokers = ROOT / "scripts" / "brokers"
    started = subprocess.run([brokers, "start", "redis"], check=True, capture_output=True, text=True).stdout
    yield started.splitlines()[-1]
    subprocess.run([brokers, "stop", "redis", "--variant", "single"], check=True, capture_output=True)


@pytest.fixture(params=["memory", "kafka", "redis"])
def address(request):
    """The arguments of a `MessageBroker`."""
    if request.param == "memory":
        return "memory", f"memory://{uuid.uuid4()}"
    return request.param, request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
async def broker(address):
    broker = MessageBroker(*address)
    yield broker
    await broker.disconnect()


@pytest.fixture
def topic():
    """A topic that no other test uses."""
    return f"python.{uuid.uuid4().hex}"

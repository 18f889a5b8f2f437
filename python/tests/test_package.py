"""The package as it is installed: types, documentation, names."""

import importlib.metadata
import inspect
import pathlib
import pickle
import subprocess
import sys

import pytest

import maestro_core_logging
import maestro_core_messaging as mcm

NATIVE = (mcm.Message, mcm.Event, mcm.Position, mcm.Receipt, mcm.MemoryDeduplicationStore)
PACKAGE = pathlib.Path(mcm.__file__).parent
TYPED = """
import asyncio
import datetime as dt

from pydantic import BaseModel

from maestro_core_logging import get_logger
from maestro_core_messaging import BrokerType, Event, EventConsumer, EventPublisher, Message, MessageBroker, MessageHandler, Receipt

class Order(BaseModel):
    order_id: int

async def main() -> None:
    broker = MessageBroker(BrokerType.MEMORY, "memory://x", {"client_id": "typed"}, enable_monitoring=True)
    receipt: Receipt = await broker.publish("orders", {"order_id": 1}, key="a", headers={"a": "b"}, timestamp=dt.datetime.now(dt.timezone.utc))
    offset: int = receipt.offset
    when: dt.datetime | None = receipt.timestamp
    consumer = EventConsumer(broker, group_id="g", concurrency=4, max_backoff=1.5)

    @consumer.subscribe("orders")
    @consumer.on_error("orders.dlq")
    async def handle(event: Order) -> None:
        with get_logger(__name__).bind(order_id=event.order_id):
            pass

    handler: MessageHandler = handle

    @consumer.subscribe("events")
    def plain(event: Event) -> None:
        kind: str | None = event.type

    async for message in broker.subscribe("orders", group_id="g"):
        key: str | None = message.key
        position: int = message.position.offset
        break
    async for batch in broker.subscribe("orders").batches(10):
        first: Message = batch[0]
    async with broker.transaction() as tx:
        tx.publish("orders", {"order_id": 2})
    await EventPublisher(broker).publish("orders", Order(order_id=1))
    lag = [(each.group, each.lag) for each in (await broker.get_status()).lag]
    {wrong}
"""


def check_types(tool, text, folder):
    program = folder / "program.py"
    program.write_text(text)
    command = {
        "mypy": [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder), str(program)],
        "pyright": [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(program)],
    }[tool]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
def test_a_users_program_is_checked_and_its_mistakes_are_found(tool, tmp_path):
    pytest.importorskip(tool)
    good = check_types(tool, TYPED.replace("{wrong}", ""), tmp_path)
    assert good.returncode == 0, good.stdout + good.stderr
    for wrong in (
        "await broker.publish(7, {})",
        "EventConsumer(broker, concurency=4)",
        "number: int = (await broker.get_status()).circuit",
        'EventConsumer(broker, ordering="keys")',
        'broker.subscribe("orders", auto_offset_reset="first")',
    ):
        assert check_types(tool, TYPED.replace("{wrong}", wrong), tmp_path).returncode != 0, wrong


def test_the_package_itself_is_strictly_typed(tmp_path):
    pytest.importorskip("mypy")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "-p", "maestro_core_messaging", "-p", "maestro_core_logging"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (PACKAGE / "py.typed").exists() and (PACKAGE / "_core.pyi").exists()


def test_everything_public_is_documented():
    undocumented = []
    for thing in [*(getattr(mcm, name) for name in mcm.__all__), maestro_core_logging.Logger, maestro_core_logging.get_logger]:
        if not thing.__doc__ or thing.__doc__.startswith(f"{thing.__name__}("):  # what a dataclass says of itself
            undocumented.append(thing.__name__)
        if not inspect.isclass(thing) or thing in NATIVE:
            continue
        for member, value in vars(thing).items():
            is_public = not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property))
            if is_public and not inspect.getdoc(value):
                undocumented.append(f"{thing.__name__}.{member}")
    assert undocumented == []


def test_help_reads_well():
    text = subprocess.run(
        [sys.executable, "-c", "import maestro_core_messaging as m; help(m.MessageBroker); help(m.Message); help(m.EventConsumer)"],
        capture_output=True,
        text=True,
    ).stdout
    assert "The one door to a broker." in text
    assert "Completes when the broker has it by the strongest means that it offers." in text
    assert "A message that arrived. It behaves as its decoded value" in text
    assert "nb_func" not in text


def test_errors_are_named_as_they_are_imported():
    errors = [getattr(mcm, name) for name in mcm.__all__ if isinstance(getattr(mcm, name), type) and issubclass(getattr(mcm, name), Exception)]
    assert len(errors) > 20
    assert {error.__module__ for error in errors} == {"maestro_core_messaging"}
    assert pickle.loads(pickle.dumps(mcm.Rejected("no"))).detail == "no"


FAKE_CONTAINERS = """
import sys, types
import pytest

class DockerException(Exception):
    pass

docker, errors = types.ModuleType("docker"), types.ModuleType("docker.errors")
errors.DockerException = DockerException

class Container:
    def __init__(self):
        raise DockerException("no daemon")

for name, attribute in (("kafka", "KafkaContainer"), ("nats", "NatsContainer")):
    module = types.ModuleType("testcontainers." + name)
    setattr(module, attribute, Container)
    sys.modules["testcontainers." + name] = module
sys.modules.update({"docker": docker, "docker.errors": errors, "testcontainers": types.ModuleType("testcontainers")})
"""


def test_fixtures_skip_with_the_reason(pytester, monkeypatch):
    for variable in ("KAFKA_BOOTSTRAP_SERVERS", "NATS_URL", "REDIS_URL", "RABBITMQ_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makeconftest(FAKE_CONTAINERS)
    pytester.makepyfile(
        """
        async def test_kafka(kafka_broker): pass
        async def test_nats(nats_broker): pass
        async def test_redis(redis_broker): pass
        async def test_rabbitmq(rabbitmq_broker): pass
        """
    )
    ran = pytester.runpytest_subprocess("-rs", "-p", "no:cacheprovider")
    ran.assert_outcomes(skipped=4)
    ran.stdout.fnmatch_lines_random(
        [
            "*KAFKA_BOOTSTRAP_SERVERS is not set, and the container engine does not answer: no daemon*",
            "*NATS_URL is not set, and the container engine does not answer: no daemon*",
            "*REDIS_URL is not set, and testcontainers.redis cannot be imported: *",
            "*RABBITMQ_URL is not set, and testcontainers.rabbitmq cannot be imported: *",
        ]
    )


def test_fixtures_are_documented(pytester):
    text = pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider").stdout.str()
    for name in ("Kafka", "Redis", "RabbitMQ", "NATS"):
        assert f"A broker on {name}: " in text
    assert "A broker in this process that no other test shares." in text


def test_the_version_is_one():
    assert importlib.metadata.version("maestro-core-messaging") == mcm.__version__


def test_the_extension_brings_what_it_links_to():
    """In a repaired wheel every library that is not the system's own lies beside the package."""
    (library,) = PACKAGE.glob("_core*.so")
    linked = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=True).stdout
    assert "not found" not in linked
    if (PACKAGE.parent / "maestro_core_messaging.libs").exists():
        (kafka,) = [line for line in linked.splitlines() if "rdkafka" in line]
        assert "maestro_core_messaging.libs" in kafka


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda broker: mcm.EventConsumer(broker, concurency=3), 'concurency: EventConsumer has no such argument; did you mean "concurrency"? '),
        (lambda broker: mcm.EventPublisher(broker, sourc="a"), 'sourc: EventPublisher has no such argument; did you mean "source"? '),
        (lambda _: mcm.MessageBroker("memory", "memory://x", enable_monitorin=True), 'did you mean "enable_monitoring"? '),
        (lambda _: mcm.MessagingConfig("memory", "memory://x", consumer_configs={}), 'did you mean "consumer_config"? '),
        (lambda broker: mcm.EventConsumer(broker, zzz=3), "zzz: EventConsumer has no such argument; allowed are broker, group_id, "),
    ],
)
def test_a_misspelt_keyword_names_the_nearest(make, says):
    with pytest.raises(mcm.InvalidArgumentError) as refused:
        make(mcm.MessageBroker("memory", "memory://x"))
    assert says in str(refused.value)
    assert isinstance(refused.value, TypeError)

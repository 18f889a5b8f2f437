#!/usr/bin/env python3
"""The Python package beside other clients, in one run: JSON dictionaries of about 100 bytes, published, and consumed by a handler.

usage: bench.py [--kafka HOST:PORT] [--messages N] [--rounds N] [--only PREFIX] [--json]

Every measurement is a process of its own, in turns; the figures are medians. Without --kafka, the embedded broker alone. The rivals have
to be installed: pip install aiokafka confluent-kafka "faststream[kafka]" uvloop
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
import uuid

EVENT = {"event_type": "order_created", "order_id": 4711, "customer": "someone", "amount": 12.5, "at": "2026-01-01T00:00:00Z"}


def report(count: int, began: float) -> None:
    taken = time.perf_counter() - began
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"rate": count / taken, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1024}))


# What is measured: a function (address, topic, count) for each, which calls `report` itself.


async def ours_publish(broker, topic, count):
    await broker.publish(topic, EVENT)
    began = time.perf_counter()
    for _ in range(count - 1):
        await broker.publish(topic, EVENT, confirm=False)
    flushed = await broker.flush()
    assert flushed.confirmed == count - 1, flushed
    report(count, began)


async def ours_publish_many(broker, topic, count):
    await broker.publish(topic, EVENT)
    began = time.perf_counter()
    for _ in range(count // 10_000):
        results = await broker.publish_many(topic, [EVENT] * 10_000)
        assert results[0].confirmed and results[-1].confirmed
    report(count, began)


async def ours_events(broker, topic, count):
    from maestro_core_messaging import EventPublisher

    publisher = EventPublisher(broker)
    await publisher.publish(topic, EVENT)
    began = time.perf_counter()
    for _ in range(count - 1):
        await publisher.publish(topic, EVENT, confirm=False)
    assert (await broker.flush()).confirmed == count - 1
    report(count, began)


async def ours_sequence(broker, topic, count):
    await broker.publish(topic, EVENT)
    began = time.perf_counter()
    for _ in range(count):
        await broker.publish(topic, EVENT)
    report(count, began)


async def ours_handler(broker, topic, count, waits=False, **options):
    from maestro_core_messaging import EventConsumer

    consumer = EventConsumer(broker, group_id=uuid.uuid4().hex, **options)
    began = seen = 0

    @consumer.subscribe(topic)
    async def handle(event):
        nonlocal began, seen
        if seen == 0:
            began = time.perf_counter()
        if waits:
            await asyncio.sleep(0)
        seen += 1
        if event["order_id"] != 4711:
            raise ValueError(event)
        if seen == count:
            report(count, began)
            consumer.stop()

    await consumer.start()


async def ours_handler_waits(broker, topic, count):
    await ours_handler(broker, topic, count, waits=True, concurrency=64, ordering="none")


async def ours_iterate(broker, topic, count):
    began = seen = 0
    async for message in broker.subscribe(topic, group_id=uuid.uuid4().hex):
        if seen == 0:
            began = time.perf_counter()
        seen += 1
        if message["order_id"] != 4711:
            raise ValueError(message)
        if seen == count:
            report(count, began)
            break


def ours(measure, kind="kafka", first_publish=0):
    def run(address, topic, count):
        from maestro_core_messaging import MessageBroker

        async def main():
            broker = MessageBroker(kind, address if kind == "kafka" else "memory://bench")
            if first_publish:
                for _ in range(count // 1000):
                    await broker.publish_many(topic, [EVENT] * 1000)
            await measure(broker, topic, count)
            await broker.disconnect()

        asyncio.run(main())

    return run


def confluent_publish(address, topic, count):
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 5})
    producer.produce(topic, b"{}")
    producer.flush()
    began = time.perf_counter()
    for number in range(count):
        while True:
            try:
                producer.produce(topic, json.dumps(EVENT).encode())
                break
            except BufferError:
                producer.poll(0.01)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush()
    report(count, began)


def confluent_consume(address, topic, count):
    from confluent_kafka import Consumer

    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest", "enable.auto.commit": True}
    )
    consumer.subscribe([topic])
    began = seen = 0
    while seen < count:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        if seen == 0:
            began = time.perf_counter()
        seen += 1
        if json.loads(message.value())["order_id"] != 4711:
            raise ValueError(message)
    report(count, began)
    consumer.close()


def aiokafka_publish(address, topic, count):
    from aiokafka import AIOKafkaProducer

    async def main():
        producer = AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True, linger_ms=5)
        await producer.start()
        await producer.send_and_wait(topic, b"{}")
        began = time.perf_counter()
        for _ in range(count):
            last = await producer.send(topic, json.dumps(EVENT).encode())
        await last
        await producer.flush()
        report(count, began)
        await producer.stop()

    asyncio.run(main())


def aiokafka_sequence(address, topic, count):
    from aiokafka import AIOKafkaProducer

    async def main():
        producer = AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True)
        await producer.start()
        await producer.send_and_wait(topic, b"{}")
        began = time.perf_counter()
        for _ in range(count):
            await producer.send_and_wait(topic, json.dumps(EVENT).encode())
        report(count, began)
        await producer.stop()

    asyncio.run(main())


def aiokafka_consume(address, topic, count):
    from aiokafka import AIOKafkaConsumer

    async def main():
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, group_id=uuid.uuid4().hex, auto_offset_reset="earliest")
        await consumer.start()
        began = seen = 0
        async for message in consumer:
            if seen == 0:
                began = time.perf_counter()
            seen += 1
            if json.loads(message.value)["order_id"] != 4711:
                raise ValueError(message)
            if seen == count:
                break
        report(count, began)
        await consumer.stop()

    asyncio.run(main())


def faststream_publish(address, topic, count):
    from faststream.kafka import KafkaBroker

    async def main():
        async with KafkaBroker(address, enable_idempotence=True, logger=None) as broker:
            await broker.publish(EVENT, topic)
            began = time.perf_counter()
            for _ in range(count):
                await broker.publish(EVENT, topic, no_confirm=True)
            report(count, began)

    asyncio.run(main())


def faststream_consume(address, topic, count):
    from faststream.kafka import KafkaBroker

    async def main():
        broker = KafkaBroker(address, logger=None)
        done = asyncio.Event()
        began = seen = 0

        @broker.subscriber(topic, group_id=uuid.uuid4().hex, auto_offset_reset="earliest")
        async def handle(event: dict) -> None:
            nonlocal began, seen
            if seen == 0:
                began = time.perf_counter()
            seen += 1
            if event["order_id"] != 4711:
                raise ValueError(event)
            if seen == count:
                report(count, began)
                done.set()

        await broker.start()
        await done.wait()
        await broker.stop()

    asyncio.run(main())


# name, share of the messages, whether it reads what another has published, and what is run.
MEASUREMENTS = {
    "memory: async def handler": (1.0, False, ours(ours_handler, "memory", 1)),
    "memory: async def handler that waits, 64 at once": (0.2, False, ours(ours_handler_waits, "memory", 1)),
    "memory: async for": (1.0, False, ours(ours_iterate, "memory", 1)),
    "publish: ours, confirm=False": (1.0, False, ours(ours_publish)),
    "publish: ours, publish_many": (1.0, False, ours(ours_publish_many)),
    "publish: ours, events with their headers": (1.0, False, ours(ours_events)),
    "publish: confluent-kafka": (1.0, False, confluent_publish),
    "publish: aiokafka": (0.2, False, aiokafka_publish),
    "publish: FastStream": (0.1, False, faststream_publish),
    "sequence: ours": (0.01, False, ours(ours_sequence)),
    "sequence: aiokafka": (0.01, False, aiokafka_sequence),
    "consume: ours, async def handler": (1.0, True, ours(ours_handler)),
    "consume: ours, async for": (1.0, True, ours(ours_iterate)),
    "consume: confluent-kafka, a loop": (1.0, True, confluent_consume),
    "consume: aiokafka, async for": (0.2, True, aiokafka_consume),
    "consume: FastStream, async def handler": (0.1, True, faststream_consume),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", metavar="HOST:PORT")
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--topic", help=argparse.SUPPRESS)
    given = parser.parse_args()
    address = (given.kafka or "").removeprefix("kafka://")
    if given.measure:
        MEASUREMENTS[given.measure][2](address, given.topic, given.messages)
        return

    chosen = [name for name in MEASUREMENTS if name.startswith(given.only) and (address or name.startswith("memory"))]
    if not chosen:
        sys.exit(f'bench.py: nothing begins with "{given.only}"; there are: {", ".join(MEASUREMENTS)}')

    def measure(name: str, topic: str) -> dict[str, float]:
        count = max(int(given.messages * MEASUREMENTS[name][0]) // 10_000, 1) * 10_000 if MEASUREMENTS[name][0] > 0.05 else 2000
        command = [sys.executable, __file__, "--measure", name, "--topic", topic, "--messages", str(count), "--kafka", address]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    def new_topic() -> str:
        topic = f"bench.{uuid.uuid4().hex}"
        if address:
            from maestro_core_messaging import MessageBroker

            async def create():
                async with MessageBroker("kafka", address) as broker:
                    await broker.create_topic(topic, partitions=6)

            asyncio.run(create())
        return topic

    read = new_topic()
    if any(MEASUREMENTS[name][1] for name in chosen):
        measure("publish: ours, publish_many", read)  # what is read later
    results: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for _ in range(given.rounds):
        for name in chosen:
            results[name].append(measure(name, read if MEASUREMENTS[name][1] else new_topic()))
            print(f"{name}: {results[name][-1]['rate']:,.0f}", file=sys.stderr)
    medians = {
        name: {key: statistics.median(each[key] for each in found) for key in ("rate", "cpu", "peak")} for name, found in results.items()
    }
    if given.json:
        print(json.dumps(medians, indent=2))
        return
    print(f"{given.messages:,} messages of {len(json.dumps(EVENT))} bytes, {given.rounds} rounds; medians")
    print(f"{'':50} {'a second':>10} {'peak MiB':>9}")
    for name, median in medians.items():
        print(f"{name:50} {median['rate']:10,.0f} {median['peak']:9,.0f}")


if __name__ == "__main__":
    main()

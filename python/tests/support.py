"""What several test files use."""

import asyncio

from maestro_core_messaging import EventConsumer


async def until(condition, seconds=20.0):
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("what was waited for did not come about")


async def consume(broker, topic, count, handle, **options):
    """Runs a consumer until it has handled, or dead-lettered, `count` events."""
    consumer = EventConsumer(broker, group_id=options.pop("group_id", topic), **options)
    consumer.subscribe(topic)(handle)
    running = asyncio.create_task(consumer.start())
    await until(lambda: consumer.counts.handled + consumer.counts.dead_lettered == count or running.done())
    consumer.stop()
    await running
    return consumer

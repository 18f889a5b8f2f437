"""The library as a citizen of asyncio: cancellation, tasks, contexts, loops, threads, forks, and the end of a program."""

import asyncio
import contextvars
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from maestro_core_messaging import ClosedError, EventConsumer, EventPublisher, MessageBroker

from support import consume, until


async def test_cancelling_a_wait_loses_no_message(broker, topic):
    await broker.create_topic(topic, partitions=1)
    subscription = await broker.subscribe(topic, group_id=topic).open()
    count = 300
    seen = []

    async def publish():
        for number in range(count):
            await broker.publish(topic, number)
            if number % 7 == 0:
                await asyncio.sleep(0.001)

    publishing = asyncio.create_task(publish())
    cancelled = 0
    while len(seen) < count:
        try:
            # Cancelled at any point; a wait_for would hide what came in that moment.
            waiting = asyncio.ensure_future(subscription.next())
            asyncio.get_running_loop().call_later(0.0005 if cancelled < 500 else 1, waiting.cancel)
            seen.append((await waiting).value)
        except asyncio.CancelledError:
            cancelled += 1
        if cancelled > 600:
            break
    await publishing
    assert cancelled > 0
    assert seen == list(range(count))
    await subscription.close()


async def test_commit_covers_only_what_was_handed_out(broker, topic):
    await broker.create_topic(topic, partitions=1)
    for number in range(3):
        await broker.publish(topic, number)
    subscription = await broker.subscribe(topic, group_id=topic, enable_auto_commit=False).open()
    assert await subscription.next() == 0
    with pytest.raises(asyncio.TimeoutError):
        waiting = broker.subscribe(f"{topic}.other", group_id=topic)
        await asyncio.wait_for(waiting.next(), 0.2)
    await subscription.commit()
    await subscription.close()
    again = await broker.subscribe(topic, group_id=topic).open()
    assert await again.next() == 1
    await again.close()
    await waiting.close()


async def test_leaving_a_loop_leaves_the_last_message_unsettled(broker, topic):
    await broker.create_topic(topic, partitions=1)
    for number in range(4):
        await broker.publish(topic, number)
    async for message in broker.subscribe(topic, group_id=topic):
        if message == 1:
            break
    with pytest.raises(ZeroDivisionError):
        async for message in broker.subscribe(topic, group_id=topic):
            assert message.value == 1
            1 / 0
    seen = []
    async for message in broker.subscribe(topic, group_id=topic):
        seen.append(message.value)
        if len(seen) == 3:
            break
    assert seen == [1, 2, 3]


async def test_batches_settle_with_the_next_one(broker, topic):
    await broker.create_topic(topic, partitions=1)
    await broker.publish_many(topic, range(10))
    sizes, seen = [], []
    subscription = broker.subscribe(topic, group_id=topic)
    async for batch in subscription.batches(3):
        sizes.append(len(batch))
        seen += [message.value for message in batch]
        if len(seen) == 10:
            break
    assert seen == list(range(10))
    assert max(sizes) == 3
    await subscription.commit()
    await subscription.close()
    assert [group.lag for group in (await broker.describe_topic(topic)).groups] == [0]


async def test_handlers_run_in_parallel_and_in_order_for_each_key(broker, topic):
    running, most, seen = 0, 0, {}

    async def handle(event):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002 * (event["number"] % 3))
        seen.setdefault(event["key"], []).append(event["number"])
        running -= 1

    for number in range(120):
        await broker.publish(topic, {"key": number % 6, "number": number}, key=str(number % 6))
    await consume(broker, topic, 120, handle, concurrency=4)
    assert most == 4
    assert seen == {key: list(range(key, 120, 6)) for key in range(6)}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout and task groups came with 3.11")
async def test_a_handler_has_a_task_a_timeout_and_a_context_of_its_own(broker, topic):
    tasks, outcomes = [], []
    variable = contextvars.ContextVar("variable", default="fresh")
    inherited = contextvars.ContextVar("inherited")
    inherited.set("from start()")

    async def handle(event):
        task = asyncio.current_task()
        outcomes.append((variable.get(), inherited.get()))
        variable.set("changed")
        if event["waits"]:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(10)
            token = variable.set("later")
            await asyncio.sleep(0)
            variable.reset(token)
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0.001))
        assert asyncio.current_task() is task
        assert task is not None and not task.cancelling()
        tasks.append(task)

    for waits in (False, True, False, False, True, True):
        await broker.publish(topic, {"waits": waits}, key="same")
    await consume(broker, topic, 6, handle)
    assert outcomes == [("fresh", "from start()")] * 6
    assert len(tasks) == 6


async def test_handlers_that_never_wait_let_the_loop_turn(broker, topic):
    turns = 0

    async def tick():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def handle(event):
        deadline = asyncio.get_running_loop().time() + 0.002
        while asyncio.get_running_loop().time() < deadline:
            pass

    for number in range(100):
        await broker.publish(topic, number)
    ticking = asyncio.create_task(tick())
    before = turns
    await consume(broker, topic, 100, handle)
    ticking.cancel()
    assert turns - before > 20


async def test_cancelling_start_drains(broker, topic):
    begun, ended = [], []

    async def handle(event):
        begun.append(event)
        await asyncio.sleep(0.1)
        ended.append(event)

    for number in range(20):
        await broker.publish(topic, number)
    consumer = EventConsumer(broker, group_id=topic, concurrency=4)
    consumer.subscribe(topic)(handle)
    running = asyncio.create_task(consumer.start())
    await until(lambda: len(begun) >= 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert begun == ended
    assert len(ended) < 20
    rest = await consume(broker, topic, 20 - len(ended), handle, concurrency=20)
    assert rest.counts.handled == 20 - consumer.counts.handled
    assert sorted(ended) == list(range(20))


async def test_what_does_not_end_in_time_is_cancelled_and_delivered_again(broker, topic):
    cancelled = []

    async def stuck(event):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(event)
            raise

    await broker.publish(topic, "x")
    consumer = EventConsumer(broker, group_id=topic, drain_timeout=0.05)
    consumer.subscribe(topic)(stuck)
    running = asyncio.create_task(consumer.start())
    await until(lambda: consumer.counts.received == 1)
    await asyncio.sleep(0.05)
    consumer.stop()
    await running
    assert cancelled == ["x"]
    assert consumer.counts.handled == 0
    seen = []

    async def handle(event):
        seen.append(event)

    await consume(broker, topic, 1, handle)
    assert seen == ["x"]


async def test_a_plain_function_runs_in_a_thread(broker, topic):
    threads = []

    def handle(event):
        threads.append(threading.current_thread())

    await broker.publish(topic, 1)
    await consume(broker, topic, 1, handle)
    assert threads[0] is not threading.main_thread()


async def test_gather_and_wait_for(broker, topic):
    publisher = EventPublisher(broker)
    receipts = await asyncio.gather(*(publisher.publish(topic, {"n": n}, key="k") for n in range(200)))
    offsets = [receipt.offset for receipt in receipts]
    assert offsets == sorted(set(offsets)) and len(offsets) == 200
    await asyncio.wait_for(broker.flush(), 10)
    report = [await broker.publish(topic, n, confirm=False) for n in range(100)]
    assert not any(receipt.confirmed for receipt in report)
    flushed = await broker.flush()
    assert (flushed.confirmed, flushed.failures) == (100, [])


async def test_a_disconnected_broker_says_so_and_ends_iterations(broker, topic):
    await broker.publish(topic, 1)
    ended = []

    async def read():
        async for message in broker.subscribe(topic):
            ended.append(message.value)
        ended.append("end")

    reading = asyncio.create_task(read())
    await until(lambda: ended == [1])
    await broker.disconnect()
    await asyncio.wait_for(reading, 5)
    assert ended == [1, "end"]
    with pytest.raises(ClosedError, match="was disconnected"):
        await broker.publish(topic, 2)


def test_several_loops_in_several_threads(address, topic):
    counts = {}

    def work(name):
        async def main():
            broker = MessageBroker(*address)
            mine = f"{topic}.{name}"
            for number in range(100):
                await broker.publish(mine, number)
            seen = 0

            async def handle(event):
                nonlocal seen
                seen += 1
                if seen % 10 == 0:
                    await asyncio.sleep(0)

            consumer = await consume(broker, mine, 100, handle)
            counts[name] = consumer.counts.handled
            await broker.disconnect()

        asyncio.run(main())

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counts == {str(number): 100 for number in range(4)}


def test_uvloop(address, topic):
    uvloop = pytest.importorskip("uvloop")

    async def main():
        broker = MessageBroker(*address)
        for number in range(50):
            await broker.publish(topic, number)
        seen = []

        async def handle(event):
            await asyncio.sleep(0)
            seen.append(event)

        await consume(broker, topic, 50, handle, concurrency=3)
        await broker.disconnect()
        return seen

    loop = uvloop.new_event_loop()
    assert sorted(loop.run_until_complete(main())) == list(range(50))
    loop.close()


def program(text, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "ignore::ResourceWarning", "-c", textwrap.dedent(text), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


CONSUMING = """
    import asyncio, sys
    from maestro_core_messaging import EventConsumer, MessageBroker

    async def main():
        broker = MessageBroker(sys.argv[1], sys.argv[2])
        consumer = EventConsumer(broker, group_id="g", concurrency=4)

        @consumer.subscribe(sys.argv[3])
        async def handle(event):
            print("began", event, flush=True)
            await asyncio.sleep(0.3)
            print("ended", event, flush=True)

        for number in range(3):
            await broker.publish(sys.argv[3], number, key=str(number))
        await consumer.start()

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="before 3.11 asyncio.run cancels every task, the handlers' too")
def test_ctrl_c_drains(address, topic):
    running = program(CONSUMING, *address, topic)
    began = 0
    for line in running.stdout:
        began += line.startswith("began")
        if began == 3:
            break
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert sorted(out.splitlines()) == ["ended 0", "ended 1", "ended 2", "interrupted"], err
    assert running.returncode == 0, err
    assert err == ""


def test_a_program_ends_with_work_in_flight(address, topic):
    running = program(
        """
        import asyncio, sys
        from maestro_core_messaging import EventConsumer, MessageBroker

        async def main():
            broker = MessageBroker(sys.argv[1], sys.argv[2])
            consumer = EventConsumer(broker, group_id="g")

            @consumer.subscribe(sys.argv[3])
            async def handle(event):
                await asyncio.sleep(60)

            await broker.publish(sys.argv[3], 1)
            asyncio.get_running_loop().create_task(consumer.start())
            subscription = broker.subscribe(sys.argv[3])
            await subscription.next()
            await broker.publish(sys.argv[3], 2, confirm=False)
            print("leaving", flush=True)
            import os
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.stop)
            await asyncio.sleep(1)

        loop = asyncio.new_event_loop()
        loop.create_task(main())
        loop.run_forever()
        loop.close()
        """,
        *address,
        topic,
    )
    out, err = running.communicate(timeout=30)
    assert out == "leaving\n"
    assert running.returncode == 0, err
    assert "Fatal" not in err and "Segmentation" not in err, err


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of forking where there are threads")
def test_a_fork_is_refused_with_a_sentence(address, topic):
    async def main():
        broker = MessageBroker(*address)
        await broker.publish(topic, 1)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                await broker.publish(topic, 2)
                said = "published"
            except RuntimeError as error:
                said = str(error)
            os.write(writing, said.encode())
            os._exit(0)
        os.waitpid(child, 0)
        said = os.read(reading, 10_000).decode()
        os.close(reading)
        os.close(writing)
        assert "forked" in said and "spawn" in said
        await broker.publish(topic, 3)  # the parent goes on
        await broker.disconnect()

    asyncio.run(main())


def _in_a_child(address, topic, queue):
    async def main():
        broker = MessageBroker(*address)
        await broker.publish(topic, {"from": "the child"})
        await broker.disconnect()

    asyncio.run(main())
    queue.put("done")


def test_a_spawned_process_has_brokers_of_its_own(kafka_url, topic):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(("kafka", kafka_url), topic, queue))
    child.start()
    assert queue.get(timeout=60) == "done"
    child.join(30)
    assert child.exitcode == 0

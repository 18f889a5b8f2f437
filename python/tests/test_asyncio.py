"""The library as a citizen of asyncio: cancellation, tasks, contexts, loops, threads, forks, and the end of a program."""

import asyncio
import contextvars
import gc
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest

from maestro_core_messaging import (
    ClosedError,
    ConnectionFailedError,
    EventConsumer,
    EventPublisher,
    MessageBroker,
    MessagingError,
    _runtime,
)

from support import consume, until

GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "python.md"


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


def complaints(err):
    """What a program wrote to stderr, but for asyncio's word on slow steps, which a busy machine has."""
    return [line for line in err.splitlines() if not (line.startswith("Executing <") and line.endswith(" seconds"))]


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
    assert complaints(err) == []


def test_sigterm_drains_with_the_line_of_the_guide(topic):
    (line,) = [line.strip() for line in GUIDE.read_text().splitlines() if "add_signal_handler" in line]
    text = CONSUMING.replace("await consumer.start()", f"{line}\n        await consumer.start()")
    running = program("import signal\n" + textwrap.dedent(text), "memory", "memory://sigterm", topic)
    began = 0
    for out in running.stdout:
        began += out.startswith("began")
        if began == 3:
            break
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=30)
    assert sorted(out.splitlines()) == ["ended 0", "ended 1", "ended 2"], err
    assert (running.returncode, complaints(err)) == (0, [])


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


LEAVING = """
    import asyncio, sys
    from maestro_core_messaging import MessageBroker

    kept = []

    async def main():
        broker = MessageBroker(sys.argv[1], sys.argv[2])
        if sys.argv[4] == "kept":
            kept.append(broker)
        for number in range(500):
            await broker.publish(sys.argv[3], number, confirm=False)

    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["kept", "dropped"])
def test_what_is_in_the_buffer_is_sent_when_the_program_ends(kafka_url, topic, how):
    asyncio.run(_create(("kafka", kafka_url), topic))
    running = program(LEAVING, "kafka", kafka_url, topic, how)
    out, err = running.communicate(timeout=60)
    assert (out, complaints(err), running.returncode) == ("", [], 0)
    described = asyncio.run(_describe(("kafka", kafka_url), topic))
    assert described.messages == 500


def test_what_cannot_be_sent_when_the_program_ends_is_said(topic):
    running = program(
        "from maestro_core_messaging import _runtime\n_runtime._LAST_FLUSH = 0.3\n" + textwrap.dedent(LEAVING),
        "kafka",
        "127.0.0.1:9",
        topic,
        "kept",
    )
    out, err = running.communicate(timeout=60)
    assert "500 messages that were published with confirm=False may be lost" in err
    assert running.returncode == 0


def test_a_broker_that_is_left_with_a_full_buffer_warns():
    async def main():
        broker = MessageBroker("kafka", "127.0.0.1:9", {"connect_timeout": 100}, producer_config={"publish_timeout": 100})
        await broker.publish("t", 1, confirm=False)
        with pytest.warns(ResourceWarning, match="left with messages published with confirm=False"):
            del broker
            gc.collect()
        await until(lambda: not _runtime._leaving)

    asyncio.run(main())


async def _create(address, topic):
    async with MessageBroker(*address) as broker:
        await broker.create_topic(topic, partitions=1)


async def _describe(address, topic):
    async with MessageBroker(*address) as broker:
        return await broker.describe_topic(topic)


@pytest.mark.parametrize("kind", ["kafka", "redis"])
async def test_stop_ends_a_consumer_that_waits_for_its_broker(kind, caplog):
    broker = MessageBroker(kind, "127.0.0.1:9" if kind == "kafka" else "redis://127.0.0.1:9", {"connect_timeout": 200})
    consumer = EventConsumer(broker, group_id="g")
    consumer.subscribe("t")(print)
    running = asyncio.create_task(consumer.start())
    await until(lambda: any("waits for it" in record.message for record in caplog.records))
    consumer.stop()
    await asyncio.wait_for(running, 2)
    running = asyncio.create_task(consumer.start())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 2)
    await broker.disconnect()


async def test_stop_ends_a_consumer_that_has_not_taken_its_first_step(memory_broker, topic):
    consumer = EventConsumer(memory_broker, group_id="g")
    consumer.subscribe(topic)(print)
    running = asyncio.create_task(consumer.start())
    consumer.stop()
    await asyncio.wait_for(running, 2)
    running = asyncio.create_task(consumer.start())  # that stop() is over
    await asyncio.sleep(0.05)
    assert not running.done()
    consumer.stop()
    await asyncio.wait_for(running, 2)


async def test_stop_before_the_first_start_ends_that_one_alone(memory_broker, topic):
    consumer = EventConsumer(memory_broker, group_id="g")
    consumer.subscribe(topic)(print)
    consumer.explain()
    consumer.stop()
    await asyncio.wait_for(consumer.start(), 2)
    for _ in range(2):
        running = asyncio.create_task(consumer.start())
        await asyncio.sleep(0.05)
        assert not running.done()
        consumer.stop()
        await asyncio.wait_for(running, 2)
        consumer.stop()  # it has run, and there is nothing to end


async def test_a_cancelled_connect_connected_nothing():
    broker = MessageBroker("kafka", "127.0.0.1:9", {"connect_timeout": 500})
    for _ in range(2):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(broker.connect(), 0.1)
        assert not (await broker.get_status()).connected
    with pytest.raises(ConnectionFailedError):
        await broker.connect()
    await broker.disconnect()


def test_a_consumer_that_its_handler_reaches_is_freed(topic):
    async def main():
        broker = MessageBroker("memory", f"memory://{topic}")

        async def once(number):
            consumer = EventConsumer(broker, group_id="g")

            @consumer.subscribe(topic)
            async def handle(event):
                await asyncio.sleep(0)
                consumer.stop()

            await broker.publish(topic, number)
            await consumer.start()
            assert consumer.counts.handled == 1
            return weakref.ref(consumer), weakref.ref(handle)

        references = [reference for number in range(5) for reference in await once(number)]
        gc.collect()
        assert [reference() for reference in references] == [None] * 10

        # One that runs is kept, though nobody but itself refers to it.
        ran = []

        def begin():
            consumer = EventConsumer(broker, group_id="g")

            @consumer.subscribe(topic)
            async def handle(event):
                ran.append(event)
                consumer.stop()

            running.append(asyncio.ensure_future(consumer.start()))

        running = []
        begin()
        await asyncio.sleep(0)
        gc.collect()
        await broker.publish(topic, "x")
        await asyncio.wait_for(running[0], 10)
        assert ran == ["x"]
        await broker.disconnect()

    asyncio.run(main())


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
                assert isinstance(error, MessagingError)
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


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of forking where there are threads")
def test_a_forked_child_ends_at_once(address, topic):
    running = program(
        """
        import asyncio, os, sys, time
        from maestro_core_messaging import MessageBroker

        broker = MessageBroker(sys.argv[1], sys.argv[2])
        loop = asyncio.new_event_loop()
        loop.run_until_complete(broker.publish(sys.argv[3], 1))
        loop.run_until_complete(broker.subscribe(sys.argv[3], "g").next())
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            sys.exit(7)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), time.monotonic() - began < 2)
        loop.run_until_complete(broker.disconnect())
        """,
        *address,
        topic,
    )
    out, err = running.communicate(timeout=60)
    assert (out, running.returncode) == ("7 True\n", 0), err


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

"""Spans of OpenTelemetry: a handler's span is a child of the publisher's."""

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import asyncio
    from maestro_core_messaging import Event, EventConsumer, EventPublisher, MessageBroker
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    broker = MessageBroker("memory", "memory://traced")
    consumer = EventConsumer(broker, group_id="billing")

    @consumer.subscribe("orders")
    async def handle(event: dict):
        await asyncio.sleep(0)
        with trace.get_tracer("program").start_as_current_span("inside"):
            pass
        consumer.stop()

    async def main():
        with trace.get_tracer("program").start_as_current_span("outside"):
            await EventPublisher(broker).publish("orders", {"order_id": 1}, id="id-1")
        await consumer.start()

    asyncio.run(main())
    by_name = {span.name: span for span in spans.get_finished_spans()}
    inside, process, outside, send = (by_name[name] for name in ("inside", "process orders", "outside", "send orders"))
    assert send.parent.span_id == outside.context.span_id
    assert send.kind is trace.SpanKind.PRODUCER
    assert process.parent.span_id == send.context.span_id
    assert inside.parent.span_id == process.context.span_id
    assert len({span.context.trace_id for span in (inside, process, outside)}) == 1
    assert process.attributes["messaging.message.id"] == "id-1"
    assert process.attributes["messaging.destination.name"] == "orders"
    assert process.attributes["messaging.consumer.group.name"] == "billing"
    print("traced")
"""


MESSAGES = """
    import asyncio
    from maestro_core_messaging import Event, EventConsumer, Message, MessageBroker
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    broker = MessageBroker("memory", "memory://traced")
    consumer = EventConsumer(broker)
    got = {}

    @consumer.subscribe("bytes")
    async def handle_bytes(payload: bytes):
        got["bytes"] = payload

    @consumer.subscribe("message")
    def handle_message(message: Message):
        got["message"] = message.payload

    @consumer.subscribe("value")
    async def handle_value(value):
        got["value"] = value

    @consumer.subscribe("event")
    async def handle_event(event: Event):
        got["event"] = event.attempt, event.data

    async def main():
        with trace.get_tracer("program").start_as_current_span("outside") as outside:
            mine = f"{outside.get_span_context().trace_id:032x}"
            await broker.publish("bytes", b"no JSON")
            await broker.publish_many("message", [b"none either"])
            async with broker.transaction() as tx:
                tx.publish("value", {"a": 1})
            await broker.publish("event", 7)
            await broker.publish("event", b"broken")
            await broker.publish("value", b"broken")
        running = asyncio.create_task(consumer.start())
        while consumer.counts.handled + consumer.counts.dead_lettered < 6:
            await asyncio.sleep(0.01)
        consumer.stop()
        await running
        assert got == {"bytes": b"no JSON", "message": b"none either", "value": {"a": 1}, "event": (1, 7)}, got
        for topic in ("event", "value"):
            (letter,) = await broker.dead_letters(f"{topic}.maestro.dlq").list()
            assert (letter.reason, letter.attempts) == ("undecodable", 1)
        async for message in broker.subscribe("value"):
            assert message.headers["traceparent"].split("-")[1] == mine
            break
        processed = [span for span in spans.get_finished_spans() if span.name.startswith("process ")]
        assert {f"{span.context.trace_id:032x}" for span in processed} == {mine}
        assert {span.attributes["messaging.consumer.group.name"] for span in processed} == {"maestro"}
        sent = [span.name for span in spans.get_finished_spans() if span.name.startswith("send ")]
        assert sent == ["send bytes", "send message", "send event", "send event", "send value"], sent

    asyncio.run(main())
    print("traced")
"""


def test_tracing_changes_nothing_of_what_is_handled():
    pytest.importorskip("opentelemetry.sdk")
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(MESSAGES)], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "traced\n", ran.stderr


def test_a_handlers_span_is_a_child_of_the_publishers():
    pytest.importorskip("opentelemetry.sdk")
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "traced\n", ran.stderr

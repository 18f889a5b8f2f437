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
    inside, process, outside = by_name["inside"], by_name["process orders"], by_name["outside"]
    assert process.parent.span_id == outside.context.span_id
    assert inside.parent.span_id == process.context.span_id
    assert len({span.context.trace_id for span in (inside, process, outside)}) == 1
    assert process.attributes["messaging.message.id"] == "id-1"
    assert process.attributes["messaging.destination.name"] == "orders"
    assert process.attributes["messaging.consumer.group.name"] == "billing"
    print("traced")
"""


def test_a_handlers_span_is_a_child_of_the_publishers():
    pytest.importorskip("opentelemetry.sdk")
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "traced\n", ran.stderr

"""The programs of the documents, as they stand there."""

import asyncio
import pathlib
import re
import subprocess
import sys

import pytest

from maestro_core_messaging import MessageBroker

ROOT = pathlib.Path(__file__).parents[2]


def programs_of(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)


PROGRAMS = programs_of("docs/migrating.md")
NEEDS = {"from kafka import": "kafka", "aiokafka": "aiokafka", "faststream": "faststream"}


async def create(address, topic):
    async with MessageBroker("kafka", address) as broker:
        await broker.create_topic(topic)


def test_the_program_of_the_readme_prints_what_it_says():
    (program,) = programs_of("README.md")
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.returncode) == ("Received: {'event_type': 'user_created', 'user_id': 123}\n", 0), ran.stderr
    assert f"It prints `{ran.stdout.strip()}`" in (ROOT / "README.md").read_text()


def test_there_are_three_pairs():
    assert len(PROGRAMS) == 6


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_of_the_page_runs(number, kafka_url, topic):
    text = PROGRAMS[number]
    for words, module in NEEDS.items():
        if words in text:
            pytest.importorskip(module)
    assert "localhost:9092" in text
    text = text.replace("localhost:9092", kafka_url).replace('"orders', f'"{topic}').replace('"billing"', f'"{topic}"')
    asyncio.run(create(kafka_url, topic))  # the others do not
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "1" in ran.stdout

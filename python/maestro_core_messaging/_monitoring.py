"""The core's metrics in `prometheus_client`'s default registry."""

from __future__ import annotations

from collections.abc import Iterable

import prometheus_client
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from . import _core


class _Collector:
    def collect(self) -> Iterable[Metric]:
        return text_string_to_metric_families(_core.expose_metrics())

    def describe(self) -> Iterable[Metric]:
        return []


_exposed = False


def expose() -> None:
    """Registers the collector, once a process."""
    global _exposed
    if not _exposed:
        prometheus_client.REGISTRY.register(_Collector())
        _exposed = True

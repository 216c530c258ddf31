"""Fixtures: registries made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual.registry import Registry
from tests.reports import add_domain, add_version, make_registry, make_task


@pytest.fixture
def stream(tmp_path: Path) -> Registry:
    """Three steps: med; bash, refused; bash and table together. Then two tasks of no domain, one added late."""
    registry = make_registry(tmp_path)
    batches = {name: add_domain(registry, name) for name in ("med", "bash", "table")}
    for name in ("wiki", "late"):
        registry.add_task(make_task(name, None))
    root = {"med": 60.0, "bash": 50.0, "table": 40.0, "wiki": 80.0}
    add_version(registry, "v0", None, root)
    first = {"med": 72.0, "bash": 52.0, "table": 39.0, "wiki": 79.5}
    add_version(registry, "v1", "v0", first, batches=(batches["med"],), pairs=2000, joint=2000)
    bad = {"med": 66.0, "bash": 65.0, "table": 38.0, "wiki": 75.0}
    reasons = ("med fell by 6.0 points (95 % interval 4.1 to 7.9), more than gate.max_forgetting = 2.0",)
    add_version(
        registry, "v2", "v1", bad, batches=(batches["bash"],), status="refused", pairs=2200, joint=4000, reasons=reasons
    )
    both = {"med": 71.0, "bash": 64.0, "table": 55.0, "wiki": 80.5, "late": 30.0}
    add_version(registry, "v3", "v1", both, batches=(batches["bash"], batches["table"]), pairs=4200, joint=6000)
    return registry


@pytest.fixture
def trial(stream: Registry) -> Registry:
    """The stream, then a refused update, and all its domains at once by `continual train`."""
    batches = tuple(batch.id for batch in stream.batches())
    scores = {"med": 70.0, "bash": 60.0, "table": 50.0, "wiki": 79.0}
    add_version(
        stream, "v4", "v3", scores, batches=batches[:1], status="refused", reasons=("table fell by 5.0 points",)
    )
    add_version(stream, "v10", "v0", scores | {"med": 73.0}, batches=batches, status="trained", recipe="joint")
    return stream

"""The current version: promoted, rolled back, and never one whose weights are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual import Workspace
from continual.errors import DataError
from tests.rows import Write, make_pairs


@pytest.mark.faults
def test_damaged_weights_are_neither_exported_nor_served(
    learned: Workspace, write_pairs: Write, tmp_path: Path
) -> None:
    first, current = learned.versions()[1].id, learned.version().id
    for name in (first, current):
        weights = learned.registry.path(learned.version(name).path) / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    for act in (lambda: learned.export(first, tmp_path / "out"), lambda: learned.promote(first), learned.rollback):
        with pytest.raises(DataError, match=f"versions rebuild {first}"):
            act()
    learned.ingest(write_pairs("c.parquet", make_pairs(40, seed=3)))
    for learn in (learned.plan, learned.update):
        with pytest.raises(DataError, match=f"versions rebuild {current}"):
            learn()
    assert learned.version().id == current
    assert not (tmp_path / "out").exists()
    learned.rebuild(first)
    learned.rebuild(current)
    assert learned.update().passed


def test_the_history_of_what_was_in_service_is_kept(learned: Workspace) -> None:
    learned.rollback("tests are small")
    events = learned.history()
    assert [event.version for event in events] == ["v0", "v1", "v2", "v1"]
    assert events[-1].reason == "tests are small"

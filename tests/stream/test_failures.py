"""Ingests that fail: nothing is half done, and memory is bounded."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from continual.config import IngestConfig
from continual.errors import (
    DataError,
    WorkspaceBusy,
)
from continual.registry import Registry
from continual.storage.aside import announce
from continual.storage.locks import exclusive
from continual.stream import (
    import_task,
    ingest,
)
from continual.stream.sweep import ANNOUNCED
from tests.rows import make_pairs
from tests.stream.rows import CONFIG, new_registry, state, stored, task_rows, write_rows


def test_one_ingest_at_a_time(registry: Registry, tmp_path: Path, beir: Path) -> None:
    with exclusive(registry.root / "ingest.lock", "ingest"):
        with pytest.raises(WorkspaceBusy):
            ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", make_pairs(20)))
        with pytest.raises(WorkspaceBusy):
            import_task(registry, "ood", beir)


def test_a_damaged_file_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in make_pairs(50))
    (tmp_path / "a.jsonl").write_text(text[:-20])
    before = state(registry)
    with pytest.raises(DataError, match="truncated"):
        ingest(registry, IngestConfig(batch_rows=10), str(tmp_path / "a.jsonl"))
    assert state(registry) == before


@pytest.mark.parametrize("holdout", [0.1, 0.0])
def test_a_failed_transaction_leaves_no_files(registry, tmp_path, monkeypatch, holdout) -> None:
    source = write_rows(tmp_path / "a.parquet", make_pairs(30))
    before = state(registry)
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "add_batch", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest(registry, CONFIG, source, holdout=holdout)
    assert state(registry) == before
    assert ingest(registry, CONFIG, source, holdout=holdout).batch == "b1"


def test_what_stops_an_ingest_after_its_transaction_removes_nothing(registry, tmp_path, monkeypatch) -> None:
    source = write_rows(tmp_path / "a.parquet", make_pairs(30))
    add_batch = Registry.add_batch

    def add_and_stop(*arguments: object, **more: object) -> None:
        add_batch(*arguments, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "add_batch", add_and_stop)
        with pytest.raises(KeyboardInterrupt):
            ingest(registry, CONFIG, source)
    assert len(stored(registry, "b1")) == 27
    assert len(task_rows(registry, "a")["queries"]) == 3
    assert ingest(registry, CONFIG, source).unchanged


def test_what_a_killed_ingest_left_is_removed(registry: Registry, tmp_path: Path) -> None:
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", make_pairs(30)))
    lost = ["staging/rows.parquet", "data/b/b2.parquet", "data/b/b2.rejects.jsonl", "data/a/.b2.parquet.0.partial"]
    lost += ["tasks/b/corpus.parquet", "rejects/.b.jsonl.0.partial"]
    before = state(registry)
    for name in lost:
        registry.path(name).parent.mkdir(parents=True, exist_ok=True)
        registry.path(name).write_text("half")
    announce(registry.root / ANNOUNCED, "data/b/b2.parquet", "data/b/b2.rejects.jsonl", "tasks/b")
    again = ingest(registry, CONFIG, write_rows(tmp_path / "again.jsonl", make_pairs(30)))
    assert (again.batch, again.unchanged) == (None, False)
    assert state(registry) == before
    assert not registry.path("data/b").exists()


def test_what_an_older_catalog_does_not_know_is_moved_aside(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", make_pairs(30)))
    older = registry.catalog.path.read_bytes()
    ingest(registry, CONFIG, write_rows(tmp_path / "b.parquet", make_pairs(30, seed=1)))
    newer = [f"data/b/{registry.batches()[-1].id}.parquet", "tasks/b/corpus.parquet"]
    before = {path: registry.path(path).read_bytes() for path in newer}
    registry.catalog.path.write_bytes(older)
    ingest(registry, CONFIG, write_rows(tmp_path / "c.parquet", make_pairs(30, seed=2)), domain="b")
    lost = {file.relative_to(registry.root / "lost").as_posix() for file in registry.path("lost").rglob("*.parquet")}
    kept = {name.partition("/")[2]: registry.path(f"lost/{name}").read_bytes() for name in lost}
    assert {path: kept[path] for path in newer} == before
    assert len(stored(registry, "b2")) > 0  # the new batch, under the same id
    assert "data/b/b2.parquet is not recorded in the catalog" in caplog.text


def test_a_task_import_does_not_overwrite_what_the_catalog_does_not_know(registry: Registry, beir: Path) -> None:
    unknown = registry.path("tasks/t/corpus.parquet")
    unknown.parent.mkdir(parents=True)
    unknown.write_text("precious")
    import_task(registry, "t", beir)
    (kept,) = registry.path("lost").rglob("corpus.parquet")
    assert kept.read_text() == "precious"
    assert unknown.is_file()


def test_memory_is_bounded_by_small_pieces(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same outcome in one piece, in many, sorted at once or in ranges, and with row groups of any size."""
    monkeypatch.setattr("continual.stream.ordered.GROUP_ROWS", 64)
    monkeypatch.setattr("continual.stream.ordered.MAX_RANGES", 40)
    rows = make_pairs(500)
    outcomes = []
    for number, (size, batch_rows, range_bytes) in enumerate(
        [(1000, 1000, 1 << 20), (17, 7, 40_000), (100, 33, 5_000)]
    ):
        monkeypatch.setattr("continual.stream.ordered.RANGE_BYTES", range_bytes)
        source = write_rows(tmp_path / f"{number}.parquet", rows, row_group_size=size)
        other = new_registry(tmp_path / str(number))
        ingest(other, IngestConfig(batch_rows=batch_rows), source, domain="a")
        metadata = pq.ParquetFile(other.path("data/a/b1.parquet")).metadata
        outcomes.append((stored(other, "b1"), other.tasks()[0].sha256))
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        assert sizes == [64] * 7 + [2] if range_bytes > 5_000 else max(sizes) < 20  # bounded in bytes, too
    hashes = [row["row_hash"] for row in outcomes[0][0]]
    assert len(hashes) == 450
    assert hashes == sorted(hashes)
    assert outcomes[0] == outcomes[1] == outcomes[2]

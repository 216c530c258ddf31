"""What rows of other files lost because of the forgotten ones, and how they come back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.errors import NotFoundError
from tests.commands import Run
from tests.rows import Write, make_pairs
from tests.texts import FROM_BASE
from tests.workspaces import Once, make_workspace

FIRST, SECOND = make_pairs(60, seed=1), make_pairs(60, seed=2)
OVERLAPPING = {"first": FIRST, "second": [*FIRST[:30], *SECOND]}
"""Rows by domain: the second domain shares half of the rows of the first."""


@pytest.fixture
def overlapping(once: Once, tiny_model: Path, tmp_path: Path) -> Workspace:
    """A workspace that has learned two domains that overlap."""

    def make(folder: Path) -> None:
        workspace = make_workspace(folder / "w", tiny_model, FROM_BASE)
        for domain, rows in OVERLAPPING.items():
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{domain}.parquet")
            workspace.ingest(folder / f"{domain}.parquet")
            workspace.update(replay=0.0)

    return Workspace(shutil.copytree(once("overlapping", make) / "w", tmp_path / "w"))


def test_rows_that_a_later_domain_lost_are_counted_and_come_back(
    overlapping: Workspace, run: Run, write_pairs: Write
) -> None:
    (batch,) = overlapping.registry.batches("second")
    lost = batch.duplicates + batch.leaked
    assert lost == 30
    done = run("forget", "--domain", "first", "--rebuild", "--yes", "-w", overlapping.directory)
    assert done.code == 0, done.err
    out = " ".join(done.out.split())
    assert "Up to 30 rows of b2 were dropped before" in out
    assert "But b2 of second would have other rows" in out
    assert "equals one that never learned" not in out
    again = overlapping.ingest(write_pairs("second.parquet", OVERLAPPING["second"]))
    assert again.batch is not None
    assert overlapping.registry.batches("second")[1].kept == 30
    assert overlapping.doctor(full=True).healthy


def test_without_such_rows_a_rebuild_is_exact(averaged: Workspace) -> None:
    done = averaged.forget(domain="third")
    assert done.missed == {}
    rebuilt = averaged.forget(rebuild=True).rebuilt
    assert rebuilt is not None
    assert rebuilt.exact


def test_a_task_that_loses_a_query_had_made_a_batch_smaller(overlapping: Workspace) -> None:
    queries = overlapping.registry.task_folder(overlapping.registry.tasks()[0]) / "queries.parquet"

    done = overlapping.forget(query=str(pq.read_table(queries)["text"][0]))
    batches = {batch.id: batch.leaked for batch in overlapping.registry.batches() if batch.leaked}
    assert batches
    assert done.missed == batches


def test_the_file_can_be_ingested_again(averaged: Workspace, three_from_base: Path) -> None:
    file = three_from_base.parent / "third.parquet"
    row = make_pairs(60, seed=2)[0]
    held_out = averaged.registry.batches("third")[0].held_out
    done = averaged.forget(query=str(row["query"]))
    assert done.removed.get("rows", 0) + done.removed.get("task_queries", 0) == 1
    averaged.ingest(file)
    (_, again) = averaged.registry.batches("third")
    assert again.kept == 1
    assert again.rows_in == 60
    assert held_out
    assert averaged.ingest(file).batch == again.id  # it is whole now


def test_an_unknown_domain_is_said_before_anything_is_asked(averaged: Workspace, run: Run) -> None:
    done = run("forget", "--domain", "nope", "-w", averaged.directory)
    assert done.code == 2
    assert "There is no domain 'nope'" in done.err
    with pytest.raises(NotFoundError):
        averaged.forget(domain="nope", dry_run=True)


def test_a_dry_run_writes_nothing_to_the_workspace(
    averaged: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "a", "positive": "b"}\n')
    folders: list[Path] = []
    original = Path.mkdir

    def mkdir(path: Path, *args: object, **options: object) -> None:
        folders.append(path)
        original(path, *args, **options)  # type: ignore[arg-type]

    query = str(make_pairs(60, seed=2)[0]["query"])
    rows.write_text(f'{{"query": "{query}", "positive": "{make_pairs(60, seed=2)[0]["positive"]}"}}\n')
    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert averaged.forget(rows=rows, dry_run=True).asked == 1
    assert averaged.forget(query=query, dry_run=True).removed
    assert folders
    written = [folder for folder in folders if folder.is_relative_to(averaged.directory)]
    # Which files were read and found right is remembered where that can be written.
    assert [path for path in written if path != averaged.registry.root and "checked.json" not in path.name] == []

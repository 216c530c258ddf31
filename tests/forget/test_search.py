"""The search reports what it finds, and never stops a forget or removes what it can't be sure of."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.errors import DataError
from continual.forget import journal, run, scan
from continual.forget.scan import Search, search_folder
from continual.storage.locks import FORGETTING, UPDATE_LOCK, held
from tests.commands import Run
from tests.rows import make_pairs

QUERY = str(make_pairs(60, seed=2)[0]["query"])
"""A query of the domain "third"."""


def certificate(workspace: Workspace) -> dict[str, object]:
    (file,) = workspace.registry.path("certificates").glob("*.json")
    data: dict[str, object] = json.loads(file.read_text())
    return data


@pytest.fixture
def unreadable(averaged: Workspace, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A file beside the store and one in it that can't be read. The tests may run as root, who can read all."""
    files = (averaged.directory / "notes.txt", averaged.registry.path("tracking/notes.txt"))
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text(QUERY)
        file.chmod(0)
    if os.geteuid() == 0:
        original = scan.chunks

        def chunks(file: Path, size: int, overlap: int) -> Iterator[bytes]:
            if file.name == "notes.txt":
                raise PermissionError(13, "Permission denied", str(file))
            return original(file, size, overlap)

        monkeypatch.setattr(scan, "chunks", chunks)
    return files


def test_files_that_cannot_be_read_are_listed(averaged: Workspace, unreadable: tuple[Path, Path], run: Run) -> None:
    done = run("forget", "--query", QUERY, "--yes", "-w", averaged.directory)
    assert done.code == 0, done.err
    assert "tracking/notes.txt in .continual" in done.out
    assert "Not searched in the folder of the workspace, links and what can't be read: notes.txt" in done.out
    assert not averaged.registry.path(FORGETTING).exists()
    search = certificate(averaged)["search"]
    assert isinstance(search, dict)
    assert (search["unread"], search["beside"]["unread"]) == (["tracking/notes.txt"], ["notes.txt"])
    assert all(file.exists() for file in unreadable)
    Workspace(averaged.directory)


def test_the_users_files_are_searched_without_locks(averaged: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = run._beside, []

    def beside(*args: object) -> object:
        seen.append(averaged.registry.path(FORGETTING).exists() or held(averaged.registry.path(UPDATE_LOCK)))
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "_beside", beside)
    done = averaged.forget(query=QUERY)
    assert seen == [False]
    assert done.search is not None
    assert done.search.beside is not None
    assert done.search.beside.files == 1  # continual.toml


def test_ids_are_not_searched_for(averaged: Workspace, tmp_path: Path) -> None:
    rows = [dict(row, doc_id=str(number)) for number, row in enumerate(make_pairs(40, seed=7))]
    file = tmp_path / "numbered.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    averaged.ingest(file)
    folder = tmp_path / "beir"
    folder.mkdir()
    texts = [f"an unrelated document with number {number}" for number in range(40)]
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": str(number), "text": text}) + "\n" for number, text in enumerate(texts))
    )
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "1", "text": "which unrelated document?"}) + "\n")
    (folder / "qrels.tsv").write_text("1\t1\t1\n")
    averaged.add_task("ood", folder)
    lost = averaged.registry.path("lost/20260101/data/x/b9.parquet")
    lost.parent.mkdir(parents=True)
    pq.write_table(pa.table({"query": ["nothing of this"], "doc_id": ["3"]}), lost)
    done = averaged.forget(domain="numbered")
    assert done.shared == 0
    assert done.search is not None
    assert (done.search.found, done.search.cleared, done.search.short) == ([], [], [])
    assert lost.exists()
    assert averaged.doctor(full=True).healthy
    assert next(task for task in averaged.registry.tasks() if task.name == "ood").documents == 40


def test_a_short_text_is_compared_with_text_columns_only(averaged: Workspace, tmp_path: Path, run: Run) -> None:
    rows = [
        {"query": "accepted", "positive": "the order was taken", "status": "new"},
        *({"query": f"other {number}", "positive": f"rejected {number}", "status": "new"} for number in range(40)),
        {"query": "accepted", "positive": "", "status": "new"},
        {"query": "of another person", "positive": "", "status": "accepted"},
    ]
    (tmp_path / "states.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    averaged.ingest(tmp_path / "states.jsonl", holdout=0.0)
    lost = averaged.registry.path("lost/20260101/data/x/b9.parquet")
    lost.parent.mkdir(parents=True)
    pq.write_table(pa.table({"query": ["accepted"], "positive": ["something of another person"]}), lost)
    done = run("forget", "--query", "accepted", "--yes", "-w", averaged.directory)
    assert done.code == 0, done.err
    assert "perhaps by chance: lost/20260101/data/x/b9.parquet" in done.out
    assert lost.exists()
    rejects = averaged.registry.path(str(averaged.registry.batches("states")[0].rejects_path)).read_text()
    assert [json.loads(line)["data"]["query"] for line in rejects.splitlines()] == ["of another person"]


def test_a_hit_in_the_catalog_names_the_column(averaged: Workspace, tmp_path: Path) -> None:
    """A text can be found where forget changes nothing: that is said, after the rows are gone."""
    folder = tmp_path / "a query that names a folder"
    folder.mkdir()
    (folder / "named.jsonl").write_text(
        json.dumps({"query": "a query that names a folder", "positive": "its passage"}) + "\n"
    )
    averaged.ingest(folder / "named.jsonl", holdout=0.0)
    with pytest.raises(DataError, match=r"is also in catalog\.duckdb \(batches\.source\)"):
        averaged.forget(query="a query that names a folder")
    assert averaged.registry.batches("named")[0].kept == 0
    assert averaged.doctor(full=True).healthy


def test_a_store_on_another_disk_is_searched_and_changed(averaged: Workspace, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    for name in ("data", "vectors", "lost"):
        averaged.registry.path(name).mkdir(exist_ok=True)
        shutil.move(averaged.registry.path(name), disk / name)
        averaged.registry.path(name).symlink_to(disk / name)
    single = averaged.registry.path(averaged.registry.batches("first")[0].path)
    shutil.move(single, disk / "single.parquet")
    single.symlink_to(disk / "single.parquet")
    (disk / "lost" / "mine.txt").write_text(QUERY)
    (disk / "vectors" / "cache.txt").write_text(QUERY)
    with pytest.raises(DataError, match=r"is also in lost/mine\.txt"):
        averaged.forget(query=QUERY)
    assert not (disk / "vectors").exists()
    (disk / "lost" / "mine.txt").unlink()
    mine = [file for file in disk.rglob("*") if file.is_file() and not file.is_symlink()]
    assert len(mine) == 3
    first = str(pq.read_table(single)["query"][0])
    averaged.forget(query=first)
    assert single.is_symlink()
    assert first not in pq.read_table(disk / "single.parquet")["query"].to_pylist()
    assert averaged.doctor(full=True).healthy


def test_a_new_file_is_copied_to_another_disk(averaged: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(new: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(journal, "replace_path", across)
    averaged.forget(query=QUERY)
    assert averaged.doctor(full=True).healthy


def test_links_out_of_the_users_folder_are_named(tmp_path: Path) -> None:
    away, here = tmp_path / "away", tmp_path / "here"
    away.mkdir()
    (here / "deep").mkdir(parents=True)
    for folder in (away, here):
        (folder / "file.txt").write_text(QUERY)
    (here / "folder").symlink_to(away)
    (here / "deep" / "file").symlink_to(away / "file.txt")
    (here / "loop").symlink_to(here)
    (here / "broken").symlink_to(tmp_path / "nothing")
    (here / "damaged.parquet").write_bytes(b"PAR1 nothing")
    search = Search([QUERY])
    beside = search_folder(here, search)
    assert (beside.hits, beside.links) == (["file.txt"], ["deep/file", "folder"])
    assert beside.unread == ["damaged.parquet"]
    assert (beside.files, beside.bytes) == (1, len(QUERY) + 12)
    assert search_folder(here, search, follow=True).hits == ["deep/file", "file.txt", "folder/file.txt"]
    assert search_folder(here, search, without=[here / "folder", here / "deep"]).links == []

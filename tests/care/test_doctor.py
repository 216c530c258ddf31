"""Doctor finds missing and unknown files, leftovers and wrong records, and mends what is safe to mend."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from continual import Workspace
from continual.care.findings import Finding
from continual.errors import DataError, WorkspaceBusy
from continual.models.weights import weights_sha256
from continual.storage.locks import INGEST_LOCK, UPDATE_LOCK, exclusive
from tests.kills import interrupt_update
from tests.rows import Write, make_pairs

pytestmark = pytest.mark.faults


def wrong(workspace: Workspace) -> dict[str, Finding]:
    return {finding.where: finding for finding in workspace.doctor().findings if finding.severity != "note"}


def place(workspace: Workspace, path: str, text: str = "half") -> Path:
    file = workspace.registry.path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


LEFTOVERS = [
    "staging/rows.parquet",
    "data/first/.b2.parquet.0.partial",
    "versions/.v1.gone.partial",
    f"versions/.v3.{'0' * 8}-1-{'0' * 8}.partial",
    "scores/v2/.first.parquet.0.partial",
]
UNKNOWN = [
    "catalog.duckdb.bak",
    "data/first/b9.parquet",
    "tasks/else/corpus.parquet",
    "versions/v9/model.safetensors",
    "scores/v2/x.parquet",
]


@pytest.mark.parametrize("path", LEFTOVERS)
def test_leftovers_are_found_and_removed(learned: Workspace, path: str) -> None:
    file = place(learned, path)
    os.utime(file, (0, 0))  # of another machine, and long ago
    (found,) = wrong(learned).values()
    assert (found.severity, found.mend) == ("warning", "sweep")
    done = learned.doctor(fix=True)
    assert done.findings == []
    assert len(done.fixed) == 1
    assert not file.exists()


@pytest.mark.parametrize(
    ("note", "path"), [("update.announced", "adapters/v3/adapter.bin"), ("ingest.announced", "data/first/b3.parquet")]
)
def test_what_a_killed_command_had_announced_is_removed(learned: Workspace, note: str, path: str) -> None:
    file = place(learned, path)
    announced = "adapters/v3" if note == "update.announced" else path
    place(learned, note, f'["{announced}"]')
    (found,) = wrong(learned).values()
    assert (found.severity, found.mend) == ("warning", "sweep")
    assert learned.doctor(fix=True).healthy
    assert not file.exists()
    assert not learned.registry.path("lost").exists()


def test_what_another_machine_may_still_write_stays(learned: Workspace) -> None:
    file = place(learned, f"versions/.v3.{'0' * 8}-1-{'0' * 8}.partial")
    assert learned.doctor(fix=True).healthy
    assert file.exists()


@pytest.mark.parametrize("path", UNKNOWN)
def test_unknown_files_are_moved_aside(learned: Workspace, path: str) -> None:
    file = place(learned, path, "precious")
    (found,) = wrong(learned).values()
    assert (found.severity, found.mend) == ("warning", "aside")
    done = learned.doctor(fix=True)
    assert done.healthy
    assert [finding.where for finding in done.findings] == [".continual/lost"]
    assert not file.exists()
    (kept,) = (each for each in learned.registry.path("lost").rglob("*") if each.is_file())
    assert kept.read_text() == "precious"
    assert kept.as_posix().endswith(path)
    assert str(kept.relative_to(learned.registry.root)).split("/")[1] in done.fixed[0]


def test_the_files_of_a_running_or_interrupted_step_are_known(learned: Workspace) -> None:
    place(learned, "versions/v3/model.safetensors")
    with exclusive(learned.registry.root / UPDATE_LOCK, "train"):
        assert wrong(learned) == {}
        learned.registry.catalog.busy_seconds = 0.1
        with pytest.raises(WorkspaceBusy, match=r"waited 0\.1 s"):
            learned.doctor(fix=True)
    assert list(wrong(learned)) == [".continual/versions/v3"]


def test_an_update_after_an_older_catalog_moves_newer_versions_aside(
    learned: Workspace, write_pairs: Write, caplog: pytest.LogCaptureFixture
) -> None:
    learned.ingest(write_pairs("third.parquet", make_pairs(40, seed=3)))
    older = learned.registry.catalog.path.read_bytes()
    assert learned.update().passed
    weights = weights_sha256(learned.registry.path("versions/v3"))
    adapter = learned.registry.path("adapters/v3/adapter_model.safetensors").read_bytes()
    learned.registry.catalog.path.write_bytes(older)
    assert learned.update(seed=1).version.id == "v3"
    assert "versions/v3 is not recorded in the catalog" in caplog.text
    (snapshot,) = learned.registry.path("lost").glob("*/versions/v3")
    (kept,) = learned.registry.path("lost").glob("*/adapters/v3")
    assert weights_sha256(snapshot) == weights
    assert (kept / "adapter_model.safetensors").read_bytes() == adapter
    assert weights_sha256(learned.registry.path("versions/v3")) != weights


def test_what_is_missing_is_found_and_rebuilt(learned: Workspace) -> None:
    learned.registry.path("versions/v2/tokenizer.json").unlink()
    learned.registry.path("adapters/v1/adapter_config.json").unlink()
    found = wrong(learned)
    assert {where: each.what for where, each in found.items()} == {
        ".continual/versions/v2/tokenizer.json": "is missing",
        ".continual/adapters/v1/adapter_config.json": "is missing",
    }
    done = learned.doctor(fix=True)  # v2 needs the adapter of v1
    assert len(done.findings) == 2
    assert "v2 could not be rebuilt" in done.fixed[0]


def test_damaged_scores_are_computed_again(learned: Workspace) -> None:
    before = learned.registry.scores()["v2", "first"]
    learned.registry.path(str(before.path)).write_bytes(b"x")
    done = learned.doctor(fix=True)
    assert done.healthy
    assert "v2 on first" in done.fixed[0]
    learned.evaluate("v2", suite="step")
    assert learned.registry.scores()["v2", "first"] == before


def test_damaged_snapshots_are_rebuilt_oldest_first(learned: Workspace) -> None:
    for name in ("v1", "v2"):
        learned.registry.path(f"versions/{name}/model.safetensors").write_bytes(b"x")
    done = learned.doctor(fix=True)
    assert done.findings == []
    assert [text.split(";")[0] for text in done.fixed] == [f"Rebuilt the snapshot of {name}" for name in ("v1", "v2")]
    for name in ("v1", "v2"):
        assert weights_sha256(learned.registry.path(f"versions/{name}")) == learned.version(name).sha256


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ("DELETE FROM versions WHERE id = 'v1'", "version v2", "names the version v1"),
        ("DELETE FROM batches WHERE id = 'b1'", "version v1", "names the batch b1"),
        ("UPDATE alias_events SET version = 'v7'", "alias current", "names the version v7"),
        ("UPDATE batches SET kept = kept + 1 WHERE id = 'b1'", ".continual/data/first/b1.parquet", "were recorded"),
        (
            "UPDATE tasks SET queries = 1 WHERE name = 'first'",
            ".continual/tasks/first/queries.parquet",
            "1 were recorded",
        ),
        ("UPDATE scores SET score = score + 1 WHERE version = 'v2'", ".continual/scores/v2/first.parquet", "points"),
    ],
)
def test_records_that_contradict_each_other(learned: Workspace, change: str, where: str, what: str) -> None:
    with learned.registry.catalog.transaction() as connection:
        connection.execute(change)
    found = wrong(learned)
    assert found[where].severity == "error"
    assert what in found[where].what


def test_too_little_space_is_a_warning(learned: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    (found,) = wrong(learned).values()
    assert found.severity == "warning"
    assert "MB free" in found.what


def test_an_interrupted_update_is_no_finding_unless_its_checkpoint_is_damaged(
    learned: Workspace, write_pairs: Write
) -> None:
    learned.ingest(write_pairs("third.parquet", make_pairs(40, seed=3)))
    interrupt_update(learned, "evaluating", 1)
    assert learned.registry.path("versions/v3").is_dir()
    file = learned.registry.path("runs/v3/checkpoint.safetensors")
    assert learned.doctor(full=True).healthy
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (found,) = [finding for finding in learned.doctor(full=True).findings if finding.severity == "error"]
    assert (found.where, found.affects) == (".continual/runs/v3/checkpoint.safetensors", "the interrupted training")
    file.write_bytes(whole)
    assert learned.update(resume=True).passed
    assert learned.doctor(full=True).healthy


def test_mending_waits_for_an_ingest(learned: Workspace) -> None:
    """A command that writes waits for another; `--fix` ended at once, and named itself."""
    lock, held = learned.registry.root / INGEST_LOCK, threading.Event()

    def ingest() -> None:
        with exclusive(lock, "ingest"):
            held.set()
            waiting.wait(60)

    class Say(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waiting for `continual ingest`" in record.getMessage():
                waiting.set()

    waiting, handler, thread = threading.Event(), Say(), threading.Thread(target=ingest)
    logging.getLogger("continual").addHandler(handler)
    thread.start()
    held.wait(60)
    assert learned.doctor(fix=True).healthy
    thread.join()
    logging.getLogger("continual").removeHandler(handler)
    assert waiting.is_set()


def test_a_file_that_was_added_to_a_version_is_damage(learned: Workspace, tmp_path: Path) -> None:
    """Libraries look for files by their names: this one changes the vocabulary."""
    file = place(learned, "versions/v0/added_tokens.json", "{}")
    (found,) = wrong(learned).values()
    assert (found.severity, found.mend) == ("error", "aside")
    assert found.affects.startswith("version v0")
    with pytest.raises(DataError, match=r"added_tokens\.json.* was added"):
        learned.export("v0", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert learned.doctor(fix=True).healthy
    assert not file.exists()
    learned.export("v0", tmp_path / "out")


def test_a_link_that_was_added_to_a_version_is_damage(learned: Workspace, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    learned.registry.path("versions/v1/2_Dense").symlink_to(tmp_path / "elsewhere")
    assert list(wrong(learned)) == [".continual/versions/v1/2_Dense"]


@pytest.mark.parametrize("name", [".gitattributes", ".DS_Store", ".cache/huggingface/x.lock", "__pycache__/x.pyc"])
def test_hidden_files_in_a_version_stay_and_are_not_shipped(learned: Workspace, tmp_path: Path, name: str) -> None:
    file = place(learned, f"versions/v0/{name}")
    found = learned.doctor()
    assert found.healthy
    said = [finding.where for finding in found.findings]
    top = name.split("/")[0]
    assert said == ([] if top == "__pycache__" else [f".continual/versions/v0/{top}"])
    assert learned.doctor(fix=True, full=True).fixed == []
    assert file.exists()
    learned.export("v0", tmp_path / "out")
    assert not (tmp_path / "out" / top).exists()

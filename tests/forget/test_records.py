"""What forgetting means for ids, aliases and readers of the records."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual import Workspace
from continual.errors import DataError, WorkspaceBusy
from continual.forget import journal
from continual.registry import Registry
from continual.storage.files import publish
from continual.storage.locks import FORGETTING
from tests.kills import PROCESSES
from tests.rows import Write, make_pairs


def test_the_id_of_a_forgotten_batch_is_not_used_again(averaged: Workspace, write_pairs: Write) -> None:
    assert [batch.id for batch in averaged.registry.batches()] == ["b1", "b2", "b3"]
    averaged.forget(domain="third")
    averaged.ingest(write_pairs("fourth.parquet", make_pairs(40, seed=9)))
    assert [batch.id for batch in averaged.registry.batches()] == ["b1", "b2", "b4"]
    averaged.forget(domain="fourth")
    averaged.forget(domain="first")
    averaged.ingest(write_pairs("fourth.parquet", make_pairs(40, seed=9)))
    assert [batch.id for batch in averaged.registry.batches()] == ["b2", "b5"]


def test_a_rollback_after_a_rebuild_skips_what_was_removed(averaged: Workspace) -> None:
    averaged.forget(domain="second", rebuild=True)
    assert averaged.version().id == "v4"
    assert averaged.rollback().version == "v1"
    assert averaged.registry.before("current") == "v0"


def test_a_rollback_to_a_version_that_was_current_twice(averaged: Workspace) -> None:
    averaged.rollback()
    averaged.promote("v3")
    averaged.rollback()
    averaged.promote("v1")
    averaged.promote("v3")
    averaged.forget(domain="third", rebuild=True)
    assert averaged.version().id == "v2"
    assert averaged.registry.before("current") == "v1"


def test_a_file_that_is_being_replaced_is_not_called_damaged(
    averaged: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = averaged.registry
    (batch,) = registry.batches("first")
    registry.path(FORGETTING).mkdir()
    with publish(registry.path(batch.path)) as partial:
        partial.write_bytes(b"new")
    with pytest.raises(WorkspaceBusy, match="while it was read"):
        registry.rows_file(batch)
    registry.path(FORGETTING).rmdir()
    with pytest.raises(DataError, match="was damaged or changed"):
        registry.rows_file(batch)
    # A forget that ended between the two reads of a command.
    stale = registry.digests.recorded()
    registry.digests.record(batch.path)
    new = registry.digests.recorded
    answers = iter([stale])
    monkeypatch.setattr(registry.digests, "recorded", lambda *given: next(answers, None) or new(*given))
    with pytest.raises(WorkspaceBusy, match="while it was read"):
        registry.rows_files([batch], full=True)


def test_rows_of_a_domain_that_went_away_are_not_called_missing(averaged: Workspace) -> None:
    (batch,) = averaged.registry.batches("third")
    task = next(task for task in averaged.registry.tasks() if task.name == "third")
    averaged.forget(domain="third")
    with pytest.raises(WorkspaceBusy, match="while it was read"):
        averaged.registry.rows_file(batch)
    with pytest.raises(WorkspaceBusy, match="while it was read"):
        averaged.registry.task_folder(task)


def read_catalog(root: Path) -> None:
    Registry(root, busy_seconds=0.0).batches()


def test_no_process_reads_records_while_files_are_replaced(
    averaged: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = []
    original = journal.replace_path

    def replace(new: Path, target: Path) -> None:
        reader = PROCESSES.Process(target=read_catalog, args=(averaged.registry.root,))
        reader.start()
        reader.join()
        codes.append(reader.exitcode)
        original(new, target)

    query = str(make_pairs(60, seed=2)[0]["query"])
    monkeypatch.setattr(journal, "replace_path", replace)
    averaged.forget(query=query)
    assert codes
    assert 0 not in codes

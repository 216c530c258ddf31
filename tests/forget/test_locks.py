"""Nobody works on rows that are being forgotten: a forget has every lock before it changes something."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from continual import Workspace
from continual.errors import WorkspaceBusy
from continual.forget import journal
from continual.storage.locks import FORGETTING, INGEST_LOCK, UPDATE_LOCK
from continual.versions.build import share_snapshots
from tests.rows import make_pairs
from tests.texts import occurrences, texts_of


def impatient(directory: Path) -> Workspace:
    with (directory / "continual.toml").open("a") as settings:
        settings.write("[catalog]\nbusy_seconds = 0.2\n")
    return Workspace(directory)


def stop(*args: object) -> None:
    raise KeyboardInterrupt


def killed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget a domain, and stop after the intent is published."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(journal, "erase", stop)
        workspace.forget(domain="second")
    assert workspace.registry.path(FORGETTING).is_dir()


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_reader_of_the_models_stops_a_forget_before_it_begins(averaged: Workspace, rebuild: bool) -> None:
    if rebuild:
        averaged.forget(domain="third")
    workspace = impatient(averaged.directory)
    domains, versions = workspace.registry.domains(), workspace.registry.versions()
    options = {"rebuild": True} if rebuild else {"domain": "third"}
    with share_snapshots(workspace.registry), pytest.raises(WorkspaceBusy):
        workspace.forget(**options)
    assert not workspace.registry.path(FORGETTING).exists()
    assert (workspace.registry.domains(), workspace.registry.versions()) == (domains, versions)
    done = workspace.forget(**options)
    if rebuild:
        assert done.rebuilt is not None
    else:
        assert set(done.versions) == {"v3"}


WRITERS: dict[str, Callable[[Workspace, Path], object]] = {
    "update": lambda workspace, file: workspace.update(),
    "ingest": lambda workspace, file: workspace.ingest(file),
    "doctor": lambda workspace, file: workspace.doctor(fix=True),
    "gc": lambda workspace, file: workspace.gc(),
}


def test_a_writer_that_was_open_before_is_refused(averaged: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    file = averaged.directory.parent / "second.parquet"
    shutil.copy(averaged.registry.rows_file(averaged.registry.batches("second")[0]), file)
    opened = impatient(averaged.directory)
    killed(averaged, monkeypatch)
    for writer in WRITERS.values():
        with pytest.raises(WorkspaceBusy, match="was stopped before its end"):
            writer(opened, file)
    # A reader keeps the next command from finishing: it may read, and not write.
    with share_snapshots(opened.registry):
        other = Workspace(averaged.directory)
        assert other.registry.path(FORGETTING).is_dir()
        for name in (UPDATE_LOCK, INGEST_LOCK):
            with pytest.raises(WorkspaceBusy, match="Run the command again"), other.registry.lock(name, "train"):
                pass
    done = Workspace(averaged.directory)
    assert not done.registry.path(FORGETTING).exists()
    assert occurrences(done.registry.root, texts_of(make_pairs(60, seed=1))) == {}
    with done.registry.lock(UPDATE_LOCK, "train"):
        pass


def test_a_forget_that_cannot_be_finished_leaves_readers_alone(
    averaged: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    killed(averaged, monkeypatch)

    def denied(*args: object) -> None:
        raise PermissionError(13, "Permission denied", "data/second/b2.parquet")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "remove", denied)
        workspace = Workspace(averaged.directory)
        assert workspace.version().id == "v3"
        assert "could not be finished" in caplog.text
        for options in ({"domain": "first"}, {"rebuild": True}):
            with pytest.raises(WorkspaceBusy, match="was stopped before its end"):
                workspace.forget(**options)
        with pytest.raises(WorkspaceBusy, match="was stopped before its end"):
            workspace.update()
    assert [domain.name for domain in Workspace(averaged.directory).registry.domains()] == ["first", "third"]

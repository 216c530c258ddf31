"""Updates on a tiny model: what a step records, refuses and leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from continual import Workspace
from continual.errors import (
    DataError,
    InputError,
    NotFoundError,
    NothingToDoError,
    WorkspaceBusy,
)
from continual.models.weights import weights_sha256
from continual.storage.locks import exclusive
from tests.rows import Write, make_pairs
from tests.workspaces import SETTINGS


def test_two_steps_from_an_empty_folder(learned: Workspace) -> None:
    root, first, second = learned.versions()
    assert [version.status for version in (root, first, second)] == ["root", "accepted", "accepted"]
    assert second.parent == first.id
    assert learned.version().id == second.id == "v2"
    assert first.provenance.replay == []
    (window,) = second.provenance.replay
    first_rows = first.provenance.new[0].rows
    assert window.domain == "first"
    assert window.rows == round(0.5 * first_rows)
    assert second.pairs_trained == second.provenance.new[0].rows + window.rows
    assert second.joint_pairs == first_rows + second.provenance.new[0].rows
    for version in (root, first, second):
        assert version.sha256 == weights_sha256(learned.registry.path(version.path))
    assert len({version.sha256 for version in (root, first, second)}) == 3
    scores = learned.registry.scores()
    assert set(scores) == {(v, t) for v in ("v0", "v1", "v2") for t in ("first", "second")}
    assert not list(learned.registry.path("runs").glob("v*"))


def test_the_same_seed_gives_the_same_weights(workspace: Workspace, write_pairs: Write, tmp_path: Path) -> None:
    source = write_pairs("a.parquet", make_pairs(60))
    workspace.ingest(source)
    one = workspace.update(seed=3).version
    workspace.rollback()
    two = workspace.update(seed=3).version
    workspace.rollback()
    three = workspace.update(seed=4).version
    assert one.sha256 == two.sha256 != three.sha256


def test_nothing_new_is_said_plainly(learned: Workspace) -> None:
    with pytest.raises(NothingToDoError, match="nothing new to learn"):
        learned.update()
    with pytest.raises(NotFoundError, match="Did you mean 'first'"):
        learned.update(domains=["frist"])
    with pytest.raises(NothingToDoError, match="nothing to resume"):
        learned.update(resume=True)


def test_a_refused_version_stays_a_candidate(workspace: Workspace, write_pairs: Write) -> None:
    path = workspace.directory / "continual.toml"
    path.write_text(SETTINGS.replace("min_gain = -100", "min_gain = 99"))
    workspace = Workspace(workspace.directory)
    workspace.ingest(write_pairs("a.parquet", make_pairs(60)))
    step = workspace.update()
    assert not step.passed
    assert step.version.verdict is not None
    assert step.version.verdict.reasons
    assert workspace.version().id == "v0"
    assert workspace.status().domains[0].learned == 0
    workspace.promote(step.version.id)
    assert workspace.version().id == "v1"
    assert workspace.status().domains[0].learned == workspace.status().domains[0].rows
    workspace.rollback()
    assert workspace.version().id == "v0"
    with pytest.raises(InputError, match="v0 is the first current version"):
        workspace.rollback()


@pytest.mark.release
@pytest.mark.slow
def test_running_mean_goes_from_the_base_and_remembers(workspace: Workspace, write_pairs: Write) -> None:
    weights = []
    for number in range(3):
        workspace.ingest(write_pairs(f"d{number}.parquet", make_pairs(50, seed=number)))
        step = workspace.update(merge="running-mean")
        assert step.spec.provenance.start == "v0"
        weights.append(step.spec.provenance.weight)
    np.testing.assert_allclose(weights, [1, 1 / 2, 1 / 3])
    with pytest.raises(InputError, match="trained from the root base"):
        workspace.plan(merge="running-mean", start="current")


def test_an_update_without_any_task_is_made_and_said_to_be_unjudged(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(40)), holdout=0.0)
    step = workspace.update()
    assert step.passed
    assert step.scores == {}


def test_a_step_that_cannot_be_trained_leaves_nothing_behind(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(1)), holdout=0.0)
    with pytest.raises(NothingToDoError, match="a single row"):
        workspace.update()
    assert workspace.status().interrupted is None
    assert not list(workspace.registry.path("runs").glob("v*"))
    workspace.ingest(write_pairs("b.parquet", make_pairs(40, seed=1)), holdout=0.0)
    assert workspace.update().passed


class Meddler:
    """Moves `current` while an update evaluates."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.label, self.moved = workspace, "", False

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label = label

    def advance(self, count: int) -> None:
        if self.label.startswith("evaluating") and not self.moved:
            self.moved = True
            self.workspace.rollback("v1 is bad")

    def finish(self) -> None:
        pass


@pytest.mark.slow
def test_a_rollback_during_an_update_is_not_overruled(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(60)))
    workspace.update()
    workspace.ingest(write_pairs("b.parquet", make_pairs(60, seed=1)))
    step = workspace.update(progress=Meddler(workspace))
    assert step.passed
    assert step.current == workspace.version().id == "v0"


def test_what_killed_updates_left_is_swept(learned: Workspace) -> None:
    left = [learned.registry.path(path) for path in ("versions/.v9.ab.partial", "adapters/.v9.ab.partial", "runs/v2")]
    for path in left:
        path.mkdir(parents=True)
    with pytest.raises(NothingToDoError):
        learned.update()
    assert not any(path.exists() for path in left)


@pytest.mark.slow
def test_scores_of_other_settings_are_made_anew(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(60)))
    workspace.update()
    (workspace.directory / "continual.toml").write_text(SETTINGS + "[eval]\nmax_length = 8\n")
    workspace = Workspace(workspace.directory)
    workspace.ingest(write_pairs("b.parquet", make_pairs(60, seed=1)))
    workspace.update()
    settings = {key: score.settings for key, score in workspace.registry.scores().items()}
    assert set(settings.values()) == {"max_length=8"}
    assert len(settings) == 3 * 2


def test_a_running_mean_does_not_forget_what_another_rule_learned(learned: Workspace, write_pairs: Write) -> None:
    learned.ingest(write_pairs("c.parquet", make_pairs(40, seed=2)))
    with pytest.raises(InputError, match="would lose what v2 has learned"):
        learned.plan(merge="running-mean")


def test_two_updates_at_once_are_refused(workspace: Workspace) -> None:
    workspace.registry.catalog.busy_seconds = 0
    with exclusive(workspace.registry.root / "update.lock", "update"), pytest.raises(WorkspaceBusy):
        workspace.update()


@pytest.mark.faults
def test_lost_files_are_named_before_anything_is_trained(
    learned: Workspace, write_pairs: Write, tmp_path: Path
) -> None:
    task = learned.registry.tasks()[0]
    folder = learned.registry.path(task.path)
    shutil.copytree(folder, tmp_path / "ood")
    learned.add_task("ood", tmp_path / "ood")
    learned.ingest(write_pairs("c.parquet", make_pairs(40, seed=3)))
    (learned.registry.path("tasks/ood") / "corpus.parquet").unlink()
    with pytest.raises(DataError, match=r"corpus.parquet.*continual task add ood"):
        learned.update()
    with pytest.raises(DataError, match=r"corpus.parquet.*continual task add ood"):
        learned.ingest(write_pairs("d.parquet", make_pairs(40, seed=4)))
    assert learned.status().interrupted is None
    assert not learned.add_task("ood", tmp_path / "ood")[0].unchanged  # it is put back
    assert learned.add_task("ood", tmp_path / "ood")[0].unchanged
    rows = learned.registry.path(learned.registry.batches()[0].path)
    rows.rename(rows.with_suffix(".away"))
    with pytest.raises(DataError, match="is missing"):
        learned.update()
    rows.with_suffix(".away").rename(rows)
    assert learned.update().passed


def test_calls_that_contradict_themselves_are_refused(learned: Workspace) -> None:
    with pytest.raises(InputError, match="Choose one"):
        learned.update(resume=True, restart=True)
    with pytest.raises(InputError, match=r"takes no parameters.*merge --list"):
        learned.plan(merge="interpolate", settings={"merge": {"parameters": {"weight": 0.3}}})


def test_a_running_update_is_not_called_interrupted(learned: Workspace, write_pairs: Write) -> None:
    learned.ingest(write_pairs("c.parquet", make_pairs(40, seed=3)))
    seen: list[tuple[str | None, str | None]] = []

    class Watch:
        def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
            if label == "training":
                status = learned.status()
                seen.append((status.running, status.interrupted))

        def advance(self, count: int) -> None: ...
        def finish(self) -> None: ...

    made = learned.update(progress=Watch()).version.id
    assert seen == [(made, None)]
    assert (learned.status().running, learned.status().interrupted) == (None, None)

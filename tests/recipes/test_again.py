"""Recipes that run again: what is kept, resumed, or made again."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from continual import Workspace
from continual.errors import (
    DataError,
    WorkspaceBusy,
)
from continual.progress import Silent
from continual.storage.locks import UPDATE_LOCK, exclusive
from tests.kills import die, exit_code
from tests.recipes.stock import ingest


@pytest.mark.release
@pytest.mark.slow
def test_phased_training_again_after_a_cluster_changed_trains_that_cluster_alone(
    workspace: Workspace, tmp_path: Path
) -> None:
    first = workspace.train("phased")
    ingest(workspace, tmp_path, "small", 10, 5, holdout=0.0)
    second = workspace.train("phased")
    kept = {each.name for each in second.phases if each.again}
    assert kept == {"warm-up", "learn-big"}
    versions = [{each.name: each.version for each in done.phases} for done in (first, second)]
    assert all(versions[0][name] == versions[1][name] for name in kept)
    assert second.version.id != first.version.id


@pytest.mark.release
@pytest.mark.slow
def test_a_warm_up_is_kept_as_long_as_its_clusters_are(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, tmp_path, "third", 30, 3, holdout=0.0)
    file = tmp_path / "clusters.toml"

    def phases(clusters: str, **call: object) -> dict[str, str | None]:
        file.write_text(f"[clusters]\n{clusters}\n")
        plan = workspace.plan_training("phased", clusters=file, **call)  # type: ignore[arg-type]
        return {phase.name: phase.made for phase in plan.phases}

    file.write_text('[clusters]\nx = ["big", "small"]\ny = ["third"]\n')
    made = {each.name: each.version for each in workspace.train("phased", clusters=file).phases}
    assert phases('x = ["big", "small"]\ny = ["third"]') == made
    # The same names, other clusters; and a domain of the warm-up that is not asked for.
    assert set(phases('x = ["big"]\ny = ["small", "third"]').values()) == {None}
    fewer = phases('x = ["big", "small"]\ny = ["third"]', domains=["big", "third"])
    assert set(fewer.values()) == {None}
    ingest(workspace, tmp_path, "fourth", 30, 4, holdout=0.0)
    grown = phases('x = ["big", "small", "fourth"]\ny = ["third"]')
    assert {name: version for name, version in grown.items() if version} == {
        name: made[name] for name in ("warm-up", "learn-y")
    }


@pytest.mark.slow
def test_a_phase_that_cannot_be_built_again_is_made_again(workspace: Workspace) -> None:
    done = workspace.train("specialists")
    versions = {each.name: workspace.version(each.version) for each in done.phases}
    for name, version in versions.items():
        shutil.rmtree(workspace.registry.path(version.path))
        if name == "learn-small":
            shutil.rmtree(workspace.registry.path(str(version.adapter)))
    again = workspace.train("specialists")
    assert [each.again for each in again.phases] == [True, False, False]
    assert again.version.sha256 == done.version.sha256


def test_a_damaged_phase_is_not_trained_on_from(workspace: Workspace) -> None:
    first = workspace.train("sequential", domains=["big"])
    (file,) = workspace.registry.path(first.version.path).glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="was damaged or changed"):
        workspace.train("sequential")


def test_one_job_at_a_time_and_the_other_is_named(workspace: Workspace) -> None:
    workspace.registry.catalog.busy_seconds = 0
    lock = workspace.registry.root / UPDATE_LOCK
    with exclusive(lock, "train"), pytest.raises(WorkspaceBusy, match="`continual train` is already running"):
        workspace.update()
    with exclusive(lock, "gc"), pytest.raises(WorkspaceBusy, match="`continual gc` is already running"):
        workspace.train("joint")


class DiesInTheSecondTraining(Silent):
    trainings = 0

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.trainings += label == "training"
        if self.trainings == 2:
            die()


def train_boom(directory: Path) -> None:
    Workspace(directory).train("boom", options={"ratios": "0.5,1"}, progress=DiesInTheSecondTraining())


@pytest.mark.kill
def test_a_killed_recipe_goes_on_with_the_phase_that_it_was_in(workspace: Workspace, tmp_path: Path) -> None:
    assert exit_code(train_boom, workspace.directory) == -signal.SIGKILL
    (left,) = workspace.versions()[1:]
    for lost in ("adapters/v9", "versions/v9"):  # published, and not recorded
        workspace.registry.path(lost).mkdir()
    done = workspace.train("boom", options={"ratios": "0.5,1"})
    assert [each.again for each in done.phases] == [True, False, False]
    assert done.phases[0].version == left.id
    assert list(workspace.registry.path("runs").glob("train-*")) == []
    for folder in ("adapters", "versions"):
        assert not workspace.registry.path(f"{folder}/v9").exists()


class Interrupted:
    """A progress bar that is interrupted in its third batch, or else remembers where trainings went on."""

    def __init__(self, *, after: int | None = 3) -> None:
        self.left, self.label, self.began = after, "", list[int]()

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label = label
        if label == "training":
            self.began.append(done)

    def advance(self, count: int) -> None:
        if self.left is not None and self.label == "training":
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    def finish(self) -> None:
        pass


@pytest.mark.slow
def test_a_recipe_goes_on_though_another_ran_in_between(workspace: Workspace) -> None:
    def begun() -> list[str]:
        return sorted(path.name for path in workspace.registry.path("runs").glob("train-*"))

    with pytest.raises(KeyboardInterrupt):
        workspace.train("joint", progress=Interrupted())
    (checkpoint,) = begun()
    workspace.train("boom", options={"ratios": "0.5"})
    workspace.update(domains=["big"])
    assert workspace.gc(dry_run=True).checkpoints == 1
    assert begun() == [checkpoint]
    seen = Interrupted(after=None)
    done = workspace.train("joint", progress=seen)
    assert len(seen.began) == 1
    assert seen.began[0] >= 2 * 16  # two batches were done at least
    assert [each.resumed for each in done.phases] == [3]
    assert begun() == []
    workspace.registry.path(f"runs/{checkpoint}").mkdir()  # of one that was killed after it was recorded
    workspace.train("boom", options={"ratios": "0.5"})
    assert begun() == []
    with pytest.raises(KeyboardInterrupt):
        workspace.train("naive", progress=Interrupted())
    assert workspace.gc().checkpoints == len(begun()) + 1 == 1

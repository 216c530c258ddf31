"""Trainings in other processes: the same weights, retries, one bar, and one error where the training has one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from continual import Workspace
from continual.errors import InputError, NothingToDoError, ResourceError
from continual.executors.choose import open_executor, parse_executor
from continual.executors.tally import Counter, Tally
from continual.progress import SILENT
from continual.recipes.jobs import run_job
from continual.recipes.result import RecipeResult
from tests.executors.work import Seen, count_up, die_always, die_once, fail, never_end, note
from tests.kills import PROCESSES

OPTIONS = {"ratios": "0.5,1"}
RAY = pytest.param("ray", marks=pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray isn't installed"))
EXECUTORS = ["processes:2", RAY]


@pytest.mark.parametrize(
    "text", ["", "process:2", "processes", "processes:0", "processes:-1", "ray:", "ray://", "rays"]
)
def test_an_unknown_executor_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(InputError, match="processes:N") as raised:
        parse_executor(text)
    assert repr(text) in str(raised.value)


def test_the_forms_are_read() -> None:
    assert parse_executor("processes:3") == ("processes", "3")
    assert parse_executor("ray") == ("ray", "")
    assert parse_executor("ray://head:10001") == ("ray", "ray://head:10001")


def test_a_plan_refuses_an_unknown_executor_too(run, no_steps: Path) -> None:
    done = run("train", "--recipe", "joint", "--plan", "--executor", "process:2", "-w", no_steps)
    assert done.code == 2
    assert "Did you mean 'processes'?" in done.err


def test_a_launcher_and_an_executor_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="torchrun"), open_executor("processes:2", SILENT):
        pass


def test_the_bar_adds_up_and_counts_nothing_twice() -> None:
    seen = Seen()
    tally = Tally(seen, [10, 20])
    tally.tell(0, 4)
    tally.tell(1, 8)
    tally.tell(1, 6)  # started again from its checkpoint
    tally.tell(1, 9)
    tally.complete(0)
    tally.complete(1)
    tally.finish()
    assert seen.bars == [("training 2 models", 30, [4, 8, 1, 6, 11])]


def test_only_the_bar_of_the_training_counts() -> None:
    told: list[int] = []
    counter = Counter(told.append)
    for label, done in (("tokenising", 0), ("training", 7)):
        counter.start(label, 20, "pairs", done)
        counter.advance(3)
        counter.finish()
    assert told == [7]  # and not again within a fifth of a second


@pytest.mark.parametrize("executor", EXECUTORS)
def test_results_come_in_order_under_one_bar(executor: str, tmp_path: Path) -> None:
    seen = Seen()
    with open_executor(executor, seen) as execute:
        found = list(execute(count_up, [(tmp_path, place) for place in range(3)], [4, 4, 4]))
    assert [place for place, _, _ in found] == [0, 1, 2]
    assert os.getpid() not in {pid for _, pid, _ in found}
    assert {threads for _, _, threads in found} == {int(os.environ["OMP_NUM_THREADS"])}
    assert [(label, total, sum(counts)) for label, total, counts in seen.bars] == [("training 3 models", 12, 12)]


@pytest.mark.usefixtures("started_at_once")
def test_the_largest_job_starts_first(tmp_path: Path) -> None:
    with open_executor("processes:1", SILENT) as execute:
        list(execute(note, [(tmp_path / "order", name) for name in "abc"], [10, 30, 20]))
    assert (tmp_path / "order").read_text() == "bca"


@pytest.mark.usefixtures("started_at_once")
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_job_starts_again_when_its_process_dies(executor: str, tmp_path: Path) -> None:
    with open_executor(executor, SILENT) as execute:
        assert list(execute(die_once, [tmp_path / "one", tmp_path / "two"], [1, 1])) == ["one", "two"]
        with pytest.raises(ResourceError, match=r"died 3 times.*The same command continues"):
            list(execute(die_always, [tmp_path / "three"], [1]))
    assert len((tmp_path / "three").read_text()) == 3


@pytest.mark.usefixtures("started_at_once")
@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_error_is_that_of_the_training(executor: str, tmp_path: Path) -> None:
    with open_executor(executor, SILENT) as execute:
        with pytest.raises(NothingToDoError, match=r"^no rows$"):
            list(execute(fail, ["ours"], [1]))
        with pytest.raises(ZeroDivisionError):
            list(execute(fail, ["a bug"], [1]))


@pytest.mark.usefixtures("started_at_once")
@pytest.mark.slow
def test_an_interrupt_ends_all_processes(tmp_path: Path) -> None:
    def interrupted() -> Iterator[None]:
        with open_executor("processes:2", SILENT) as execute:
            results = execute(never_end, [tmp_path / "one", tmp_path / "two"], [1, 1])
            signal.signal(signal.SIGALRM, _when_started(tmp_path))
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            yield from results

    with pytest.raises(KeyboardInterrupt):
        list(interrupted())
    for file in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


def _when_started(folder: Path):
    """Interrupt this process once both jobs have written their process ids."""

    def check(number: int, frame: object) -> None:
        if sum(bool(file.read_text()) for file in folder.iterdir()) == 2:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    return check


@pytest.mark.parametrize("executor", [RAY])
@pytest.mark.slow
def test_boom_has_the_weights_of_one_process(
    workspace: Workspace, stocked: Path, tmp_path: Path, executor: str
) -> None:
    shutil.copytree(stocked, tmp_path / "other")
    seen = Seen()
    elsewhere = Workspace(tmp_path / "other").train("boom", options=OPTIONS, executor=executor, progress=seen)
    check_same(workspace, elsewhere)
    assert [(total, sum(counts)) for label, total, counts in seen.bars if label.startswith("training")] == [(120, 120)]


def check_same(workspace: Workspace, elsewhere: RecipeResult) -> None:
    """Check that a run of the recipe elsewhere gave what one process gives."""
    here = workspace.train("boom", options=OPTIONS)
    assert elsewhere.version.sha256 == here.version.sha256
    assert (elsewhere.cost.pairs, elsewhere.cost.tokens) == (here.cost.pairs, here.cost.tokens)
    assert elsewhere.cost.seconds > 0
    trained = [version.provenance.training for version in workspace.versions() if version.provenance.training]
    assert [training.threads for training in trained] == [int(os.environ["OMP_NUM_THREADS"])] * 2


@pytest.mark.release
@pytest.mark.slow
def test_a_killed_worker_changes_no_weights(workspace: Workspace, stocked: Path, tmp_path: Path) -> None:
    from continual.executors import processes

    shutil.copytree(stocked, tmp_path / "other")
    killed: list[int] = []

    class Killer(Seen):
        def advance(self, count: int) -> None:
            super().advance(count)
            if not killed and self.bars[-1][0].startswith("training"):
                killed.append(workers[0].process.pid)
                os.kill(killed[0], signal.SIGKILL)

    workers: list[processes._Worker] = []
    start = processes._Worker.__init__

    def remember(self: processes._Worker, *args: object) -> None:
        start(self, *args)  # type: ignore[arg-type]
        workers.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes._Worker, "__init__", remember)
        other = Workspace(tmp_path / "other")
        elsewhere = other.train("boom", options=OPTIONS, executor="processes:2", progress=Killer())
    assert killed
    check_same(workspace, elsewhere)


@pytest.mark.slow
def test_conflicts_are_those_of_one_process(workspace: Workspace, stocked: Path, tmp_path: Path) -> None:
    shutil.copytree(stocked, tmp_path / "other")
    with ProcessPoolExecutor(1, PROCESSES) as pool:  # an executor of the caller's own
        elsewhere = Workspace(tmp_path / "other").conflicts(executor=pool.map)
    here = workspace.conflicts()
    assert (elsewhere.matrix, elsewhere.before, elsewhere.alone) == (here.matrix, here.before, here.alone)


def test_folders_that_a_machine_does_not_see_are_named(workspace: Workspace) -> None:

    jobs = []

    def elsewhere(work, given):
        jobs.extend(given)
        return [None] * len(given)  # trained, but on a disk of another machine

    with pytest.raises(InputError, match=r"finds no adapter in .*lookupcache=positive"):
        workspace.train("joint", executor=elsewhere)
    shutil.rmtree(jobs[0].start)
    with pytest.raises(InputError, match=r"finds no .*under the same path"):
        run_job(jobs[0])

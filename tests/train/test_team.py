"""Training in several processes: the same gradient, the same model, one of them that runs the command."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from continual import Workspace
from continual.merge.sources import Model
from continual.train.launch import leading
from continual.train.team import Team
from tests.kills import PROCESSES
from tests.rows import Write, make_pairs
from tests.workspaces import SETTINGS, make_workspace

Function = Callable[[Path], None]


def launch(processes: int, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in several processes, with torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [*launcher, "--master-addr", "127.0.0.1", "--master-port", str(free_port()), "-m", "continual"]
    # A hang must not take the whole run with it; a launch takes some ten seconds.
    return subprocess.run(
        [*command, *map(str, words)], env=os.environ, capture_output=True, text=True, check=False, timeout=300
    )


def launch_forked(processes: int, folder: Path, function: Function, directory: Path) -> tuple[list[int], str, str]:
    """Call a function in several processes that have what torchrun gives them, and the libraries already imported.

    Returns:
        Exit code of each process, and what all of them wrote to stdout and to stderr.
    """
    port = free_port()
    team = [
        PROCESSES.Process(target=_as_rank, args=(rank, processes, port, folder, function, directory))
        for rank in range(processes)
    ]
    for process in team:
        process.start()
    for process in team:
        process.join(300)
        process.kill()
    streams = ["".join((folder / f"{rank}.{name}").read_text() for rank in range(processes)) for name in ("out", "err")]
    return [int(process.exitcode or 0) for process in team], streams[0], streams[1]


def _as_rank(rank: int, processes: int, port: int, folder: Path, function: Function, directory: Path) -> None:
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ.update({name: str(value) for name, value in values.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT), number)
    function(directory)


def _update(directory: Path) -> None:
    from continual.cli import main

    sys.argv = ["continual", "update", "--json", "-w", str(directory)]
    main()


class Full:
    """A progress bar of a training that meets a full disk."""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.training = label == "training"

    def advance(self, count: int) -> None:
        if self.training:
            raise OSError("the disk is full")

    def finish(self) -> None:
        pass


def _update_on_a_full_disk(directory: Path) -> None:
    with leading() as leads:
        if leads:
            Workspace(directory).update(progress=Full())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def ready(tiny_model: Path, tmp_path: Path, write_pairs: Write) -> Path:
    settings = SETTINGS.replace("[train]", '[train]\nprecision = "fp32"\nmatryoshka = [16]')
    workspace = make_workspace(tmp_path / "w", tiny_model, settings)
    workspace.ingest(write_pairs("first.parquet", make_pairs(50)))
    return tmp_path / "w"


@pytest.mark.slow
def test_two_processes_train_the_model_that_one_does(ready: Path, tmp_path: Path) -> None:
    shutil.copytree(ready, tmp_path / "alone")
    step = Workspace(tmp_path / "alone").update()
    codes, printed, errors = launch_forked(2, tmp_path, _update, ready)
    assert codes == [0, 0], errors
    result = json.loads(printed)  # by one process alone
    assert result["pairs_trained"] == step.version.pairs_trained
    assert result["tokens_trained"] == step.version.tokens_trained
    together, alone = (Model(folder / ".continual/versions/v1") for folder in (ready, tmp_path / "alone"))
    root = Model(ready / ".continual/versions/v0")
    moved = 0.0
    for key in root.entries:
        if root.entries[key].dtype.is_floating_point:
            torch.testing.assert_close(together.read(key), alone.read(key), rtol=0, atol=2e-5)
            moved = max(moved, float((alone.read(key) - root.read(key)).abs().max()))
    assert moved > 1e-3


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_over_fifty_steps(
    tiny_model: Path, tmp_path: Path, write_pairs: Write
) -> None:
    settings = SETTINGS.replace("[train]", '[train]\nprecision = "fp32"').replace("epochs = 1", "epochs = 5")
    ready = tmp_path / "w"
    make_workspace(ready, tiny_model, settings).ingest(write_pairs("first.parquet", make_pairs(200)))
    shutil.copytree(ready, tmp_path / "alone")
    alone = Workspace(tmp_path / "alone").update().version.provenance.training
    codes, _, errors = launch_forked(2, tmp_path, _update, ready)
    assert codes == [0, 0], errors
    together = Workspace(ready).versions()[-1].provenance.training
    assert alone is not None
    assert together is not None
    assert together.steps == alone.steps >= 50
    assert len(alone.curve) == alone.steps  # the loss of every step
    assert alone.curve[-1][1] < 0.9 * alone.curve[0][1]
    np.testing.assert_allclose(np.array(together.curve), np.array(alone.curve), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_command_that_fails_ends_all_processes(ready: Path) -> None:
    done = launch(2, "update", "--domain", "fist", "-w", ready)
    assert "Did you mean 'first'" in done.stderr
    assert done.returncode != 0


@pytest.mark.slow
def test_what_only_the_first_process_meets_ends_all(ready: Path, tmp_path: Path) -> None:
    codes, _, errors = launch_forked(2, tmp_path, _update_on_a_full_disk, ready)
    assert "the disk is full" in errors
    assert 0 not in codes


@pytest.mark.parametrize(("texts", "size"), [(1, 3), (10, 3), (64, 8)])
def test_texts_are_dealt_evenly_and_each_once(texts: int, size: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 100, texts)
    shares = Team(1, size, torch.device("cpu")).shares(lengths)
    assert len(shares) == size
    assert sorted(np.concatenate(shares).tolist()) == list(range(texts))
    tokens = [int(lengths[share].sum()) for share in shares]
    assert max(tokens) - min(tokens) <= lengths.max()
    assert Team(0, 1, torch.device("cpu")).shares(lengths)[0].tolist() == list(range(texts))

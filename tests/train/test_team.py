"""Training in several processes: the same gradient, the same model, one of them that runs the command."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from continual import Workspace
from continual.merge.sources import Model
from continual.train.team import Team
from tests.pairs import Write, make_pairs
from tests.workspaces import SETTINGS, make_workspace


def launch(
    processes: int, *words: object, program: Sequence[str] = ("-m", "continual")
) -> subprocess.CompletedProcess[str]:
    """Run the command line in several processes, as torchrun starts them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [*launcher, "--master-addr", "127.0.0.1", "--master-port", str(port), *program, *map(str, words)]
    # A hang must not take the whole run with it; a launch takes some ten seconds.
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=300)


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
    done = launch(2, "update", "--json", "-w", ready)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)  # by one process alone
    assert printed["pairs_trained"] == step.version.pairs_trained
    assert printed["tokens_trained"] == step.version.tokens_trained
    together, alone = (Model(folder / ".continual/versions/v1") for folder in (ready, tmp_path / "alone"))
    root = Model(ready / ".continual/versions/v0")
    moved = 0.0
    for key in root.entries:
        if root.entries[key].dtype.is_floating_point:
            torch.testing.assert_close(together.read(key), alone.read(key), rtol=0, atol=2e-5)
            moved = max(moved, float((alone.read(key) - root.read(key)).abs().max()))
    assert moved > 1e-3


@pytest.mark.slow
def test_a_command_that_fails_ends_all_processes(ready: Path) -> None:
    done = launch(2, "update", "--domain", "fist", "-w", ready)
    assert "Did you mean 'first'" in done.stderr
    assert done.returncode != 0


ALONE = """
import sys
from continual import Workspace
from continual.train.launch import leading

class Full:
    def start(self, label, total, unit, done=0): self.training = label == "training"
    def finish(self): pass
    def advance(self, count):
        if self.training:
            raise OSError("the disk is full")

with leading() as leads:
    if leads:
        Workspace(sys.argv[1]).update(progress=Full())
"""


@pytest.mark.slow
def test_what_only_the_first_process_meets_ends_all(ready: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(ALONE)
    done = launch(2, ready, program=[str(tmp_path / "alone.py")])
    assert "the disk is full" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize(("texts", "size"), [(1, 3), (10, 3), (64, 8)])
def test_texts_are_dealt_evenly_and_each_once(texts: int, size: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 100, texts)
    shares = Team(1, size, torch.device("cpu")).shares(lengths)
    assert len(shares) == size
    assert sorted(np.concatenate(shares).tolist()) == list(range(texts))
    tokens = [int(lengths[share].sum()) for share in shares]
    assert max(tokens) - min(tokens) <= lengths.max()
    assert Team(0, 1, torch.device("cpu")).shares(lengths)[0].tolist() == list(range(texts))

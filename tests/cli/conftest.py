"""Fixtures: the folder of a workspace, which is the working directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from tests.rows import make_pairs
from tests.workspaces import Once


@pytest.fixture
def folder(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that has learned nothing."""
    monkeypatch.chdir(workspace.directory)
    return workspace.directory


@pytest.fixture
def learned_folder(learned: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that has learned two domains."""
    monkeypatch.chdir(learned.directory)
    return learned.directory


@pytest.fixture
def stocked(once: Once, no_steps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with two domains, of which nothing was learned."""

    def make(folder: Path) -> None:
        workspace = Workspace(shutil.copytree(no_steps, folder / "w"))
        for seed, (name, rows) in enumerate({"big": 50, "small": 30}.items()):
            pq.write_table(pa.Table.from_pylist(make_pairs(rows, seed=seed)), folder / f"{name}.parquet")
            workspace.ingest(folder / f"{name}.parquet")

    folder = Path(shutil.copytree(once("big-and-small", make) / "w", tmp_path / "w"))
    monkeypatch.chdir(folder)
    return folder

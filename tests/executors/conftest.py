"""Fixtures: the workspace of the recipes, and a Ray of the test's own instead of one that runs on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from continual import Workspace
from tests.recipes.stock import make_stocked
from tests.workspaces import Once


@pytest.fixture(scope="session")
def stocked(once: Once, tiny_model: Path) -> Path:
    return once("stocked", lambda folder: make_stocked(folder, tiny_model)) / "w"


@pytest.fixture
def workspace(stocked: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(stocked, tmp_path / "w")
    return Workspace(tmp_path / "w")


@pytest.fixture(autouse=True)
def _own_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")

"""A workspace whose updates were trained from the root base, without replay."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from continual import Workspace
from tests.texts import FROM_BASE
from tests.workspaces import Once, learn, make_workspace

DOMAINS = ("first", "second", "third")


@pytest.fixture(scope="session")
def three_from_base(once: Once, tiny_model: Path) -> Path:
    """A workspace that has learned three domains from the root base, without replay."""

    def make(folder: Path) -> None:
        made = make_workspace(folder / "w", tiny_model, FROM_BASE)
        for seed, domain in enumerate(DOMAINS):
            learn(made, domain, 60, seed=seed, replay=0.0)

    return once("three-from-base", make) / "w"


@pytest.fixture
def averaged(three_from_base: Path, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(three_from_base, tmp_path / "w"))

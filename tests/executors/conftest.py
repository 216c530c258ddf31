"""Fixtures: the workspace of the recipes, and a Ray of the test's own instead of one that runs on this machine."""

from __future__ import annotations

import pytest

from continual.executors import processes
from tests.kills import PROCESSES
from tests.recipes.stock import stocked, workspace

__all__ = ["stocked", "workspace"]


@pytest.fixture(autouse=True)
def _own_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")


@pytest.fixture
def started_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start processes that need not import torch again. How they are started is tested without this."""
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda method: PROCESSES)

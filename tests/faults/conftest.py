"""Fixtures: the stock that every attempt starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.stock import make_stock
from tests.workspaces import Once


@pytest.fixture(scope="session")
def stock(once: Once, two_steps: Path, tiny_model: Path, other_model: Path) -> Path:
    """A folder with a workspace that has learned, and data, models, tasks and a backup beside it."""
    return once("stock", lambda folder: make_stock(folder, two_steps, tiny_model, other_model))

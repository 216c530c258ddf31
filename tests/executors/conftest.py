"""Fixtures: the workspace of the recipes, and a Ray of the test's own instead of one that runs on this machine."""

from __future__ import annotations

import pytest

from tests.recipes.stock import stocked, workspace

__all__ = ["stocked", "workspace"]


@pytest.fixture(autouse=True)
def _own_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")

"""Fixtures: an empty registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / ".continual", busy_seconds=0.2)
    made.catalog.create()
    return made

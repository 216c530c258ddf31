"""Fixtures: a workspace in the working directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Run
from tests.workspaces import SETTINGS


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in the working directory."""
    monkeypatch.chdir(tmp_path)
    result = run("init", "w", "--base", tiny_model)
    assert result.code == 0
    assert "is v0, in service" in result.out
    (tmp_path / "w" / "continual.toml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"

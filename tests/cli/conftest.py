"""Fixtures: a workspace in the working directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual import Workspace


@pytest.fixture
def folder(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a workspace, which is the working directory."""
    monkeypatch.chdir(workspace.directory)
    return workspace.directory

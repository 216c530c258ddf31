"""Settings: read from a workspace, and checked all at once."""

from __future__ import annotations

import pytest

from continual import Workspace
from continual.errors import ConfigError


def test_settings_are_checked_all_at_once(workspace: Workspace) -> None:
    (workspace.directory / "continual.toml").write_text(
        "[train]\nepochs = 0\nlearning_rte = 1\n[gate]\nmin_gain = nan\n"
    )
    with pytest.raises(ConfigError, match=r"train.epochs.*train.learning_rte.*gate.min_gain"):
        Workspace(workspace.directory)


def test_settings_that_decide_nothing_any_more_are_still_read(workspace: Workspace) -> None:
    (workspace.directory / "continual.toml").write_text("[eval]\nbootstrap = 500\nconfidence = 0.9\n")
    assert Workspace(workspace.directory).config.eval.confidence == 0.9

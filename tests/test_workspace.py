"""The life of a workspace, on a tiny model: the whole step, resume, refusal, rollback, export."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from continual import Workspace
from continual.errors import (
    ConfigError,
    InputError,
    ModelError,
    NotFoundError,
)


def test_a_folder_is_found_from_below_and_from_the_environment(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    below = workspace.directory / "some" / "folder"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert Workspace().directory == workspace.directory
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="continual init"):
        Workspace()
    monkeypatch.setenv("CONTINUAL_WORKSPACE", str(workspace.directory))
    assert Workspace().directory == workspace.directory


def test_init_refuses_what_is_no_model_and_leaves_nothing(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for base in (tmp_path / "file.txt", tmp_path / "empty", tmp_path / "missing", "no-such-model"):
        with pytest.raises(ModelError):
            Workspace.init(tmp_path / "w", str(base))
        assert not (tmp_path / "w").exists()
    Workspace.init(tmp_path / "w", str(tiny_model))
    with pytest.raises(InputError, match="already"):
        Workspace.init(tmp_path / "w", str(tiny_model))


def test_init_keeps_settings_that_are_there(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "continual.toml").write_text("[train]\nepochs = 7\n")
    assert Workspace.init(folder, str(tiny_model)).config.train.epochs == 7
    assert (folder / "continual.toml").read_text() == "[train]\nepochs = 7\n"
    wrong = tmp_path / "x"
    wrong.mkdir()
    (wrong / "continual.toml").write_text("[train]\nepoch = 7\n")
    with pytest.raises(ConfigError, match="epochs"):
        Workspace.init(wrong, str(tiny_model))
    assert not (wrong / ".continual").exists()


def test_init_scores_in_bf16_where_the_hardware_computes_in_it(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in ("bf16", "fp32"):
        monkeypatch.setattr("continual.models.precision.resolve_precision", lambda *_, found=precision: found)
        made = Workspace.init(tmp_path / precision, str(tiny_model))
        assert made.config.eval.precision == precision
    marks = [(tmp_path / name / "continual.toml").read_text() for name in ("bf16", "fp32")]
    assert [f'\n# precision = "{name}"' in text for name, text in zip(("bf16", "fp32"), marks, strict=True)] == [
        False,
        True,
    ]
    assert '\nprecision = "bf16"' in marks[0]


def test_init_removes_what_a_killed_init_left(workspace: Workspace) -> None:
    left = workspace.directory / f"..continual.{'0' * 8}-1-{'0' * 8}.partial"
    left.mkdir()
    os.utime(left, (0, 0))
    with pytest.raises(InputError, match="already holds a workspace"):
        Workspace.init(workspace.directory, "anything")
    assert not left.exists()

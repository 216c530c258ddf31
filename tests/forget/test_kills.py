"""A `forget` that is killed leaves the old state, or is finished by the next command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from continual import Workspace
from continual.forget import journal
from continual.registry.erase import FORGETTING
from tests.kills import kill_everywhere
from tests.rows import make_pairs
from tests.texts import occurrences, texts_of


def consistent(directory: Path) -> Workspace:
    """Open a workspace, which finishes what was begun, and check that nothing is missing, wrong or left over."""
    workspace = Workspace(directory)
    found = workspace.doctor(fix=True)
    assert found.healthy, found.findings
    assert not workspace.registry.path(FORGETTING).exists()
    assert not workspace.registry.path("lost").exists()
    return workspace


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--rebuild"]], ids=["data", "rebuild"])
def test_kills_lose_nothing_and_leave_nothing(three_from_base: Path, tmp_path: Path, options: list[str]) -> None:
    directory = tmp_path / "w"
    texts = texts_of(make_pairs(60, seed=1))

    def reset() -> None:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(three_from_base, directory)

    def whole_or_nothing() -> None:
        workspace = consistent(directory)
        domains = [domain.name for domain in workspace.registry.domains()]
        if domains == ["first", "third"]:
            assert occurrences(workspace.registry.root, texts) == {}
            assert list(workspace.registry.path("certificates").glob("*.json"))
            assert workspace.version().id in ("v3", "v4")
            if "--rebuild" in options and workspace.version().id == "v3":
                done = workspace.forget(rebuild=True)
                assert done.rebuilt is not None
                assert done.rebuilt.exact
                consistent(directory)
        else:
            assert domains == ["first", "second", "third"]
            assert workspace.forget(domain="second").search is not None

    kill_everywhere(["forget", "--domain", "second", "--yes", "-w", str(directory), *options], whole_or_nothing, reset)


@pytest.mark.parametrize("moment", ["erase", "remove", "write_certificate"])
def test_the_next_command_finishes(averaged: Workspace, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(journal, moment, stop)
        averaged.forget(domain="second")
    assert averaged.registry.path(FORGETTING).is_dir()
    workspace = consistent(averaged.directory)
    assert [domain.name for domain in workspace.registry.domains()] == ["first", "third"]
    assert occurrences(workspace.registry.root, texts_of(make_pairs(60, seed=1))) == {}
    (certificate,) = workspace.registry.path("certificates").glob("*.json")
    assert json.loads(certificate.read_text())["search"]["found"] == []

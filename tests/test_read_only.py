"""A workspace on a read-only disk, or of another user: commands that read work, and those that write say why not."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from continual import Workspace
from continual.errors import ResourceError, SchemaError
from continual.registry import Registry
from continual.registry.migrations import MIGRATIONS
from continual.storage import faults
from tests.commands import Run

READS = (
    ["status"],
    ["status", "--json"],
    ["versions", "list"],
    ["versions", "list", "--json"],
    ["versions", "show", "v1"],
    ["versions", "history"],
    ["report"],
    ["report", "--json"],
    ["compare", "v1", "v2"],
    ["compare", "v1", "v2", "--json"],
    ["task", "list"],
    ["task", "list", "--json"],
)
WRITES = {
    "ingest": ["ingest", "NEW"],
    "update": ["update"],
    "train": ["train", "--recipe", "joint"],
    "promote": ["promote", "v1"],
    "rollback": ["rollback"],
    "versions pin": ["versions", "pin", "v1"],
    "versions rebuild": ["versions", "rebuild", "v1"],
    "gc": ["gc"],
}


@pytest.fixture
def mounted(learned: Workspace) -> Iterator[Path]:
    """A workspace that has learned two domains, on a read-only file system."""
    learned.compare("v1", "v2")  # the scores are there
    folder = learned.directory
    for command in (["mount", "--bind", folder, folder], ["mount", "-o", "remount,bind,ro", folder]):
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            subprocess.run(["umount", folder], capture_output=True, check=False)
            pytest.skip("no permission to mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def locked(learned: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, by permissions that root would ignore."""
    learned.compare("v1", "v2")
    folder, access, open_path, mkdir = learned.directory, os.access, Path.open, Path.mkdir

    def inside(path: object) -> bool:
        return Path(str(path)).resolve().is_relative_to(folder)

    def refuse(path: Path, mode: str = "r", *given: object, **options: object) -> object:
        if inside(path) and set(mode) & set("wax+"):
            raise PermissionError(13, "Permission denied", str(path))
        return open_path(path, mode, *given, **options)  # type: ignore[arg-type]

    def refuse_folder(path: Path, *given: object, **options: object) -> None:
        if inside(path) and not path.exists():
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(
        faults.os, "access", lambda path, mode: not (mode == os.W_OK and inside(path)) and access(path, mode)
    )
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse_folder)
    return folder


def check_reads_and_writes(folder: Path, run: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for words in READS:
        result = run(*words, "-w", folder)
        assert result.code == 0, (words, result)
    result = run("backup", folder.parent / "store", "--verify", "-w", folder)
    assert result.code == 0, result
    assert run("restore", folder.parent / "store", folder.parent / "copy").code == 0
    assert Workspace(folder.parent / "copy").doctor(full=True).healthy
    new = folder.parent / "first.parquet"
    for name, words in WRITES.items():
        result = run(*(new if word == "NEW" else word for word in words), "-w", folder)
        assert result.code == 2, (name, result)
        (message,) = [line for line in result.err.splitlines() if line.startswith("continual: ")]
        assert message.startswith(f"continual: `continual {name}` writes to the workspace, but {folder}"), message
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.slow
def test_a_read_only_file_system(mounted: Path, run: Run, two_steps: Path) -> None:
    shutil.copy(two_steps.parent / "first.parquet", mounted.parent)
    check_reads_and_writes(mounted, run)


def test_a_workspace_of_another_user(locked: Path, run: Run, two_steps: Path) -> None:
    shutil.copy(two_steps.parent / "first.parquet", locked.parent)
    check_reads_and_writes(locked, run)


def test_a_read_only_catalog_of_an_older_schema_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Registry(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("continual.registry.catalog.MIGRATIONS", MIGRATIONS[:-1])
        old.catalog.create()
    with monkeypatch.context() as patch:
        patch.setattr(faults.os, "access", lambda path, mode: False)
        with pytest.raises(SchemaError, match="it is read-only for you"):
            Registry(tmp_path).domains()
        with pytest.raises(ResourceError, match="read-only for you"):
            Registry(tmp_path).set_license("b1", "mit")
    assert Registry(tmp_path).domains() == []

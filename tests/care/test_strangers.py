"""Backups from strangers: a manifest, links, settings and a catalog that want more than a workspace."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from continual import Workspace
from continual.errors import DataError, InputError, ResourceError, SchemaError
from tests.commands import Run

Change = Callable[[dict[str, Any]], object]

A = "a" * 64


def entry(path: str, sha256: str = A, size: Any = 1) -> dict[str, Any]:
    return {"path": path, "sha256": sha256, "size": size}


@pytest.fixture
def stored(workspace: Workspace, tmp_path: Path) -> Path:
    """A folder with one backup of a workspace that has learned nothing."""
    workspace.backup(tmp_path / "store")
    return tmp_path / "store"


def manifest_of(store: Path) -> Path:
    (file,) = (store / "backups").glob("*.json")
    return file


def object_of(store: Path, path: str) -> Path:
    entries = json.loads(manifest_of(store).read_text())["files"]
    (sha256,) = (each["sha256"] for each in entries if each["path"] == path)
    return store / "objects" / sha256[:2] / sha256


def plant(store: Path, path: str, file: Path) -> None:
    """Put a file of a stranger into a backup, as a whole backup would hold it."""
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    target = store / "objects" / sha256[:2] / sha256
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)
    manifest = json.loads(manifest_of(store).read_text())
    for each in manifest["files"]:
        if each["path"] == path:
            each.update(sha256=sha256, size=len(content))
    manifest_of(store).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        "",
        "{",
        '{"schema": 1}',
        '{"schema": "1"}',
        '{"schema": 1, "files": {}, "left_out": [], "continual": "1"}',
        "[" * 100_000,
        '{"schema": 1, "files": ' + "[" * 100_000,
        '{"schema": 1, "files": [{"path": 1}], "left_out": [], "continual": "1"}',
    ],
)
def test_a_manifest_of_another_form_is_damaged(stored: Path, tmp_path: Path, content: str) -> None:
    manifest_of(stored).write_text(content)
    with pytest.raises(DataError, match=r"The manifest of .* is damaged"):
        Workspace.restore(stored, tmp_path / "w2")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m["files"][0].pop("size"), "is damaged: files"),
        (lambda m: m["files"][0].update(size=-1), "is damaged: files"),
        (lambda m: m["files"][0].update(size=True), "is damaged: files"),
        (lambda m: m["files"][0].update(sha256="../../../etc/passwd"), "is damaged: files"),
        (lambda m: m["files"][0].update(sha256=A + "\n"), "is damaged: files"),
        (lambda m: m["files"].append(m["files"][0]), "twice"),
        (lambda m: m["files"].append(entry(".continual/data")), "no part of one"),
        (lambda m: m["files"].append(entry(".continual/data/a/b")), None),
        (lambda m: m["files"].append(entry("/etc/cron.d/x")), "outside the workspace"),
        (lambda m: m["files"].append(entry("../x")), "outside the workspace"),
        (lambda m: m["files"].append(entry(".continual/data/../../x")), "outside the workspace"),
        (lambda m: m["files"].append(entry(".continual/data/./x")), "outside the workspace"),
        (lambda m: m["files"].append(entry(".continual/data/" + "x" * 256)), "outside the workspace"),
        (lambda m: m["files"].append(entry(".continual/data/" + "x/" * 5000 + "x")), "outside the workspace"),
        (lambda m: m["files"].append(entry(".bashrc")), "no part of one"),
        (lambda m: m["files"].append(entry(".continual/forgetting/intent.json")), "no part of one"),
        (lambda m: m["files"].append(entry(".continual/versions/v0/config.json/x")), "both as a file and as a folder"),
        (lambda m: m.update(files=[e for e in m["files"] if e["path"] != "continual.toml"]), "lacks continual.toml"),
    ],
)
def test_a_manifest_that_names_what_no_workspace_holds(
    stored: Path, tmp_path: Path, change: Change, match: str | None
) -> None:
    manifest = json.loads(manifest_of(stored).read_text())
    change(manifest)
    manifest_of(stored).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=match or "is missing from"):
        Workspace.restore(stored, tmp_path / "w2")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "base") == ["store", "w"]


def test_a_newer_manifest_is_named(stored: Path, tmp_path: Path) -> None:
    manifest_of(stored).write_text('{"schema": 2, "objects": []}')
    with pytest.raises(InputError, match="has schema 2, but this continual reads 1"):
        Workspace.restore(stored, tmp_path / "w2")


def test_a_manifest_of_any_size_is_not_read(stored: Path, tmp_path: Path) -> None:
    with manifest_of(stored).open("ab") as file:
        file.truncate(1 << 40)  # a file of holes, which has no blocks
    with pytest.raises(DataError, match="has more than"):
        Workspace.restore(stored, tmp_path / "w2")


def test_a_content_of_another_size_is_not_written(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = object_of(stored, ".continual/versions/v0/config.json")
    size = content.stat().st_size
    with content.open("ab") as file:
        file.truncate(1 << 40)
    written = []
    write = Path.open

    def spy(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if mode == "wb":
            written.append(self)
        return write(self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", spy)
    removed: list[tuple[str, int]] = []
    unlink = shutil.rmtree

    def look(path: Any, *rest: Any, **more: Any) -> None:
        removed.extend((each.name, each.stat().st_size) for each in written if each.exists())
        unlink(path, *rest, **more)

    monkeypatch.setattr(shutil, "rmtree", look)
    with pytest.raises(DataError, match="is damaged in"):
        Workspace.restore(stored, tmp_path / "w2")
    assert max(found for name, found in removed if name == "config.json") <= size


def test_links_and_devices_are_not_followed(stored: Path, tmp_path: Path) -> None:
    content = object_of(stored, ".continual/versions/v0/config.json")
    moved = content.rename(tmp_path / "elsewhere")
    content.symlink_to(moved)
    with pytest.raises(DataError, match="is not a plain file"):
        Workspace.restore(stored, tmp_path / "w2")
    content.unlink()
    os.mkfifo(content)
    with pytest.raises(DataError, match="is not a plain file"):
        Workspace.restore(stored, tmp_path / "w2")
    manifest = manifest_of(stored)
    manifest.rename(tmp_path / "manifest")
    manifest.symlink_to(tmp_path / "manifest")
    with pytest.raises(DataError, match="is not a plain file"):
        Workspace.restore(stored, tmp_path / "w2")


def test_a_backup_that_the_disk_cannot_hold(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(ResourceError, match="has 1 free"):
        Workspace.restore(stored, tmp_path / "w2")


@pytest.mark.parametrize(
    ("line", "reset"),
    [
        ("trust_remote_code = true", True),
        ("  trust_remote_code=true # yes", True),
        ("trust_remote_code = false", False),
        ("# trust_remote_code = true", False),
    ],
)
def test_code_of_a_stranger_is_not_trusted(
    workspace: Workspace, tmp_path: Path, run: Run, line: str, reset: bool
) -> None:
    settings = workspace.directory / "continual.toml"
    settings.write_text(f"{line}\n[catalog]\nbusy_seconds = 7  # ours\n")
    assert run("backup", tmp_path / "store", "-w", workspace.directory).code == 0
    done = run("restore", tmp_path / "store", tmp_path / "w2")
    assert done.code == 0, done.err
    restored = Workspace(tmp_path / "w2")
    assert not restored.config.trust_remote_code
    assert restored.config.catalog.busy_seconds == 7
    assert ("trust_remote_code to false" in done.out) == reset
    text = (tmp_path / "w2" / "continual.toml").read_text()
    assert "# ours" in text
    assert (text == settings.read_text()) == (not reset)


def test_trust_that_is_hidden_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.directory / "continual.toml").write_text('"trust_remote\\u005fcode" = true\n')
    workspace.backup(tmp_path / "store")
    with pytest.raises(DataError, match="hides trust_remote_code"):
        Workspace.restore(tmp_path / "store", tmp_path / "w2")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE versions SET path = '../../outside'",
        "UPDATE versions SET path = '/etc'",
        "UPDATE versions SET id = '../v0'",
        "INSERT INTO domains (name, position, created_at) VALUES ('../x', 9, now())",
    ],
)
def test_a_catalog_that_names_what_is_outside(workspace: Workspace, tmp_path: Path, change: str) -> None:
    workspace.backup(tmp_path / "store")
    with workspace.registry.catalog.transaction() as connection:
        connection.execute(change)
    plant(tmp_path / "store", ".continual/catalog.duckdb", workspace.registry.catalog.path)
    with pytest.raises(DataError, match="outside the workspace"):
        Workspace.restore(tmp_path / "store", tmp_path / "w2")
    assert not (tmp_path / "w2").exists()


def test_a_catalog_that_is_none(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database" * 1000)
    plant(stored, ".continual/catalog.duckdb", tmp_path / "text")
    with pytest.raises(SchemaError):
        Workspace.restore(stored, tmp_path / "w2")
    assert not (tmp_path / "w2").exists()

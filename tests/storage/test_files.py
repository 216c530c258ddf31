"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from continual.errors import InputError
from continual.storage import files as store
from continual.storage.files import publish


def test_publish_leaves_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(RuntimeError), publish(target) as partial:
        partial.mkdir()
        (partial / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for text in ("one", "two"):
        with publish(target) as partial:
            partial.mkdir()
            (partial / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["two"]


REPLACES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from continual.errors import InputError
from continual.storage import files as store
rename = Path.rename
def last(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = last
store.replace(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.kill
def test_what_a_killed_replacement_moved_aside_is_put_back(tmp_path: Path) -> None:
    for name in ("new", "v1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    killed = subprocess.run([sys.executable, "-c", REPLACES_AND_DIES, tmp_path / "new", tmp_path / "v1"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "v1").exists()
    store.sweep_unfinished(tmp_path)
    assert (tmp_path / "v1" / "weights").read_text() == "v1"
    store.replace(tmp_path / "new", tmp_path / "v1")
    assert (tmp_path / "v1" / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_a_replacement_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("new", "v1"):
        (tmp_path / name).mkdir()

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        store.replace(tmp_path / "new", tmp_path / "v1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "v1"]


def test_only_the_paths_of_dead_processes_of_this_machine_are_swept(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    machine = store._machine()
    (tmp_path / "data" / "a").mkdir(parents=True)
    dead = tmp_path / "data" / "a" / f".b1.parquet.{machine}-{ended.pid}-00000000.partial"
    moved = tmp_path / f".v1.{machine}-{ended.pid}-00000000.replaced"
    alive = tmp_path / f".v2.{machine}-{os.getppid()}-00000000.partial"
    elsewhere = tmp_path / f".v3.00000000-{ended.pid}-00000000.partial"
    unknown = tmp_path / ".v4.partial"
    for path in (dead, alive, elsewhere, unknown):
        path.write_text("x")
    moved.mkdir()
    store.sweep_dead(tmp_path)
    assert not dead.exists()
    assert (tmp_path / "v1").is_dir()
    assert alive.exists()
    assert elsewhere.exists()
    assert unknown.exists()


def test_a_folder_to_write_to_is_freed_of_what_a_dead_process_left(tmp_path: Path) -> None:
    """A command killed after it published its folder leaves its scratch, and the folder is refused from then on."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_text("whole")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".out.{store._machine()}-{dead.pid}-00000000.partial"
    left.mkdir()
    with pytest.raises(InputError, match="is not empty"):
        store.empty_folder(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_unfinished_files_are_private_and_finished_ones_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with store.publish(tmp_path / "file") as partial:
            partial.write_text("x")
            (above,) = tmp_path.iterdir()
            assert partial.is_relative_to(above)
            assert stat.S_IMODE(above.stat().st_mode) == 0o700
        with store.publish(tmp_path / "folder") as partial:
            partial.mkdir()
            (partial / "file").write_text("x")
        with store.scratch(tmp_path, "scratch") as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"file": 0o640, "folder": 0o750}

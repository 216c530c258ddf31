"""Artifacts on disk: written beside their place, flushed, renamed. A reader sees all of one, or none."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from continual.errors import InputError, ModelError, WorkspaceBusy

SUFFIX = ".partial"


@contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or folder to, and rename it to `target` at the end.

    If the body raises, what it wrote is removed and `target` is as before. An existing folder is replaced. What a
    killed process left of the same target is removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, target.name)
    partial = _beside(target)
    try:
        yield partial
        replace(partial, target)
    finally:
        remove(partial)


def replace(source: Path, target: Path) -> None:
    """Flush a file or folder to disk and rename it to `target`, on the same file system, in place of what was there."""
    flush(source)
    if target.is_dir():
        remove(target)
    source.replace(target)
    _sync(target.parent)


@contextmanager
def scratch(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new folder in `parent` for intermediate results, and remove it at the end.

    What killed processes left under the same name is removed first.
    """
    sweep(parent, name)
    folder = _beside(parent / name)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what processes that were killed left unfinished in a folder, of one target or of all."""
    for path in folder.glob(f".{glob.escape(name) if name != '*' else name}.*{SUFFIX}"):
        owner = path.name.removesuffix(SUFFIX).rpartition(".")[2].partition("-")[0]
        if not (owner.isdigit() and _alive(int(owner))):
            remove(path)


def _beside(target: Path) -> Path:
    """Return a hidden path that names the process that writes it, so that others know when it is abandoned."""
    return target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def flush(path: Path) -> None:
    """Force a file, or every file and folder below one, to disk."""
    for child in sorted(path.rglob("*")) if path.is_dir() else []:
        _sync(child)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy_model(source: Path, target: Path) -> None:
    """Publish a copy of a model folder."""
    with publish(target) as partial:
        shutil.copytree(source, partial, symlinks=False)


def empty_folder(directory: str | Path) -> Path:
    """Return the absolute path of a folder to write a model to.

    Raises:
        InputError: It is a file, or holds something.
    """
    target = Path(directory).expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is not empty. Name a folder that does not exist yet.")
    return target


def weight_files(model: Path) -> list[Path]:
    """Return the safetensors files of a sentence-transformers folder, in a fixed order.

    Raises:
        ModelError: There are none; pickled weights are never read.
    """
    files = sorted(path for path in model.rglob("*.safetensors") if path.is_file())
    if not files:
        raise ModelError(
            f"{model} has no safetensors weights. Load it once with sentence-transformers and save it with "
            "`model.save_pretrained(DIR)`."
        )
    return files


def weights_sha256(model: Path) -> str:
    """Return the sha256 over the weight files' relative names and bytes: the identity of a version."""
    digest = hashlib.sha256()
    for path in weight_files(model):
        digest.update(path.relative_to(model).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for a long job, so that two of a kind never run in one workspace.

    The kernel frees it when the process ends, however it ends.

    Raises:
        WorkspaceBusy: Another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceBusy(
                f"Another `continual {what}` is running in this workspace. Wait for it to end, then try again."
            ) from None
        yield

"""Artifacts on disk: written beside their place, flushed, renamed. A reader sees all of one, or none."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from continual.errors import ModelError, WorkspaceBusy

SUFFIX = ".partial"


@contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or folder to, and rename it to `target` at the end.

    If the body raises, what it wrote is removed and `target` is as before. An existing folder is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{SUFFIX}")
    try:
        yield partial
        flush(partial)
        if target.is_dir():
            remove(target)
        partial.replace(target)
        _sync(target.parent)
    finally:
        remove(partial)


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

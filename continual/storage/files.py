"""Artifacts on disk: written beside their place, flushed, renamed. A reader sees all of one, or none."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from continual.errors import InputError

SUFFIX = ".partial"

REPLACED = ".replaced"
"""Ending of what another file or folder is about to take the place of: who finds it there alone puts it back."""

_ABANDONED = 24 * 3600
"""Seconds after which what another machine left unfinished counts as abandoned."""


@contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or folder to, and rename it to `target` at the end.

    If the body raises, what it wrote is removed and `target` is as before. An existing folder is replaced. What a
    killed process left of the same target is removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(target.parent, target.name)
    partial = _beside(target)
    try:
        yield partial
        replace(partial, target)
    finally:
        remove(partial)


def replace(source: Path, target: Path) -> None:
    """Flush a file or folder to disk and rename it to `target`, on the same file system, in place of what was there.

    A folder in the way is renamed first and removed last: at no moment is half of one in its place, and
    `sweep_unfinished` puts it back if the process is killed between the two.
    """
    flush(source)
    old = _beside(target, REPLACED)
    if target.is_dir():
        target.rename(old)
    try:
        source.replace(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    _sync(target.parent)
    remove(old)


@contextmanager
def scratch(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new folder in `parent` for intermediate results, and remove it at the end.

    What killed processes left under the same name is removed first.
    """
    sweep_unfinished(parent, name)
    folder = _beside(parent / name)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def sweep_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what processes that were killed left unfinished in a folder, of one target or of all.

    What was to be replaced and is nowhere else is put back.
    """
    pattern = glob.escape(name) if name != "*" else name
    for path in [*folder.glob(f".{pattern}.*{REPLACED}"), *folder.glob(f".{pattern}.*{SUFFIX}")]:
        if _in_use(path):
            continue
        owner = _OWNER.search(path.name)
        target = path.with_name(path.name[1 : owner.start()]) if owner else path
        if path.suffix == REPLACED and not target.exists():
            path.rename(target)
        else:
            remove(path)


_OWNER = re.compile(rf"\.([0-9a-f]{{8}})-(\d+)-[0-9a-f]{{8}}({SUFFIX}|{REPLACED})$")
"""The machine and the process in the name of a hidden path."""

_OURS: set[str] = set()
"""Hidden paths that this process made: a process of the same number may have died before it, as 1 in a container."""


def _beside(target: Path, suffix: str = SUFFIX) -> Path:
    """Return a hidden path that names the machine and process that write it: others see when it is abandoned."""
    machine = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]
    name = f".{target.name}.{machine}-{os.getpid()}-{uuid.uuid4().hex[:8]}{suffix}"
    _OURS.add(name)
    return target.with_name(name)


def _in_use(path: Path) -> bool:
    """Return whether the process that writes a hidden path may still be alive."""
    found = _OWNER.search(path.name)
    if found is None:
        return False
    if found[1] != hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]:
        return time.time() - path.stat().st_mtime < _ABANDONED  # of another machine on the same disk
    if int(found[2]) == os.getpid():
        return path.name in _OURS
    try:
        os.kill(int(found[2]), 0)
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


def empty_folder(directory: str | Path) -> Path:
    """Return the absolute path of a folder to write a model to.

    Raises:
        InputError: It is a file, or holds something.
    """
    target = Path(directory).expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is not empty. Name a folder that does not exist yet.")
    return target

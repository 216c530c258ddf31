"""Publish files and folders atomically: write beside the target, flush, rename. Readers see all of it or nothing."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from continual.errors import InputError
from continual.storage.faults import explained

SUFFIX = ".partial"

REPLACED = ".replaced"
"""Suffix of a folder that is being replaced. If the replacement never arrived, `sweep_unfinished` restores it."""

PRIVATE = 0o700
"""Permissions of folders with unfinished files: nobody else may enter them."""

_ABANDONED = 24 * 3600
"""Seconds after which an unfinished path of another machine counts as abandoned."""


@contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or folder to, and rename it to `target` at the end.

    The path is in a hidden folder beside `target` that only this user can enter; what is published gets the permissions
    of the umask. If the body raises, the path is removed and `target` stays as it was. An existing folder is replaced.
    Unfinished paths that killed processes left for the same target are removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(target.parent, target.name)
    private = beside(target)
    try:
        with explained(target):
            private.mkdir(mode=PRIVATE)
            yield private / target.name
            replace(private / target.name, target)
    finally:
        remove(private)


def replace(source: Path, target: Path) -> None:
    """Flush a file or folder to disk and rename it to `target` on the same file system, replacing what is there.

    An existing folder is renamed first and removed last, so `target` never holds half of a folder. If the process is
    killed in between, `sweep_unfinished` restores the existing folder.
    """
    flush(source)
    old = beside(target, REPLACED)
    if target.is_dir():
        target.rename(old)
    try:
        source.replace(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    sync(target.parent)
    remove(old)


@contextmanager
def scratch(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new folder in `parent` for intermediate results, and remove it at the end.

    Folders that killed processes left under the same name are removed first.
    """
    sweep_unfinished(parent, name)
    folder = beside(parent / name)
    try:
        with explained(parent / name):
            parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=PRIVATE)
            yield folder
    finally:
        remove(folder)


def sweep_unfinished(folder: Path, name: str = "*") -> None:
    """Remove the unfinished paths of killed processes from a folder, and restore folders that were being replaced.

    Args:
        folder: The folder.
        name: Name of the target that the paths belong to; "*" for all targets.
    """
    pattern = glob.escape(name) if name != "*" else name
    for path in [*folder.glob(f".{pattern}.*{REPLACED}"), *folder.glob(f".{pattern}.*{SUFFIX}")]:
        if not in_use(path):
            with suppress(PermissionError):  # of another user
                _settle(path)


def sweep_dead(root: Path) -> None:
    """Do the same in a folder and all its folders, for the paths of dead processes of this machine alone."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            owner = _OWNER.search(name) if name.startswith(".") else None
            if owner and owner[1] == _machine() and not in_use(Path(folder, name)):
                with suppress(OSError):  # another process sweeps too, or the folder is read-only
                    _settle(Path(folder, name))
        folders[:] = [name for name in folders if not name.startswith(".")]


def _settle(path: Path) -> None:
    """Remove an unfinished path, or restore it if it is a folder whose replacement never arrived."""
    owner = _OWNER.search(path.name)
    target = path.with_name(path.name[1 : owner.start()]) if owner else path
    if path.suffix == REPLACED and not target.exists():
        path.rename(target)
    else:
        remove(path)


def discard(folder: Path) -> None:
    """Remove a folder that counts as a whole: rename it first, so that a killed removal leaves no half of it."""
    renamed = beside(folder)
    folder.rename(renamed)
    remove(renamed)


_OWNER = re.compile(rf"\.([0-9a-f]{{8}})-(\d+)-[0-9a-f]{{8}}({SUFFIX}|{REPLACED})$")
"""Matches the machine and the process id in the name of a hidden path."""

_OURS: set[str] = set()
"""Hidden paths of this process. Its id isn't enough, because an earlier process can have had the same id: in containers
it is often 1."""


def is_unfinished(path: Path) -> bool:
    """Return whether a path has the name of one that is being written, replaced or removed."""
    return path.name.startswith(".") and path.suffix in (SUFFIX, REPLACED)


def beside(target: Path, suffix: str = SUFFIX) -> Path:
    """Return a hidden path named after this machine and process, so that others can tell when it is abandoned."""
    name = f".{target.name}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{suffix}"
    _OURS.add(name)
    return target.with_name(name)


def in_use(path: Path) -> bool:
    """Return whether the process that writes a hidden path can still be alive."""
    owner = _OWNER.search(path.name)
    if owner is None:
        return False
    if owner[1] != _machine():
        return time.time() - path.stat().st_mtime < _ABANDONED  # another machine on the same disk
    if int(owner[2]) == os.getpid():
        return path.name in _OURS
    try:
        os.kill(int(owner[2]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _machine() -> str:
    """Return eight digits for this machine. Containers with the same host name number their processes apart."""
    name = os.uname().nodename
    with suppress(OSError):
        name += str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def flush(path: Path) -> None:
    """Force a file, or a folder with everything in it, to disk."""
    for child in sorted(path.rglob("*")) if path.is_dir() else []:
        sync(child)
    sync(path)


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def empty_folder(directory: str | Path) -> Path:
    """Return the absolute path of a folder to write a model to, and remove what killed processes left beside it.

    Raises:
        InputError: The path is a file, or a folder that is not empty.
    """
    target = Path(directory).expanduser().resolve()
    with suppress(OSError):  # no such parent, or one that is read-only
        sweep_unfinished(target.parent, target.name)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        problem = "is not empty" if target.is_dir() else "is a file"
        raise InputError(f"{target} {problem}. Choose a folder that doesn't exist yet.")
    return target

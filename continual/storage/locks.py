"""Lock files that keep conflicting commands from running at the same time. The kernel frees them with the process."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from continual.errors import WorkspaceBusy

UPDATE_LOCK = "update.lock"
"""Lock of the commands that create, rebuild or drop versions."""

_ATTEMPTS = 5
"""Attempts to take the lock of a long job, because a process that calls `held` holds it for a moment too."""


@contextmanager
def guard(path: Path, *, alone: bool, seconds: float) -> Iterator[None]:
    """Hold a lock that is shared by readers or exclusive to one writer.

    Args:
        path: The lock file.
        alone: Whether to hold the lock exclusively.
        seconds: Longest wait for other processes.

    Raises:
        WorkspaceBusy: Another process held the lock for longer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise WorkspaceBusy(
                        f"Another command is rebuilding, dropping or copying versions of this workspace (waited "
                        f"{seconds:g} s). Try again when it has finished."
                    ) from None
                time.sleep(0.05)
        yield


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for a long job, so that only one such job runs in a workspace.

    Args:
        path: The lock file; it records `what` while it is held.
        what: Name of the command.

    Raises:
        WorkspaceBusy: Another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _ATTEMPTS - 1:
                    raise WorkspaceBusy(
                        f"`continual {holder(path) or what}` is already running in this workspace. Wait for it to "
                        "finish, then try again."
                    ) from None
                time.sleep(0.02)
        file.truncate(0)
        file.write(what)
        file.flush()
        yield


def holder(path: Path) -> str | None:
    """Return the command that holds the lock of a long job; "" if it isn't recorded, None if no process holds it."""
    if not held(path):
        return None
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return ""


def held(path: Path) -> bool:
    """Return whether a process holds the lock file of a long job."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

"""Lock files, so that commands that would disturb each other never run at once. They end with the process."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from continual.errors import WorkspaceBusy

UPDATE_LOCK = "update.lock"
"""Held by who makes, builds or drops versions."""

_ATTEMPTS = 5
"""Tries for the lock of a long job: who only asks whether it is held holds it for a moment too."""


@contextmanager
def guard(path: Path, *, alone: bool, seconds: float) -> Iterator[None]:
    """Hold a lock that many readers share, or one writer has alone; wait for others for some seconds.

    Raises:
        WorkspaceBusy: It could not be had in time.
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
                        f"Another command is building, dropping or copying versions of this workspace (waited "
                        f"{seconds:g} s). Try again when it has ended."
                    ) from None
                time.sleep(0.05)
        yield


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for a long job, so that two of a kind never run in one workspace.

    Args:
        path: The lock file; while it is held it says what for.
        what: The command.

    The kernel frees it when the process ends, however it ends.

    Raises:
        WorkspaceBusy: Another process holds it.
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
                        f"A `continual {holder(path) or what}` is running in this workspace. Wait for it to end, then "
                        "try again."
                    ) from None
                time.sleep(0.02)
        file.truncate(0)
        file.write(what)
        file.flush()
        yield


def holder(path: Path) -> str | None:
    """Return the command that holds the lock file of a long job; "" where it does not say, None where none does."""
    if not held(path):
        return None
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return ""


def held(path: Path) -> bool:
    """Return whether some process holds the lock file of a long job."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

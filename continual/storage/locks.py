"""Lock files that keep conflicting commands from running at the same time. The kernel frees them with the process.

A command that finds a lock taken waits for it, and says once for whom. Waiting processes try again at random moments,
so none of them is served later than another for long.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from continual.errors import ResourceError, WorkspaceBusy
from continual.storage.faults import denied

UPDATE_LOCK = "update.lock"
"""Lock of the commands that create, rebuild or drop versions."""

INGEST_LOCK = "ingest.lock"
"""Lock of the commands that store rows and tasks."""

STAGING = "staging"
"""Folder below `.continual/` in which the holder of that lock prepares what it stores."""

FORGETTING = "forgetting"
"""Folder beside the lock files with what a running or killed `continual forget` is about to do."""

FORGET = "forget"
"""Name of the command that may lock a workspace with that folder: it finishes what was begun."""

_ATTEMPTS = 5
"""Attempts to take a lock without waiting, because a process that calls `held` holds it for a moment too."""

_SHORT = 0.02
"""Seconds between those attempts."""

_PAUSE = 0.05
"""Mean of the seconds between later attempts. It does not grow, so that who waited long is not served last."""

_logger = logging.getLogger("continual")

_open_files: set[IO[str]] = set()
"""Lock files that this process holds or waits for. A forked process closes them, or a lock would outlive its owner."""

_writing = 0
"""Locks that this process holds exclusively."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        what: Name of its command.
        pid: Its process id.
        host: Its machine.
        since: When it took the lock, ISO 8601 UTC.
    """

    what: str
    pid: int
    host: str
    since: str

    @property
    def process(self) -> str:
        """The process, for messages."""
        host = "" if self.host == os.uname().nodename else f" on {self.host}"
        return f"process {self.pid}{host}, since {self.since}"


@contextmanager
def guard(path: Path, what: str, *, alone: bool, seconds: float) -> Iterator[None]:
    """Hold a lock that is shared by readers or exclusive to one writer.

    A reader of a workspace that it may not write uses the lock file if it exists. Otherwise nobody else writes either.

    Args:
        path: The lock file.
        what: What the lock protects, for messages.
        alone: Whether to hold the lock exclusively.
        seconds: Longest wait for other processes.

    Raises:
        WorkspaceBusy: Another process held the lock for longer.
        ResourceError: The lock is to be held exclusively, and the workspace cannot be written.
    """
    with _opened(path, f"The command changes {what}", write=alone) as file:
        if file is not None:
            _wait(file, path, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, seconds, f"is using {what}")
            if alone:
                _record(file, "")
            else:  # what a killed writer recorded would be taken for the holder
                with suppress(OSError):
                    if os.fstat(file.fileno()).st_size:
                        _erase(file)
        try:
            yield
        finally:
            if alone:
                _erase(file)


@contextmanager
def exclusive(path: Path, what: str, *, seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock file for a long job, so that only one such job runs in a workspace.

    Args:
        path: The lock file; it records the job while it is held.
        what: Name of the command.
        seconds: Longest wait for another job.

    Raises:
        WorkspaceBusy: Another process held the lock for longer; or it ended before its `continual forget` was finished.
        ResourceError: The workspace cannot be written.
    """
    global _writing
    with _opened(path, f"`continual {what}` writes to the workspace", write=True) as file:
        assert file is not None
        _wait(file, path, fcntl.LOCK_EX, seconds, "is writing to this workspace")
        if what != FORGET:
            require_finished(path.parent, what)
        _record(file, what)
        _writing += 1
        try:
            yield
        finally:
            _writing -= 1
            _erase(file)


def require_finished(root: Path, what: str) -> None:
    """Check that no `continual forget` was killed before its end.

    Args:
        root: The folder of the lock files.
        what: Name of the command that is to work there, and holds its lock.

    Raises:
        WorkspaceBusy: One was.
    """
    if (root / FORGETTING).is_dir():
        raise WorkspaceBusy(
            f"A `continual forget` in {root} was stopped before its end, so `continual {what}` would work on rows that "
            "are to be removed. Run the command again: the next command finishes it first, as soon as no other command "
            "reads the models."
        )


def writing() -> bool:
    """Return whether this process holds a lock as a command that changes the workspace."""
    return _writing > 0


def holder(path: Path) -> str | None:
    """Return the command that holds the lock of a long job; "" if it isn't recorded, None if no process holds it."""
    if not held(path):
        return None
    found = who(path)
    return found.what if found else ""


def who(path: Path) -> Holder | None:
    """Return the process that holds a lock, or took it last; None if it isn't recorded."""
    with suppress(OSError, ValueError, TypeError):
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    return None


def held(path: Path) -> bool:
    """Return whether a process holds the lock file of a long job."""
    try:
        file = path.open()
    except OSError:  # no such file, or no permission to read it
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def steady(folder: Path, *, replacing: bool) -> Iterator[None]:
    """Keep a file in a folder from being replaced while others open it.

    A process that opens a file and then locks it would otherwise lock one that has just been replaced, and write where
    nobody reads. The lock is on the folder itself, and is held for the moment of opening or of renaming. Where a folder
    cannot be locked, there is none.

    Args:
        replacing: Whether the body replaces the file; otherwise it opens it.
    """
    descriptor = None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
    if descriptor is None:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX if replacing else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path, reason: str, *, write: bool) -> Iterator[IO[str] | None]:
    """Yield an open lock file; None if it is for reading, and it can be neither created nor read."""
    file: IO[str] | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        if not denied(error):
            raise
        if write:
            raise read_only(reason, path.parent) from error
        with suppress(OSError):
            file = path.open(encoding="utf-8")
    if file is None:
        yield None
        return
    _open_files.add(file)
    try:
        with file:
            yield file
    finally:
        _open_files.discard(file)


def read_only(reason: str, folder: Path) -> ResourceError:
    """Return the error of a command that writes where it cannot.

    Args:
        reason: What writes, such as "`continual gc` writes to the workspace".
        folder: Where.
    """
    return ResourceError(
        f"{reason}, but {folder} cannot be written: it is read-only for you. Copy it to a folder of your own, or ask "
        "for permission to write."
    )


def _wait(file: IO[str], path: Path, mode: int, seconds: float, doing: str) -> None:
    """Take a lock, and say once for whom this process waits.

    Args:
        doing: What a holder does that is not recorded. Readers are not: many of them hold the lock at once.
    """
    deadline = time.monotonic() + seconds
    attempt = 0
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, mode | fcntl.LOCK_NB)
            return
        attempt += 1
        if attempt >= _ATTEMPTS:
            other = who(path)
            name = f"`continual {other.what}`" if other and other.what else "another command"
            state = "is already running in this workspace" if other and other.what else doing
            process = f"{other.process}; " if other else ""
            if time.monotonic() > deadline:
                raise WorkspaceBusy(
                    f"{name[0].upper()}{name[1:]} {state} ({process}waited {seconds:g} s). Try again when it has "
                    "ended, or raise catalog.busy_seconds in continual.toml to wait longer."
                )
            if attempt == _ATTEMPTS:
                _logger.warning("continual: waiting for %s, which %s (%sat most %g s).", name, state, process, seconds)
        time.sleep(_SHORT if attempt < _ATTEMPTS else random.uniform(0.5, 1.5) * _PAUSE)


def _record(file: IO[str], what: str) -> None:
    """Write into a lock file who holds it."""
    since = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    file.truncate(0)
    file.write(json.dumps(asdict(Holder(what, os.getpid(), os.uname().nodename, since))))
    file.flush()


def _erase(file: IO[str] | None) -> None:
    """Empty a lock file before it is released. A forked process has closed it and leaves it as it is."""
    if file is not None and not file.closed:
        file.truncate(0)


def _forget() -> None:
    """Close the lock files of the parent in a forked process: the lock is the parent's, and ends with it."""
    global _writing
    for file in list(_open_files):
        with suppress(OSError):
            file.close()
    _open_files.clear()
    _writing = 0


os.register_at_fork(after_in_child=_forget)

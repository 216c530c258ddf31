"""What a full disk, missing permissions, too little memory and Ctrl-C look like in the libraries, as our own errors.

Each library reports them in its own way: OSError with or without a path, duckdb.IOException, SafetensorError, or a
RuntimeError of torch with the system's message somewhere in its text. The libraries are not imported here.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from continual.errors import ContinualError, ResourceError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_TEXTS = {
    errno.ENOSPC: ("no space left on device", "disk quota exceeded", "out of disk space", "file write failed"),
    errno.EROFS: ("read-only file system",),
    errno.EACCES: ("permission denied", "operation not permitted"),
    errno.ENOMEM: ("not enough memory", "out of memory", "cannot allocate memory", "could not allocate"),
}
"""Parts of messages, by the errno that they stand for."""

_FOREIGN = ("OSError", "RuntimeError", "duckdb", "SafetensorError", "ArrowException")
"""Classes, and modules of classes, whose messages are searched. A ValueError that quotes a text is left alone."""

_ALLOCATION = re.compile(r"(?:allocate|allocation of|malloc of size|realloc of size)\D{0,20}(\d[\d.]* ?(?:[KMGT]i?B)?)")

_QUOTED = re.compile(r"""["'](/[^"'\n]+)["']""")
"""Matches a path in a message."""


def translate(error: BaseException, path: Path | None = None) -> ContinualError | None:
    """Return our error for what a library raised; None if the error may be a bug.

    Args:
        error: Any exception. The errors that it was raised from are searched too.
        path: File or folder that was being written or read, if the exception does not name one.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if isinstance(link, ContinualError):
            return link
        if (number := _errno(link)) is not None:
            return _resource_error(number, link, path)
        seen.add(id(link))
        link = link.__cause__
    return None


def is_interrupt(error: BaseException) -> bool:
    """Return whether an exception stands for Ctrl-C: a KeyboardInterrupt, or what DuckDB makes of one."""
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "InterruptException":
        return True
    return isinstance(error, RuntimeError) and "query interrupted" in str(error).lower()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise our error for a full disk, missing permissions and the like, with the path that the body reads or writes.

    Raises:
        ResourceError: The body raised what stands for one of them.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _FULL | _DENIED:
            error.filename = str(path)  # callers add their own advice
        raise
    except Exception as error:
        fault = translate(error, path)
        if fault is None or fault is error:
            raise
        raise fault from error


def denied(error: OSError) -> bool:
    """Return whether the file system or its permissions do not allow to write."""
    return error.errno in _DENIED


def writable(path: Path) -> bool:
    """Return whether this process may write a file and create others beside it."""
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def _errno(error: BaseException) -> int | None:
    """Return the error number that an exception stands for; None if it is something else."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        # A missing file that the caller did not expect may be a bug, but never one on a disk that fails.
        return None if error.errno == errno.ENOENT and error.filename is None else error.errno
    kinds = {part for kind in type(error).__mro__ for part in (kind.__name__, kind.__module__.lstrip("_"))}
    if kinds.isdisjoint(_FOREIGN):
        return None
    text = str(error).lower()
    return next((number for number, signs in _TEXTS.items() if any(sign in text for sign in signs)), None)


def _resource_error(number: int, error: BaseException, path: Path | None) -> ResourceError:
    named = getattr(error, "filename", None)
    if named is None and (quoted := _QUOTED.search(str(error))):
        named = quoted[1]
    place = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else path
    at = f" {place}" if place else ""
    if number == errno.ENOMEM:
        needed = _ALLOCATION.search(str(error))
        return ResourceError(
            f"There is not enough memory{f' (asked for {_amount(needed[1])})' if needed else ''}. Close other "
            "programs, or lower train.micro_batch_tokens, eval.batch_size or ingest.batch_rows in continual.toml."
        )
    if number in _FULL:
        return ResourceError(
            f"No space is left on the disk{f' of{at}' if at else ''}{_free(place)}. Free some, for example with "
            "`continual gc`, and run the command again."
        )
    if number == errno.EROFS:
        return ResourceError(
            f"{place or 'A file'} cannot be written: the file system is read-only. Copy the workspace to a disk that "
            "you can write to, or name another output."
        )
    if number in _DENIED:
        return ResourceError(
            f"There is no permission to use {place or 'a file that the command needs'}"
            f"{f': {error}' if place is None else ''}. Ask its owner for permission, or copy the workspace to a folder "
            "of your own."
        )
    reason = os.strerror(number)
    return ResourceError(
        f"{place or 'A file'} cannot be used: {reason} ({type(error).__name__}). Check the path and the disk, and run "
        "the command again."
    )


def _amount(text: str) -> str:
    """Return an amount of memory as the library wrote it, with its unit."""
    return text if text[-1].isalpha() else f"{text.strip()} bytes"


def _free(place: Path | None) -> str:
    """Return how much space is left where a path is, in brackets; "" if that is not known."""
    with suppress(OSError):
        if place is not None:
            existing = next(folder for folder in (place, *place.parents) if folder.exists())
            return f" ({shutil.disk_usage(existing).free:,} bytes are free there)"
    return ""

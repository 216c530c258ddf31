"""Files that the catalog does not know: those that a killed command announced are removed, all others moved aside.

The catalog can be older than the files, after it was restored from a backup. So a file is removed only if the command
that wrote it had announced it and did not end well.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

from continual.storage.files import is_unfinished, publish, remove

LOST = "lost"
"""Folder below `.continual/` for files that the catalog does not know."""

_logger = logging.getLogger(__name__)


def announce(note: Path, *paths: str | None) -> None:
    """Announce what a command is about to write, instead of what was announced before.

    Args:
        note: The file to write this to; the caller holds the lock that belongs to it.
        *paths: Relative to the folder of the note. None is left out.
    """
    with publish(note) as partial:
        partial.write_text(json.dumps([path for path in paths if path is not None]), encoding="utf-8")


def announced(note: Path) -> set[str]:
    """Return what the last command announced if it did not end well; empty otherwise."""
    try:
        return set(json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return set()


def clear(root: Path, path: Path, known: set[str]) -> None:
    """Remove a path that the catalog does not record if it is unfinished or was announced; otherwise move it aside.

    Args:
        root: The `.continual` folder.
        path: The file or folder.
        known: What `announced` returned.
    """
    if is_unfinished(path) or path.relative_to(root).as_posix() in known:
        remove(path)
        return
    target = set_aside(root, path)
    _logger.warning(
        "%s is not recorded in the catalog, perhaps because an older catalog was restored. It was moved to %s.",
        path,
        target,
    )


def set_aside(root: Path, path: Path) -> Path:
    """Move a file or folder to the folder of lost files, under the time of the move; return its new place."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    target = root / LOST / moment / path.relative_to(root)
    target.parent.mkdir(parents=True)
    path.rename(target)
    return target

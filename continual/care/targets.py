"""Where backups of a workspace were made, so that `continual forget` can name them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from continual.storage.files import publish

FILE = "backups.json"
"""File below `.continual/`: the places, the last one first."""


def remember_target(root: Path, url: str) -> None:
    """Remember a place of backups, without passwords; do nothing if the workspace is read-only."""
    place = _plain(url)
    with suppress(OSError), publish(root / FILE) as partial:
        partial.write_text(json.dumps([place, *(known for known in read_targets(root) if known != place)]), "utf-8")


def read_targets(root: Path) -> list[str]:
    """Return the places of backups; empty if none is known."""
    try:
        return [str(place) for place in json.loads((root / FILE).read_text("utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def _plain(url: str) -> str:
    if "://" not in url:
        return str(Path(url).expanduser().resolve())
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))

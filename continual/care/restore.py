"""Restore a backup. It may come from a stranger: nothing is written outside the new folder, and no code runs."""

from __future__ import annotations

import re
import shutil
import tomllib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from continual.care.manifest import Manifest, check_catalog
from continual.care.store import Store
from continual.errors import DataError, NotFoundError, ResourceError, did_you_mean
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.storage.files import empty_folder, publish
from continual.versions.create import SETTINGS, STORE

_TRUST = re.compile(r"(?m)^([ \t]*trust_remote_code[ \t]*=[ \t]*+)(?!false\b)[^#\n]*?(?=[ \t]*(?:#|$))")

_SETTINGS_BYTES = 1 << 20
"""Largest continual.toml of a backup."""


@dataclass(frozen=True)
class Restored:
    """What was restored.

    Attributes:
        name: The backup.
        directory: The new workspace.
        files: Number of files written.
        bytes: Their size.
        trust_reset: Whether `trust_remote_code` was true in the backup, and is false now.
    """

    name: str
    directory: Path
    files: int
    bytes: int
    trust_reset: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self) | {"directory": str(self.directory)}


def restore(url: str, directory: str | Path, *, at: str | None = None, progress: Progress = SILENT) -> Restored:
    """Write the workspace of a backup to a new folder. Every file is checked; nothing appears before all are there.

    Code that models bring with them is not trusted any more: `trust_remote_code` becomes false.

    Args:
        url: The store.
        directory: A new or empty folder.
        at: Name of the backup; None: the newest.
        progress: A bar over the bytes.

    Raises:
        NotFoundError: The store has no backup, or none of this name.
        InputError: The folder is not empty.
        DataError: The backup is damaged, or names what is outside the workspace.
        ResourceError: The disk has less space than the backup needs.
    """
    store = Store(url)
    name = choose(store, at)
    manifest = store.read_manifest(name)
    target = empty_folder(directory)
    progress.start("restoring", manifest.bytes, "bytes")
    with publish(target) as partial:
        _check_space(manifest, partial.parent, name)
        for entry in manifest.files:
            file = partial / entry.path
            file.parent.mkdir(parents=True, exist_ok=True)
            store.get(entry.sha256, entry.size, file, progress)
        trust_reset = _distrust(partial / SETTINGS)
        check_catalog(Registry(partial / STORE), f"the backup {name}")
    progress.finish()
    return Restored(name, target, len(manifest.files), manifest.bytes, trust_reset)


def backups(url: str) -> list[str]:
    """Return the names of the backups in a store, the oldest first."""
    return Store(url).names()


def choose(store: Store, name: str | None) -> str:
    """Return the name of a backup, by default of the newest.

    Raises:
        NotFoundError: The store has no backup, or none of this name.
    """
    names = store.names()
    if not names:
        raise NotFoundError(f"{store.url} holds no finished backup. Make one with `continual backup {store.url}`.")
    if name is not None and name not in names:
        hint = did_you_mean(name, names)
        raise NotFoundError(f"{store.url} has no backup {name!r}.{hint}")
    return names[-1] if name is None else name


def _check_space(manifest: Manifest, folder: Path, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < manifest.bytes:
        raise ResourceError(
            f"The backup {name} needs {manifest.bytes:,} bytes, but {folder} has {free:,} free. Free some, or choose "
            "another folder."
        )


def _distrust(settings: Path) -> bool:
    """Turn off code that models bring with them, and return whether it was on.

    Raises:
        DataError: The settings are written so that it cannot be turned off.
    """
    if settings.stat().st_size > _SETTINGS_BYTES:
        raise DataError(f"{SETTINGS} of the backup has more than {_SETTINGS_BYTES:,} bytes. Choose another with --at.")
    text, changes = _TRUST.subn(r"\1false", settings.read_text("utf-8", "surrogateescape"))
    with suppress(tomllib.TOMLDecodeError, RecursionError):  # commands refuse such a file
        if tomllib.loads(text).get("trust_remote_code", False) is not False:
            raise DataError(f"{SETTINGS} of the backup hides trust_remote_code = true. Choose another with --at.")
    if changes:
        settings.write_text(text, "utf-8", "surrogateescape")
    return changes > 0

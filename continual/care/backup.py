"""Back up a workspace while others work in it, and restore it elsewhere.

The catalog is copied in one transaction, and then the files that it names. What other commands add in the meantime
belongs to the next backup. What they replace in the meantime, the leaks into a task, makes the copy start again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from continual import __version__
from continual.care.store import Store
from continual.care.targets import remember_target
from continual.errors import DataError, InputError, NotFoundError, did_you_mean
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.artifacts import Artifact, snapshot_of
from continual.registry.catalog import now
from continual.registry.digests import FileDigest
from continual.registry.erase import FORGOTTEN
from continual.storage.files import empty_folder, publish
from continual.stream.readers.base import file_sha256
from continual.versions.build import share_snapshots
from continual.versions.create import SETTINGS, STORE

SCHEMA = 1

_ATTEMPTS = 3
"""Attempts to copy a workspace in which another command replaces files."""

UNRECORDED = ("conflicts", "rejects", "certificates")
"""Folders whose files the catalog does not record, and which are worth keeping."""


@dataclass(frozen=True)
class Backup:
    """What a backup consists of.

    Attributes:
        name: Its name, the time in UTC, such as "20261130T021500Z".
        store: The folder or URL.
        files: Number of files of the workspace.
        bytes: Their size.
        new_files: Number of contents that the store did not have.
        new_bytes: Their size.
        left_out: What is not in it, in words, such as "the snapshot of v2, which can be rebuilt".
        verified: Whether every content was read back and had its digest.
    """

    name: str
    store: str
    files: int
    bytes: int
    new_files: int
    new_bytes: int
    left_out: list[str]
    verified: bool

    def to_json(self) -> dict[str, Any]:
        """Return the backup as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Restored:
    """What was restored.

    Attributes:
        name: The backup.
        directory: The new workspace.
        files: Number of files written.
        bytes: Their size.
    """

    name: str
    directory: Path
    files: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self) | {"directory": str(self.directory)}


def backup(
    directory: Path, registry: Registry, url: str, *, verify: bool = False, progress: Progress = SILENT
) -> Backup:
    """Copy a workspace into a store of backups. Contents that the store has are not copied again.

    Not copied are checkpoints of a running or interrupted update, which is discarded in the copy, and snapshots that
    were dropped and can be rebuilt.

    Args:
        directory: The workspace.
        registry: Its registry.
        url: The store: a folder, which is made, or a URL of fsspec.
        verify: Read every content of the backup back, and check its digest.
        progress: A bar over the bytes.

    Raises:
        InputError: The store cannot be used.
        DataError: A file of the workspace is damaged or missing, or the store damaged a content.
    """
    if "://" not in url and Path(url).expanduser().resolve().is_relative_to(directory.resolve()):
        raise InputError(f"{url} is inside the workspace. Choose a folder outside {directory}.")
    store = Store(url)
    store.create()
    for attempt in range(_ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix="continual-backup-") as scratch, share_snapshots(registry):
            copy = Registry(Path(scratch))
            registry.catalog.copy(copy.catalog.path)
            files, left_out = _contents(registry, copy)
            sources = {f"{STORE}/{digest.path}": (registry.root / digest.path, digest) for digest in files}
            for file, name in (
                (copy.catalog.path, f"{STORE}/{copy.catalog.path.name}"),
                (directory / SETTINGS, SETTINGS),
            ):
                sources[name] = (file, _measure(file, name))
            try:
                new = _copy(store, list(sources.values()), progress)
                break
            except DataError:
                if attempt == _ATTEMPTS - 1 or registry.digests.recorded() == copy.digests.recorded():
                    raise
    entries = [{"path": name, "sha256": digest.sha256, "size": digest.size} for name, (_, digest) in sources.items()]
    if verify:
        _verify(store, entries, progress)
    made = now().strftime("%Y%m%dT%H%M%S%fZ")
    store.write_manifest(made, {"schema": SCHEMA, "continual": __version__, "files": entries, "left_out": left_out})
    remember_target(registry.root, url)
    return Backup(
        name=made,
        store=url,
        files=len(sources),
        bytes=sum(digest.size for _, digest in sources.values()),
        new_files=len(new),
        new_bytes=sum(digest.size for digest in new),
        left_out=left_out,
        verified=verify,
    )


def _copy(store: Store, sources: Sequence[tuple[Path, FileDigest]], progress: Progress) -> list[FileDigest]:
    """Copy the contents that the store lacks, and return them."""
    new: list[FileDigest] = []
    progress.start("backing up", sum(digest.size for _, digest in sources), "bytes")
    for file, digest in sources:
        if store.has(digest.sha256, digest.size):
            progress.advance(digest.size)
        else:
            store.put(file, digest.sha256, progress)
            new.append(digest)
    progress.finish()
    return new


def restore(url: str, directory: str | Path, *, at: str | None = None, progress: Progress = SILENT) -> Restored:
    """Write the workspace of a backup to a new folder. Every file is checked; nothing appears before all are there.

    Args:
        url: The store.
        directory: A new or empty folder.
        at: Name of the backup; None: the newest.
        progress: A bar over the bytes.

    Raises:
        NotFoundError: The store has no backup, or none of this name.
        InputError: The folder is not empty.
        DataError: The backup is damaged.
    """
    store = Store(url)
    names = store.names()
    if not names:
        raise NotFoundError(f"{url} holds no finished backup. Make one with `continual backup {url}`.")
    if at is not None and at not in names:
        raise NotFoundError(f"{url} has no backup {at!r}.{did_you_mean(at, names)} It has {', '.join(names)}.")
    name = names[-1] if at is None else at
    entries = _entries(store, name)
    target = empty_folder(directory)
    progress.start("restoring", sum(entry.size for entry in entries), "bytes")
    with publish(target) as partial:
        for entry in entries:
            file = partial / entry.path
            file.parent.mkdir(parents=True, exist_ok=True)
            store.get(entry.sha256, file, progress)
    progress.finish()
    return Restored(name, target, len(entries), sum(entry.size for entry in entries))


def backups(url: str) -> list[str]:
    """Return the names of the backups in a store, the oldest first."""
    return Store(url).names()


def _contents(registry: Registry, copy: Registry) -> tuple[list[FileDigest], list[str]]:
    """Return the files that a copied catalog names, relative to `.continual/`, and what is left out of them."""
    run = copy.interrupted()
    if run is not None:
        copy.discard_run(run.id)
    recorded = copy.digests.recorded()
    files: list[FileDigest] = []
    snapshots: list[Artifact] = []
    left_out = [f"the update to {run.id}, which has not ended"] if run is not None else []
    for version in copy.versions():
        if version.status == FORGOTTEN:
            continue
        if registry.path(version.path).is_dir():
            snapshots.append(snapshot_of(version))
        elif version.parent is None:
            raise DataError(f"{registry.path(version.path)}, the root base, is missing. Run `continual doctor`.")
        else:
            left_out.append(f"the snapshot of {version.id}, which was dropped and can be rebuilt")
    versions = {version.path for version in copy.versions()}
    others = (artifact for artifact in copy.artifacts() if artifact.path not in versions)
    for artifact in (*snapshots, *others):
        # Artifacts of an older release have no digests.
        own = recorded.get(artifact.path) or registry.digests.measure(artifact.path)
        files += [
            each for each in own if Path(each.path).name not in artifact.rebuilt or registry.path(each.path).exists()
        ]
    for folder in UNRECORDED:
        files += registry.digests.measure(folder)
    return files, left_out


def _measure(file: Path, name: str) -> FileDigest:
    return FileDigest(name, name, file.stat().st_size, file_sha256(file))


def _entries(store: Store, name: str) -> list[FileDigest]:
    manifest = store.read_manifest(name)
    if manifest.get("schema") != SCHEMA:
        raise InputError(f"The backup {name} has schema {manifest.get('schema')}. Restore it with the newer continual.")
    entries = [FileDigest(str(e["path"]), "", int(e["size"]), str(e["sha256"])) for e in manifest["files"]]
    for entry in entries:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"The backup {name} names the file {entry.path}, which is outside the workspace.")
    return entries


def _verify(store: Store, entries: Sequence[dict[str, Any]], progress: Progress) -> None:
    progress.start("reading the backup", sum(int(entry["size"]) for entry in entries), "bytes")
    for sha256 in sorted({str(entry["sha256"]) for entry in entries}):
        try:
            store.get(sha256, None, progress)
        except DataError:
            store.drop(sha256)
            raise
    progress.finish()

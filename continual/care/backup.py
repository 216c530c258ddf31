"""Back up a workspace while others work in it.

The catalog is copied in one transaction, and then the files that it names. What other commands add in the meantime
belongs to the next backup. What they replace in the meantime, the leaks into a task, makes the copy start again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from continual import __version__
from continual.care.manifest import CATALOG, SCHEMA, UNRECORDED, Entry, Manifest
from continual.care.restore import choose
from continual.care.store import Store
from continual.care.targets import remember_target
from continual.errors import DataError, InputError
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.artifacts import Artifact, snapshot_of
from continual.registry.catalog import now
from continual.registry.digests import FileDigest, files_below
from continual.registry.erase import FORGOTTEN
from continual.storage.locks import require_finished
from continual.versions.build import share_snapshots
from continual.versions.create import SETTINGS, STORE

_ATTEMPTS = 3
"""Attempts to copy a workspace in which another command replaces files."""


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
        replaced: Number of contents that the store held damaged, and that were stored again.
        left_out: What is not in it, in words, such as "the snapshot of v2, which can be rebuilt".
        verified: Whether every content was read back and had its digest.
    """

    name: str
    store: str
    files: int
    bytes: int
    new_files: int
    new_bytes: int
    replaced: int
    left_out: list[str]
    verified: bool

    def to_json(self) -> dict[str, Any]:
        """Return the backup as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Removed:
    """A backup that was removed.

    Attributes:
        name: The backup.
        store: The folder or URL.
        files: Number of contents that no other backup consists of, and that were removed too.
        bytes: Their size.
    """

    name: str
    store: str
    files: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Source:
    """A file to copy.

    Attributes:
        path: Its path relative to the workspace.
        file: Where it is.
        recorded: Its recorded digest; None if other commands may replace it meanwhile.
    """

    path: str
    file: Path
    recorded: FileDigest | None = None


@dataclass(slots=True)
class _Copied:
    """What was copied: the entries of the manifest, the sizes of the new contents, and the number of damaged ones."""

    entries: list[Entry]
    new: list[int]
    replaced: int = 0


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
        verify: Read every content of the backup back, check its digest, and replace what is damaged.
        progress: A bar over the bytes.

    Raises:
        InputError: The store cannot be used.
        DataError: A file of the workspace is damaged or missing, or the store damages what is written.
        WorkspaceBusy: Backups are being removed from the store.
    """
    store = Store(url)
    if store.folder is not None and store.folder.resolve().is_relative_to(directory.resolve()):
        raise InputError(f"{url} is inside the workspace. Choose a folder outside {directory}.")
    store.create()
    require_finished(registry.root, "backup")
    remember_target(registry.root, url)  # first: `forget` must name the place even if it runs meanwhile
    with store.in_use(alone=False, seconds=registry.catalog.busy_seconds):
        copied, left_out = _copy_all(directory, registry, store, verify=verify, progress=progress)
        made = now().strftime("%Y%m%dT%H%M%S%fZ")
        manifest = Manifest(schema=SCHEMA, continual=__version__, files=copied.entries, left_out=left_out)
        store.write_manifest(made, manifest)
    return Backup(
        name=made,
        store=url,
        files=len(manifest.files),
        bytes=manifest.bytes,
        new_files=len(copied.new),
        new_bytes=sum(copied.new),
        replaced=copied.replaced,
        left_out=left_out,
        verified=verify,
    )


def _copy_all(
    directory: Path, registry: Registry, store: Store, *, verify: bool, progress: Progress
) -> tuple[_Copied, list[str]]:
    """Copy the catalog and what it names; if another command replaces files meanwhile, start again."""
    for left in reversed(range(_ATTEMPTS)):
        with tempfile.TemporaryDirectory(prefix="continual-backup-") as scratch, share_snapshots(registry):
            copy = Registry(Path(scratch))
            registry.catalog.copy(copy.catalog.path)
            files, left_out = _contents(registry, copy)
            loose = [file for folder in UNRECORDED for file in files_below(registry.path(folder))]
            sources = [
                *(_Source(f"{STORE}/{each.path}", registry.path(each.path), each) for each in files),
                *(_Source(file.relative_to(directory).as_posix(), file) for file in loose),
                _Source(CATALOG, copy.catalog.path),
                _Source(SETTINGS, directory / SETTINGS),
            ]
            sources = list({source.path: source for source in reversed(sources)}.values())  # recorded ones first
            try:
                return _copy(store, sources, verify=verify, progress=progress), left_out
            except DataError:
                if not left or registry.digests.recorded() == copy.digests.recorded():
                    raise
    raise AssertionError


def _copy(store: Store, sources: Sequence[_Source], *, verify: bool, progress: Progress) -> _Copied:
    """Copy the contents that the store lacks or holds damaged."""
    done, seen = _Copied([], []), set[str]()
    progress.start("backing up", sum(each.recorded.size for each in sources if each.recorded), "bytes")
    for source in sources:
        try:
            sha256, size = _measure(source)
            found = store.find(sha256, size) if sha256 not in seen else "stored"
            if found == "stored" and verify and sha256 not in seen:
                found = _read_back(store, sha256, size)
            if found == "stored":
                progress.advance(size)
            else:
                sha256, size = store.put(source.file, sha256 if source.recorded else None, progress)
                done.new.append(size)
                done.replaced += found == "damaged"
                if verify:
                    store.get(sha256, size, None)
        except FileNotFoundError:
            if source.recorded is None and source.path not in (CATALOG, SETTINGS):
                continue  # another command removed it
            raise DataError(
                f"{source.file} is missing. Run `continual doctor`, which says what it belongs to."
            ) from None
        seen.add(sha256)
        done.entries.append(Entry(path=source.path, sha256=sha256, size=size))
    progress.finish()
    return done


def _measure(source: _Source) -> tuple[str, int]:
    """Return the digest and the size of a file, as recorded or as it is now."""
    if source.recorded is not None:
        return source.recorded.sha256, source.recorded.size
    with source.file.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _read_back(store: Store, sha256: str, size: int) -> Literal["stored", "damaged"]:
    try:
        store.get(sha256, size, None)
    except DataError:
        return "damaged"
    return "stored"


def remove_backup(url: str, name: str, *, seconds: float = 60.0) -> Removed:
    """Remove a backup, and the contents that no other backup consists of.

    Args:
        url: The store.
        name: The backup.
        seconds: Longest wait for backups that are being made.

    Raises:
        NotFoundError: There is no such backup.
        DataError: Another backup cannot be read, so nobody knows what it consists of.
        WorkspaceBusy: The store is in use.
    """
    store = Store(url)
    choose(store, name)
    with store.in_use(alone=True, seconds=seconds):
        contents, size = store.remove(name)
    return Removed(name, url, contents, size)


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
    return files, left_out

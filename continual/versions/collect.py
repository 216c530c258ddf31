"""Garbage collection: drop the snapshots that can be rebuilt, and checkpoints of unfinished recipe phases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from continual.errors import DataError, ModelError, RebuildError
from continual.progress import SILENT, Progress
from continual.registry import CURRENT, ROOT, Registry, Version
from continual.storage.files import discard, remove
from continual.versions.build import PHASE_RUN, has_adapter, hold_snapshots, temporary_rebuild


@dataclass(frozen=True)
class Collected:
    """Outcome of a garbage collection.

    Attributes:
        dropped: Ids of the versions whose snapshots were dropped.
        kept: Why each other snapshot was kept, by version id: "root", "current", "pinned", "store.keep_every = 10" ...
        bytes: Number of bytes freed.
        checkpoints: Number of checkpoints of unfinished recipe phases that were removed.
    """

    dropped: list[str]
    kept: dict[str, str]
    bytes: int
    checkpoints: int


def collect(registry: Registry, keep_every: int, *, dry_run: bool = False, progress: Progress = SILENT) -> Collected:
    """Drop the snapshots that can be rebuilt. Each is rebuilt and compared with its record before any is dropped.

    The snapshots of the root base, of the current version, of pinned versions and of every `keep_every`-th version
    stay. Checkpoints of unfinished recipe phases are removed too. The caller holds the update lock.

    Args:
        keep_every: 0 keeps no further snapshot.
        dry_run: Only report what would be dropped, without rebuilding anything.
    """
    kept: dict[str, str] = {}
    dropped: list[str] = []
    freed = 0

    def candidates() -> Iterator[tuple[Version, str | None]]:
        current = registry.version(CURRENT).id
        for position, entry in enumerate(registry.entries()):
            if registry.path(entry.path).is_dir():
                version = registry.version(entry.id)
                yield version, _reason_to_keep(registry, version, position, current, keep_every)

    # The rebuilds take no lock, so that others can read. The reasons are asked for again under the lock, because the
    # current version or the pins may have changed in between.
    failures = {}
    for version, reason in candidates():
        if reason is None:
            failures[version.id] = None if dry_run else _rebuild_failure(registry, version, progress)
    with hold_snapshots(registry):
        for version, reason in candidates():
            reason = reason or failures.get(version.id, "rebuilt by another command")
            if reason is not None:
                kept[version.id] = reason
                continue
            folder = registry.path(version.path)
            freed += _size(folder)
            dropped.append(version.id)
            if not dry_run:
                discard(folder)
    checkpoints = sorted(registry.path("runs").glob(f"{PHASE_RUN}*"))
    for folder in checkpoints:
        freed += _size(folder)
        if not dry_run:
            remove(folder)
    return Collected(dropped, kept, freed, len(checkpoints))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _rebuild_failure(registry: Registry, version: Version, progress: Progress) -> str | None:
    """Rebuild a version; return why that failed, or None if its weights are those recorded."""
    try:
        with temporary_rebuild(registry, version, progress, from_root=False):
            return None
    except (RebuildError, ModelError, DataError) as error:
        return f"cannot be rebuilt: {error}"


def _reason_to_keep(registry: Registry, version: Version, position: int, current: str, keep_every: int) -> str | None:
    """Return why a snapshot must stay, or None."""
    if version.id in (ROOT, current):
        return "root" if version.id == ROOT else "current"
    if version.pinned:
        return "pinned"
    if keep_every and position % keep_every == 0:
        return f"store.keep_every = {keep_every}"
    if not version.provenance.members and not has_adapter(registry, version):
        return "its adapter is gone"
    return None

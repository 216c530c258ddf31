"""Commands on versions: list, promote, roll back, pin, rebuild, and collect garbage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from continual.config import Config
from continual.errors import InputError
from continual.progress import SILENT, Progress
from continual.registry import CURRENT, Alias, Registry, Version, VersionEntry
from continual.storage.locks import UPDATE_LOCK
from continual.versions.build import kept, rebuild
from continual.versions.collect import Collected, collect


@dataclass(frozen=True)
class VersionList:
    """All versions of a workspace.

    Attributes:
        current: Id of the current version.
        versions: All versions, or their entries, the root base first.
        dropped: Ids of the versions whose snapshot was dropped. A command that needs one rebuilds it.
    """

    current: str
    versions: list[Version] | list[VersionEntry]
    dropped: set[str]

    def to_json(self) -> dict[str, Any]:
        """Return the list as plain data. Each version has a field `dropped`."""
        rows = [version.to_json() | {"dropped": version.id in self.dropped} for version in self.versions]
        return {"current": self.current, "versions": rows}


def list_versions(registry: Registry, *, full: bool = True) -> VersionList:
    """Return all versions, with the ids of those without a snapshot; see `Workspace.list_versions`."""
    with registry.catalog.together():
        versions = registry.versions() if full else registry.entries()
        current = registry.entry(CURRENT).id
    dropped = {version.id for version in versions if not registry.path(version.path).is_dir()}
    return VersionList(current, versions, dropped)


def promote(registry: Registry, name: str, reason: str, progress: Progress = SILENT) -> Alias:
    """Make a version the current version; see `Workspace.promote`."""
    registry.catalog.require_writable("promote")
    version = registry.entry(name)
    if version.id == registry.entry(CURRENT).id:
        raise InputError(
            f"{version.id} is already the current version. List the others with `continual versions list`."
        )
    with kept(registry, version.id, progress=progress):
        return registry.set_alias(CURRENT, version.id, reason)


def rollback(registry: Registry, reason: str, progress: Progress = SILENT) -> Alias:
    """Make the previous version the current version again; see `Workspace.rollback`."""
    registry.catalog.require_writable("rollback")
    before = registry.before(CURRENT)
    if before is None:
        raise InputError(
            f"{registry.entry(CURRENT).id} is the first current version, so there is nothing to roll back to. "
            "Make another version current with `continual promote VERSION`."
        )
    with kept(registry, before, progress=progress):
        return registry.set_alias(CURRENT, before, reason)


def pin(registry: Registry, name: str, pinned: bool, progress: Progress = SILENT) -> Version:
    """Keep the snapshot of a version, or let `gc` drop it; see `Workspace.pin`."""
    registry.catalog.require_writable("versions pin")
    version = registry.entry(name)
    if pinned:
        with kept(registry, version.id, progress=progress):
            registry.pin(version.id, True)
    else:
        registry.pin(version.id, False)
    return registry.version(version.id)


def rebuild_version(registry: Registry, name: str, progress: Progress = SILENT) -> Version:
    """Rebuild a version under the update lock; see `Workspace.rebuild`."""
    version = registry.version(name)
    with registry.lock(UPDATE_LOCK, "versions rebuild"):
        rebuild(registry, version, progress)
    return version


def collect_garbage(
    registry: Registry,
    config: Config,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> Collected:
    """Drop snapshots under the update lock; see `Workspace.gc`."""
    keep_every = config.change(settings or {}, only="store").store.keep_every
    with registry.lock(UPDATE_LOCK, "gc"):
        return collect(registry, keep_every, dry_run=dry_run, progress=progress)

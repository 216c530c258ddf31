"""Files that the catalog does not know, what killed processes left, and the free space."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from continual.care.findings import Finding
from continual.care.targets import FILE as TARGETS
from continual.registry import ROOT, Registry
from continual.registry.artifacts import Artifact
from continual.registry.digests import CHECKED, FileDigest, is_hidden
from continual.storage.aside import LOST, announced
from continual.storage.files import in_use, is_unfinished
from continual.storage.locks import INGEST_LOCK, STAGING, UPDATE_LOCK, held
from continual.stream.sweep import ANNOUNCED as INGEST_NOTE
from continual.versions.sweep import ANNOUNCED as STEP_NOTE

FREE = (
    *("conflicts", "vectors", "mined", "tracking", "rejects", LOST, "runs/conflicts", CHECKED, "scores/remembered.npz"),
    *("certificates", TARGETS),
)
"""Folders and files whose content the catalog does not record: caches, logs, rejected rows, and certificates."""

STEP_FOLDERS = ("versions", "adapters", "scores", "runs")
"""Folders in which a running or interrupted step, or a training, writes what is not recorded yet."""

SNAPSHOTS_NEEDED = 3
"""A step needs room for about three snapshots: the update model, the new version, and what a rebuild writes."""


def check_disk(
    registry: Registry, artifacts: Sequence[Artifact], recorded: Mapping[str, list[FileDigest]], *, alone: bool
) -> Iterator[Finding]:
    """Yield files that nothing records, leftovers of processes, and a warning if the next step lacks space.

    Args:
        alone: Whether the caller holds the locks, so that no other command is writing.
    """
    owners = {artifact.path: artifact.owner for artifact in artifacts}
    left = announced(registry.root / STEP_NOTE) | announced(registry.root / INGEST_NOTE)
    for path in _unrecorded(registry, artifacts, recorded, alone=alone):
        place = path.relative_to(registry.root).as_posix()
        where = f".continual/{place}"
        owner = next((owners[each] for each in map(str, Path(place).parents) if each in owners), None)
        if owner is not None and not is_unfinished(path):
            what = "is hidden, so it is neither checked nor exported or backed up"
            yield Finding("note", where, what, f"nothing; it lies in the folder of {owner}", "Remove it if you like.")
        elif is_unfinished(path) or place == STAGING or place in left:
            if is_unfinished(path) and in_use(path):
                yield Finding("note", where, "is being written by another process", "nothing", "Wait until it ends.")
            else:
                what = "was left by a process that was killed"
                yield Finding("warning", where, what, "disk space", _FIX, mend="sweep", subject=place)
        else:
            yield Finding(
                "warning",
                where,
                "is not recorded in the catalog; perhaps an older catalog was restored",
                "nothing that is recorded; a command that makes a file of this name would meet it",
                f"Restore the newer catalog, or move it to .continual/{LOST} with `continual doctor --fix`.",
                mend="aside",
                subject=place,
            )
    lost = registry.path(LOST)
    if lost.is_dir() and any(lost.iterdir()):
        what = "holds files that the catalog did not know"
        cure = "Restore the newer catalog if they belong to it, or remove the folder."
        yield Finding("note", f".continual/{LOST}", what, "disk space", cure)
    yield from _space(registry)


_FIX = "Remove it with `continual doctor --fix`."


def _unrecorded(
    registry: Registry, artifacts: Sequence[Artifact], recorded: Mapping[str, list[FileDigest]], *, alone: bool
) -> Iterator[Path]:
    """Yield the files that nothing accounts for. Of a folder that is unknown as a whole, only the folder is yielded.

    In the folder of an artifact, only hidden files are yielded: the check of its digests finds the others.
    """
    files = {digest.path for digests in recorded.values() for digest in digests}
    whole = {artifact.path for artifact in artifacts if artifact.path not in recorded} | set(FREE)
    run = registry.interrupted()
    if run is not None:
        whole |= {f"{folder}/{run.id}" for folder in STEP_FOLDERS}
    checked = {artifact.path for artifact in artifacts if artifact.path in recorded}
    dropped = {version.path for version in registry.versions()}
    known = files | whole | dropped
    folders = {parent.as_posix() for path in known for parent in Path(path).parents}
    folders |= {*STEP_FOLDERS, "data", "tasks", *dropped}
    stepping, ingesting = (not alone and held(registry.root / lock) for lock in (UPDATE_LOCK, INGEST_LOCK))

    def visit(folder: Path, *, inside: bool = False) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            place = path.relative_to(registry.root).as_posix()
            top = place.partition("/")[0]
            if place in whole or _is_ours(registry, path, place):
                continue
            if is_unfinished(path) or (inside and is_hidden(path.name) and place not in known | folders):
                yield path
            elif path.is_dir() and (inside or place in folders):
                yield from visit(path, inside=inside or place in checked)
            elif inside or (stepping and top in STEP_FOLDERS) or (ingesting and top in ("data", "tasks", STAGING)):
                continue
            elif path.is_dir() or place not in files:
                yield path

    yield from visit(registry.root)


def _is_ours(registry: Registry, path: Path, place: str) -> bool:
    """Return whether a path belongs to the catalog, to the locks, or to the checkpoint of a recipe's phase."""
    if path.parent == registry.root and (
        path.suffix in (".lock", ".announced") or path.name in _catalog_files(registry.catalog.path.name)
    ):
        return True
    return place.startswith("runs/train-") or path.name == "__pycache__"


def _catalog_files(name: str) -> set[str]:
    """Return the names of the catalog and of the logs that DuckDB keeps beside it."""
    return {name, *(f"{name}.wal{suffix}" for suffix in ("", ".checkpoint", ".recovery"))}


def _space(registry: Registry) -> Iterator[Finding]:
    root = registry.path(registry.version(ROOT).path)
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    needed, free = SNAPSHOTS_NEEDED * size, shutil.disk_usage(registry.root).free
    if free < needed:
        yield Finding(
            "warning",
            str(registry.root),
            f"has {free / 1e6:,.0f} MB free, and the next update needs about {needed / 1e6:,.0f} MB",
            "the next update",
            "Free space, for example with `continual gc`.",
        )

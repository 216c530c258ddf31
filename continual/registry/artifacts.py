"""What the records own on disk: a snapshot, an adapter, rows, rejects, a task, or scores per query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from continual.registry.records import MTEB, Batch, Score, Task, Version

BACKUP = "Restore it from a backup."

_TASK_FILES = ("corpus", "queries", "qrels", "keys")
"""Parquet files in the folder of a local task. Its shingles are rebuilt from its texts if they are missing."""

_MTEB_FILES = ("keys", "shingles")
"""Parquet files in the folder of an mteb task."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file or folder that belongs to one record.

    Attributes:
        owner: The record, in words, such as "version v3".
        path: Relative to `.continual/`.
        cure: What to do if a file of it is damaged.
        rebuilt: Names of files that are written again when they are missing.
    """

    owner: str
    path: str
    cure: str
    rebuilt: tuple[str, ...] = ()


def snapshot_of(version: Version) -> Artifact:
    """Return the model folder of a version."""
    cure = f"Rebuild it with `continual versions rebuild {version.id}`."
    if version.parent is None:
        cure = f"{BACKUP} It is the root base, a copy of {version.provenance.base}, and cannot be rebuilt."
    return Artifact(f"version {version.id}", version.path, cure)


def adapter_of(version: Version) -> Artifact | None:
    """Return the adapter of a version; None if it has none."""
    if version.adapter is None:
        return None
    cure = f"{BACKUP} Without it, neither {version.id} nor any later version can be rebuilt."
    return Artifact(f"the adapter of {version.id}", version.adapter, cure)


def rows_of(batch: Batch) -> Artifact:
    """Return the rows of a batch."""
    return Artifact(f"batch {batch.id} of the domain {batch.domain}, from {batch.source}", batch.path, BACKUP)


def rejects_of(batch: Batch) -> Artifact | None:
    """Return the rejected rows of a batch; None if it has none."""
    if batch.rejects_path is None:
        return None
    return Artifact(f"the rejects of batch {batch.id}", batch.rejects_path, f"{BACKUP} No command reads it.")


def folder_of(task: Task) -> Artifact:
    """Return the folder of a task."""
    cure = BACKUP
    if task.origin != "holdout":
        domain = f" --domain {task.domain}" if task.domain else ""
        source = task.name if task.origin == MTEB + task.name else f"{task.name} {task.origin}"
        cure = f"Restore it from a backup, or with `continual task add {source}{domain}`."
    return Artifact(f"the task {task.name}", task.path, cure, rebuilt=() if task.mteb else ("shingles.parquet",))


def files_of(folder: Path, task: Task) -> list[Path]:
    """Return the files that the folder of a task must have."""
    return [folder / f"{name}.parquet" for name in (_TASK_FILES if task.mteb is None else _MTEB_FILES)]


def queries_of(score: Score) -> Artifact | None:
    """Return the scores per query of a score; None if it has none."""
    if score.path is None:
        return None
    cure = f"Restore it from a backup, or score again: `continual doctor --fix`, then `continual eval {score.version}`."
    return Artifact(f"the scores of {score.version} on {score.task}", score.path, cure)

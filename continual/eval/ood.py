"""Flags for tasks whose texts a version's lineage was trained on: their scores are not out of domain.

Rows that leak into a registered task are never trained on. A task that is registered later is checked against all
stored rows. Every version that trained on rows leaking into it, and every descendant of such a version, gets a flag. A
flag is permanent, because weights don't unlearn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from continual.registry import Registry
from continual.registry.artifacts import folder_of
from continual.registry.records import Batch, Leak, Task, VersionEntry


@dataclass(frozen=True, slots=True)
class Flag:
    """A task whose texts a version's lineage was trained on, so that its score is not out of domain.

    Attributes:
        version: Id of the version.
        task: Name of the task.
        rows: Number of trained rows that leak into the task.
        near: Number of these rows that are only near duplicates.
        learned_by: Ids of the versions in the lineage whose steps trained on these rows.
        domains: The domains of these rows.
    """

    version: str
    task: str
    rows: int
    near: int
    learned_by: list[str]
    domains: list[str]

    @property
    def why(self) -> str:
        """The reason for the flag, as a sentence."""
        rows = f"{self.rows:,} row{'s' * (self.rows > 1)} of {', '.join(self.domains)}"
        near = f" ({self.near:,} as near duplicates)" if self.near else ""
        verb = "leak" if self.rows > 1 else "leaks"
        versions = " and ".join(self.learned_by)
        return f"{versions} trained on {rows} that {verb} into {self.task}{near}, before the task was registered."


def flags(registry: Registry) -> dict[tuple[str, str], Flag]:
    """Return the flags of all versions, by version and task."""
    leaks = registry.leaks()
    if not leaks:
        return {}
    tasks = {task.name: task for task in registry.tasks()}
    batches = {batch.id: batch for batch in registry.batches()}
    by_batch: dict[str, list[Leak]] = {}
    for leak in leaks:
        by_batch.setdefault(leak.batch, []).append(leak)
    versions = registry.entries()
    trained = [version.id for version in versions if not by_batch.keys().isdisjoint(version.batches)]
    recorded = registry.guarded(trained)
    flagged: dict[str, dict[str, Flag]] = {}
    for version in versions:
        own = {task: replace(flag, version=version.id) for task, flag in flagged.get(version.parent or "", {}).items()}
        found = [leak for batch in version.batches for leak in by_batch.get(batch, ())]
        guarded = _guarded(version, recorded[version.id], tasks) if found else set()
        for leak in sorted(found, key=leaks.index):
            if leak.task in tasks and leak.task not in guarded:
                rows = leak.rows - _spared(registry, tasks, guarded, leak.task, batches[leak.batch])
                if rows:
                    near, domain = min(leak.near, rows), batches[leak.batch].domain
                    own[leak.task] = _add(own.get(leak.task), version.id, leak.task, rows, near, domain)
        flagged[version.id] = {task: replace(own[task], version=version.id) for task in tasks if task in own}
    return {(version, task): flag for version, found in flagged.items() for task, flag in found.items()}


def flags_of(registry: Registry, version: str) -> dict[str, Flag]:
    """Return the flags of one version, by task."""
    return {task: flag for (owner, task), flag in flags(registry).items() if owner == version}


def _add(flag: Flag | None, version: str, task: str, rows: int, near: int, domain: str) -> Flag:
    if flag is None:
        return Flag(version, task, rows, near, [version], [domain])
    learned_by = list(dict.fromkeys([*flag.learned_by, version]))
    domains = list(dict.fromkeys([*flag.domains, domain]))
    return Flag(version, task, flag.rows + rows, flag.near + near, learned_by, domains)


def _guarded(version: VersionEntry, guarded: list[str] | None, tasks: Mapping[str, Task]) -> set[str]:
    """Return the names of the tasks that were registered when a step drew its rows."""
    if guarded is None:  # versions of older releases don't record this
        return {name for name, task in tasks.items() if task.created_at < version.created_at}
    return set(guarded)


def _spared(registry: Registry, tasks: Mapping[str, Task], guarded: set[str], name: str, batch: Batch) -> int:
    """Return how many leaking rows a step left out because they also leak into a guarded task."""
    leaking = _hashes(registry, tasks[name], batch)
    others = [_hashes(registry, tasks[other], batch) for other in sorted(guarded)]
    return len(leaking & set().union(*others))


def _hashes(registry: Registry, task: Task, batch: Batch) -> set[str]:
    """Return the hashes of a batch's rows that leak into a task registered after the batch."""
    import pyarrow.parquet as pq

    file = registry.path(task.path) / "leaks.parquet"
    if not file.is_file():
        return set()
    registry.digests.check(folder_of(task), missing_ok=True)
    rows = pq.read_table(file, columns=["row_hash"], filters=[("batch", "=", batch.id)])
    return set(rows["row_hash"].to_pylist())

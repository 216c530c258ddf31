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
from continual.registry.records import Batch, Task, Version


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
    flagged: dict[tuple[str, str], Flag] = {}
    for version in registry.versions():
        guarded = _guarded(version, tasks)
        for name in tasks:
            flag = flagged.get((version.parent or "", name))
            for leak in leaks:
                if leak.task == name and leak.batch in version.batches and name not in guarded:
                    rows = leak.rows - _spared(registry, tasks, guarded, name, batches[leak.batch])
                    if rows:
                        near = min(leak.near, rows)
                        flag = _add(flag, version.id, name, rows, near, batches[leak.batch].domain)
            if flag is not None:
                flagged[version.id, name] = replace(flag, version=version.id)
    return flagged


def flags_of(registry: Registry, version: str) -> dict[str, Flag]:
    """Return the flags of one version, by task."""
    return {task: flag for (owner, task), flag in flags(registry).items() if owner == version}


def _add(flag: Flag | None, version: str, task: str, rows: int, near: int, domain: str) -> Flag:
    if flag is None:
        return Flag(version, task, rows, near, [version], [domain])
    learned_by = list(dict.fromkeys([*flag.learned_by, version]))
    domains = list(dict.fromkeys([*flag.domains, domain]))
    return Flag(version, task, flag.rows + rows, flag.near + near, learned_by, domains)


def _guarded(version: Version, tasks: Mapping[str, Task]) -> set[str]:
    """Return the names of the tasks that were registered when a step drew its rows."""
    guarded = version.provenance.guarded
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

"""What a version's lineage trained on of a task: a task is out of domain only where that is nothing.

No row that leaks into a known task is ever trained on. What remains is a task that came later than the rows: it is
checked against all of them when it is registered, and every version that learned such rows, or comes from one that
did, has a flag for it. A flag stays: weights do not unlearn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from continual.registry.records import Batch, Task, Version
from continual.registry.registry import Registry


@dataclass(frozen=True, slots=True)
class Flag:
    """A task whose texts a version's lineage trained on, so that its score is no measure of what the version never saw.

    Attributes:
        version: The version.
        task: The task.
        rows: Rows that were trained on, and leak into the task.
        near: Those of them that are near duplicates only.
        learned_by: The versions of the lineage whose steps learned them.
        domains: The domains that they are in.
    """

    version: str
    task: str
    rows: int
    near: int
    learned_by: list[str]
    domains: list[str]

    @property
    def why(self) -> str:
        """The reason as a sentence."""
        rows = f"{self.rows:,} row{'s' * (self.rows > 1)} of {', '.join(self.domains)}"
        near = f" ({self.near:,} nearly)" if self.near else ""
        verb = "are" if self.rows > 1 else "is"
        who = " and ".join(self.learned_by)
        return f"{who} learned {rows} before {self.task} was registered, which {verb} in it{near}."


def flags(registry: Registry) -> dict[tuple[str, str], Flag]:
    """Return the flags of all versions, by version and task; most workspaces have none."""
    leaks = registry.leaks()
    if not leaks:
        return {}
    tasks = {task.name: task for task in registry.tasks()}
    batches = {batch.id: batch for batch in registry.batches()}
    found: dict[tuple[str, str], Flag] = {}
    for version in registry.versions():
        guarded = _guarded(version, tasks)
        for name in tasks:
            flag = found.get((version.parent or "", name))
            for leak in leaks:
                if leak.task == name and leak.batch in version.batches and name not in guarded:
                    rows = leak.rows - _spared(registry, tasks, guarded, name, batches[leak.batch])
                    if rows:
                        near = min(leak.near, rows)
                        flag = _add(flag, version.id, name, rows, near, batches[leak.batch].domain)
            if flag is not None:
                found[version.id, name] = replace(flag, version=version.id)
    return found


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
    """Return the tasks that were known when the rows of a step were drawn."""
    known = version.provenance.guarded
    if known is None:  # a step of before this was recorded
        return {name for name, task in tasks.items() if task.created_at < version.created_at}
    return set(known)


def _spared(registry: Registry, tasks: Mapping[str, Task], guarded: set[str], name: str, batch: Batch) -> int:
    """Return how many leaking rows a step did not train on, because they leak into a task that was known as well."""
    leaking = _hashes(registry, tasks[name], batch)
    others = [_hashes(registry, tasks[other], batch) for other in sorted(guarded)]
    return len(leaking & set().union(*others))


def _hashes(registry: Registry, task: Task, batch: Batch) -> set[str]:
    """Return the hashes of the rows of a batch that leak into a task which came after it."""
    import pyarrow.parquet as pq

    file = registry.path(task.path) / "leaks.parquet"
    if not file.is_file():
        return set()
    rows = pq.read_table(file, columns=["row_hash"], filters=[("batch", "=", batch.id)])
    return set(rows["row_hash"].to_pylist())

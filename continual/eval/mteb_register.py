"""Tasks and benchmarks of mteb as tasks of a workspace: registered whole or not at all, and kept out of training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from continual.errors import (
    DataError,
    InputError,
    NotFoundError,
    did_you_mean,
)
from continual.progress import SILENT, Progress
from continual.registry import Registry, Task
from continual.registry.catalog import now
from continual.registry.names import check_name
from continual.storage.files import publish
from continual.storage.locks import exclusive
from continual.stream.leaks import count_leaks, find_leaks, write_leaks
from continual.stream.sweep import swept
from continual.stream.task_files import write_keys
from continual.stream.tasks import (
    LOCK,
    TaskReport,
    task_path,
    task_taken,
)


@dataclass(frozen=True)
class _Loaded:
    """A task that can be registered, with the texts that must not be trained on."""

    record: Task
    queries: set[str]
    documents: set[str]
    checked: bool


def register(
    registry: Registry,
    source: str,
    *,
    name: str | None = None,
    domain: str | None = None,
    subsets: Sequence[str] = (),
    skip_missing: bool = False,
    progress: Progress = SILENT,
) -> list[TaskReport]:
    """Register a task of mteb, or all tasks of a benchmark.

    Their data is loaded once, by mteb: to see that it is there, to count it, and to keep hashes and shingles of queries
    and relevant documents, or of the texts of all items, which no training row may have. What a task is (mteb's name,
    the revision of the data set, subsets, splits, main score) is recorded and never changes.

    Args:
        registry: Where they go.
        source: mteb's name of a task or benchmark, with "mteb:" before it.
        name: The task's name here; by default mteb's, with its subsets if it is restricted to some.
        domain: The ingested domain that it tests; None makes it out of domain for every version.
        subsets: Of a single task, the subsets to keep; none keeps all.
        skip_missing: Leave out tasks of a benchmark whose data cannot be had.
        progress: Shows how far it is.

    Returns:
        One report a task; those left out are missing.

    Raises:
        NotFoundError: mteb or the workspace lacks what was named.
        DataError: Data cannot be had; nothing was registered.
        InvalidNameError: A name is not allowed, or another task has it; nothing was registered.
        WorkspaceBusy: An ingest or another import is running.
    """
    from continual.eval import mteb_tasks
    from continual.eval.run import own_randomness, quiet

    with quiet(), own_randomness():
        found = mteb_tasks.find_mteb_tasks(source.removeprefix(mteb_tasks.PREFIX), subsets)
        if name is not None and len(found) > 1:
            raise InputError(
                f"{source} is a benchmark of {len(found)} tasks, which keep their names. Leave out {name!r}."
            )
        names = [check_name(mteb_tasks.default_name(task) if name is None else name, "task") for task in found]
        wanted = dict(zip(names, found, strict=True))
        _check_free(registry, wanted, domain)
        loaded, faults = [], []
        for place, (title, task) in enumerate(wanted.items()):
            progress.start(f"reading {title} ({place + 1} of {len(wanted)})", None, "tasks")
            try:
                loaded.append(_load(task, title, domain))
            except DataError as error:
                faults.append(error)
        progress.finish()
    if faults and not (skip_missing and len(found) > 1):
        more = "" if len(found) == 1 else " Or leave such tasks out with --skip-missing. Nothing was registered."
        others = [str(fault).partition(" cannot ")[0] for fault in faults[1:]]
        rest = f" So it is with {len(others)} more: {'; '.join(others)}." if others else ""
        raise DataError(f"{faults[0]}{rest}{more}")
    if not loaded:
        raise DataError(f"None of the {len(found)} tasks of {source} has data that can be had. {faults[0]}")
    with exclusive(registry.root / LOCK, "ingest` or `continual task add"):
        _check_free(registry, wanted, domain)
        return _record(registry, loaded)


def _check_free(registry: Registry, wanted: dict[str, Any], domain: str | None) -> None:
    """Refuse a domain that is not there, and names that are other tasks'."""
    domains = [known.name for known in registry.domains()]
    if domain is not None and domain not in domains:
        raise NotFoundError(
            f"There is no domain {domain!r}.{did_you_mean(domain, domains)} A domain comes with `continual ingest`."
        )
    for known in registry.tasks():
        if known.name in wanted and (known.sha256 != _sha256(wanted[known.name]) or known.domain != domain):
            raise task_taken(known)


def _load(task: Any, name: str, domain: str | None) -> _Loaded:
    import mteb

    from continual.eval import mteb_tasks

    mteb_tasks.load_task_data(task)
    held, content = mteb_tasks.contents(task), mteb_tasks.digest_task_data(task)
    mteb_tasks.unload_task_data(task)
    if not held.queries:
        raise DataError(f"The mteb task {task.metadata.name} has nothing to score in {', '.join(task.hf_subsets)}.")
    known = mteb_tasks.identity(task)
    record = Task(
        name=name,
        domain=domain,
        path=task_path(name),
        queries=held.queries,
        documents=held.documents,
        judgements=held.judgements,
        origin=mteb_tasks.PREFIX + known["task"],
        sha256=_sha256(task),
        created_at=now(),
        task_type=task.metadata.type,
        metric=known["metric"],
        mteb=known | {"content": content, "version": mteb.__version__},
    )
    return _Loaded(record, held.asked, held.relevant, held.listed)


def _record(registry: Registry, loaded: Sequence[_Loaded]) -> list[TaskReport]:
    """Write the keys and record the tasks in one transaction; the caller holds the lock."""
    known = {task.name for task in registry.tasks()}
    folders = {each.record.name: registry.path(each.record.path) for each in loaded}
    changed = []
    with swept(registry):
        for each in loaded:
            task = each.record
            if task.name in known and not registry.lost_files(task):
                continue
            with publish(registry.path(task.path)) as partial:
                write_keys(partial, each.queries, each.documents)
            changed.append(task)
        rows = find_leaks(registry, folders)
        leaks = {name: count_leaks(name, rows[name]) for name in folders}
        for name, folder in folders.items():
            write_leaks(folder, rows[name])
        new = [task for task in changed if task.name not in known]
        registry.add_task(*new, leaks=[leak for task in new for leak in leaks[task.name]])
        for name in known & folders.keys():
            registry.set_leaks(name, leaks[name])
    return [
        TaskReport(
            name=each.record.name,
            domain=each.record.domain,
            queries=each.record.queries,
            documents=each.record.documents,
            judgements=each.record.judgements,
            leaked_rows=sum(leak.rows for leak in leaks[each.record.name]),
            near_rows=sum(leak.near for leak in leaks[each.record.name]),
            unchanged=each.record not in changed,
            task_type=each.record.task_type,
            checked=each.checked,
        )
        for each in loaded
    ]


def _sha256(task: Any) -> str:
    from continual.eval.mteb_tasks import identity

    return hashlib.sha256(json.dumps(identity(task), sort_keys=True).encode()).hexdigest()

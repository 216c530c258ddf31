"""Register tasks and benchmarks of mteb in a workspace: all of them or none. Their texts are kept out of training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.errors import (
    DataError,
    InputError,
    NotFoundError,
    did_you_mean,
)
from continual.progress import SILENT, Progress
from continual.registry import MTEB, Registry, Task
from continual.registry.catalog import now
from continual.registry.names import check_name
from continual.storage.aside import announce
from continual.storage.files import publish
from continual.stream.leaks import count_leaks, find_leaks, write_leaks
from continual.stream.sweep import ANNOUNCED, swept
from continual.stream.task_tables import write_keys
from continual.stream.tasks import (
    LOCK,
    TaskReport,
    task_path,
    task_taken,
)


@dataclass(frozen=True)
class _Loaded:
    """A task ready to register, with the texts that must not be trained on.

    Attributes:
        record: The task as the catalog stores it.
        queries: Texts of its queries, or of all items if it doesn't rank documents.
        documents: Texts of its relevant documents, or of all items if it doesn't rank documents.
        checked: Whether `queries` and `documents` hold every text; see `Contents.listed`.
    """

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

    mteb loads the data of each task once: to check that they are available, to count them, and to store hashes and
    shingles of the texts that no training row may contain. These are the queries and relevant documents, or the texts
    of all items if the task doesn't rank documents. What defines the task (mteb's name, the dataset revision, subsets,
    splits, main score) is recorded and never changes.

    Args:
        source: mteb's name of a task or benchmark, prefixed with "mteb:".
        name: The task's name in the workspace; by default mteb's name, with the subsets if only some are kept.
        domain: The ingested domain that the task tests; None makes it out of domain for every version.
        subsets: The subsets of a single task to keep; empty keeps all.
        skip_missing: Leave out the tasks of a benchmark whose data can't be loaded.

    Returns:
        One report per registered task.

    Raises:
        NotFoundError: mteb has no such task or benchmark, or the workspace has no such domain.
        DataError: The data of a task can't be loaded; nothing was registered.
        InvalidNameError: A name is not allowed or belongs to another task; nothing was registered.
        WorkspaceBusy: An ingest or another import is running.
    """
    from continual.eval import mteb_tasks
    from continual.eval.run import own_randomness, quiet

    with quiet(), own_randomness():
        tasks = mteb_tasks.find_mteb_tasks(source.removeprefix(MTEB), subsets)
        if name is not None and len(tasks) > 1:
            raise InputError(
                f"{source} is a benchmark of {len(tasks)} tasks, and each keeps its own name. Remove {name!r} from "
                "the command."
            )
        names = [check_name(mteb_tasks.default_name(task) if name is None else name, "task") for task in tasks]
        by_name = dict(zip(names, tasks, strict=True))
        _check_free(registry, by_name, domain)
        loaded, errors = [], []
        for position, (task_name, task) in enumerate(by_name.items(), 1):
            progress.start(f"reading {task_name} ({position} of {len(by_name)})", None, "tasks")
            try:
                loaded.append(_load(task, task_name, domain))
            except DataError as error:
                errors.append(error)
        progress.finish()
    if errors and not (skip_missing and len(tasks) > 1):
        hint = "" if len(tasks) == 1 else " Use --skip-missing to leave such tasks out. Nothing was registered."
        others = [str(error).partition(" cannot ")[0] for error in errors[1:]]
        also = f" {len(others)} more could not be loaded: {'; '.join(others)}." if others else ""
        raise DataError(f"{errors[0]}{also}{hint}")
    if not loaded:
        raise DataError(f"None of the {len(tasks)} tasks of {source} can be loaded. The first error: {errors[0]}")
    with registry.lock(LOCK, "task add"):
        _check_free(registry, by_name, domain)
        return _record(registry, loaded)


def _check_free(registry: Registry, tasks: Mapping[str, Any], domain: str | None) -> None:
    """Raise if the domain does not exist or a name belongs to another task."""
    domains = [record.name for record in registry.domains()]
    if domain is not None and domain not in domains:
        raise NotFoundError(
            f"There is no domain {domain!r}.{did_you_mean(domain, domains)} Create it with `continual ingest`."
        )
    for record in registry.tasks():
        if record.name in tasks and (record.sha256 != _sha256(tasks[record.name]) or record.domain != domain):
            raise task_taken(record)


def _load(task: Any, name: str, domain: str | None) -> _Loaded:
    import mteb

    from continual.eval import mteb_tasks

    mteb_tasks.load_task_data(task)
    contents, data_digest = mteb_tasks.contents(task), mteb_tasks.digest_task_data(task)
    mteb_tasks.unload_task_data(task)
    if not contents.queries:
        raise DataError(
            f"The mteb task {task.metadata.name} has no queries or items to score in {', '.join(task.hf_subsets)}. "
            "Choose other subsets with --subset."
        )
    identity = mteb_tasks.identity(task)
    record = Task(
        name=name,
        domain=domain,
        path=task_path(name),
        queries=contents.queries,
        documents=contents.documents,
        judgements=contents.judgements,
        origin=MTEB + identity["task"],
        sha256=_sha256(task),
        created_at=now(),
        task_type=task.metadata.type,
        metric=identity["metric"],
        mteb=identity | {"content": data_digest, "version": mteb.__version__},
    )
    return _Loaded(record, contents.asked, contents.relevant, contents.listed)


def _record(registry: Registry, loaded: Sequence[_Loaded]) -> list[TaskReport]:
    """Write the keys and record the tasks in one transaction; the caller holds the lock."""
    registered = {task.name for task in registry.tasks()}
    folders = {entry.record.name: registry.path(entry.record.path) for entry in loaded}
    changed = []
    with swept(registry):
        announce(registry.root / ANNOUNCED, *(entry.record.path for entry in loaded))
        for entry in loaded:
            task = entry.record
            if task.name in registered and not registry.lost_files(task):
                continue
            with publish(registry.path(task.path)) as partial:
                write_keys(partial, entry.queries, entry.documents)
            changed.append(task)
        rows = find_leaks(registry, folders)
        leaks = {name: count_leaks(name, rows[name]) for name in folders}
        for name, folder in folders.items():
            write_leaks(folder, rows[name])
        new = [task for task in changed if task.name not in registered]
        registry.add_task(*new, leaks=[leak for task in new for leak in leaks[task.name]])
        for name in registered & folders.keys():
            registry.set_leaks(name, leaks[name])
    return [
        TaskReport(
            name=entry.record.name,
            domain=entry.record.domain,
            queries=entry.record.queries,
            documents=entry.record.documents,
            judgements=entry.record.judgements,
            leaked_rows=sum(leak.rows for leak in leaks[entry.record.name]),
            near_rows=sum(leak.near for leak in leaks[entry.record.name]),
            unchanged=entry.record not in changed,
            task_type=entry.record.task_type,
            checked=entry.checked,
        )
        for entry in loaded
    ]


def _sha256(task: Any) -> str:
    from continual.eval.mteb_tasks import identity

    return hashlib.sha256(json.dumps(identity(task), sort_keys=True).encode()).hexdigest()

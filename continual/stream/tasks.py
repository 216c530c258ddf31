"""Evaluation tasks of a workspace: import, publish, and the rows that would leak into them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from continual.errors import InvalidNameError, NotFoundError, did_you_mean
from continual.registry import Registry, Task
from continual.registry.catalog import now
from continual.registry.names import check_name
from continual.storage.files import publish
from continual.storage.locks import exclusive
from continual.stream.leaks import count_leaks, find_leaks, write_leaks
from continual.stream.near import SHINGLES
from continual.stream.sweep import swept
from continual.stream.task_files import TaskTables, read_task, write_task

LOCK = "ingest.lock"


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What an import did.

    Attributes:
        name: The task.
        domain: The domain that it tests; None for an OOD task.
        queries: Queries with at least one relevant document; the items scored, of a task that is no retrieval.
        documents: Documents in the corpus.
        judgements: Rows of the qrels.
        leaked_rows: Stored training rows, of any batch, whose query is a query of the task or whose positive is
            a relevant document of it, nearly or quite. They were stored before and are not removed, but no update
            trains on them from now on, and versions that did are not out of domain for it.
        dropped_queries: Queries left out because no document is relevant to them.
        dropped_documents: Documents left out because they have no text.
        unchanged: The same task was there already, and nothing changed.
        task_type: mteb's name of its type, such as "Retrieval".
        checked: Whether training rows are checked for leakage into it: not where mteb does not say what its texts are.
        near_rows: Those of `leaked_rows` that are near duplicates only.
    """

    name: str
    domain: str | None
    queries: int
    documents: int
    judgements: int
    leaked_rows: int
    dropped_queries: int = 0
    dropped_documents: int = 0
    unchanged: bool = False
    task_type: str = "Retrieval"
    checked: bool = True
    near_rows: int = 0


def import_task(registry: Registry, name: str, folder: Path, domain: str | None = None) -> TaskReport:
    """Register a BEIR-like folder as an evaluation task; `read_task` says what it may hold.

    Args:
        registry: Where it goes.
        name: Its name; free, or that of the same task: then nothing changes, but lost files are put back, and the
            stored rows are checked against it once more.
        folder: The folder; it is copied.
        domain: The ingested domain that it tests; None makes it out of domain for every version.

    Raises:
        DataError: The folder is no task.
        InvalidNameError: The name is not allowed, or another task has it.
        NotFoundError: There is no such domain.
        WorkspaceBusy: An ingest or another import is running: leakage is checked against all tasks and all rows.
    """
    name = check_name(name, "task")
    with exclusive(registry.root / LOCK, "ingest` or `continual task add"):
        domains = [known.name for known in registry.domains()]
        if domain is not None and domain not in domains:
            raise NotFoundError(
                f"There is no domain {domain!r}.{did_you_mean(domain, domains)} A domain comes with `continual ingest`."
            )
        tables = read_task(folder)
        taken = next((task for task in registry.tasks() if task.name == name), None)
        if taken is not None and (taken.sha256 != tables.sha256() or taken.domain != domain):
            raise task_taken(taken)
        lost = taken is not None and bool(registry.lost_files(taken))
        path = registry.path(task_path(name))
        with swept(registry):
            if taken is None or lost or not (path / SHINGLES).is_file():
                with publish(path) as partial:
                    write_task(tables, partial)
            rows = find_leaks(registry, {name: path})[name]
            write_leaks(path, rows)
            leaks = count_leaks(name, rows)
            if taken is None:
                registry.add_task(task_record(name, domain, tables, str(folder)), leaks=leaks)
            else:
                registry.set_leaks(name, leaks)
        return TaskReport(
            name=name,
            domain=domain,
            queries=tables.queries.num_rows,
            documents=tables.corpus.num_rows,
            judgements=tables.qrels.num_rows,
            leaked_rows=sum(leak.rows for leak in leaks),
            near_rows=sum(leak.near for leak in leaks),
            dropped_queries=tables.dropped_queries,
            dropped_documents=tables.dropped_documents,
            unchanged=taken is not None and not lost,
        )


def task_path(name: str) -> str:
    """Return where a task is, relative to `.continual/`."""
    return f"tasks/{name}"


def task_taken(task: Task) -> InvalidNameError:
    """Return the error for a name that another task has."""
    whose = f"the task of domain {task.domain!r}" if task.domain else "an out-of-domain task"
    revisions = ", ".join(sorted({part["revision"][:7] for part in task.mteb["parts"]})) if task.mteb else ""
    origin = f"{task.origin} (revision {revisions})" if revisions else task.origin
    return InvalidNameError(
        f"The name {task.name!r} is taken: it is {whose} with {task.queries} queries, from {origin}. "
        "Tasks never change, so that scores stay comparable; choose another name."
    )


def task_record(name: str, domain: str | None, tables: TaskTables, origin: str) -> Task:
    """Return what the catalog records of a task; its position is given out there."""
    return Task(
        name=name,
        domain=domain,
        path=task_path(name),
        queries=tables.queries.num_rows,
        documents=tables.corpus.num_rows,
        judgements=tables.qrels.num_rows,
        origin=origin,
        sha256=tables.sha256(),
        created_at=now(),
    )

"""Import an evaluation task into a workspace, and find the stored rows that leak into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from continual.errors import InvalidNameError, NotFoundError, did_you_mean
from continual.registry import Registry, Task
from continual.registry.catalog import now
from continual.registry.names import check_name
from continual.storage.aside import announce
from continual.storage.files import publish
from continual.storage.locks import INGEST_LOCK
from continual.stream.leaks import count_leaks, find_leaks, write_leaks
from continual.stream.near import SHINGLES
from continual.stream.sweep import ANNOUNCED, swept
from continual.stream.task_files import read_task
from continual.stream.task_tables import TaskReading, TaskTables, write_task

LOCK = INGEST_LOCK


@dataclass(frozen=True, slots=True)
class TaskReport:
    """The result of a task import.

    Attributes:
        name: Name of the task.
        domain: The domain that the task tests; None for an OOD task.
        queries: Queries with at least one relevant document; for a task that is not retrieval, the items scored.
        documents: Documents in the corpus.
        judgements: Rows in the qrels.
        leaked_rows: Stored training rows of any batch whose query or positive is an exact or near duplicate of a query
            or a relevant document of the task. They are not removed, but no update trains on them from now on, and
            for versions already trained on them the task is not out of domain.
        dropped_queries: Queries left out, because no document is relevant to them or they have no text.
        dropped_documents: Documents left out because they have no text.
        unchanged: The workspace already had this task, and nothing changed.
        task_type: mteb's name for the type, such as "Retrieval".
        checked: Whether training rows are checked for leakage into the task; False if mteb doesn't provide its texts.
        near_rows: Rows in `leaked_rows` that are only near duplicates.
        reading: What was left out or converted in a folder; None for a task of mteb.
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
    reading: TaskReading | None = None


def import_task(registry: Registry, name: str, folder: Path, domain: str | None = None) -> TaskReport:
    """Register a copy of a BEIR-like folder as an evaluation task; see `read_task` for the layout.

    Args:
        registry: Registry of the workspace.
        name: Name of the task. If the workspace already has the same task under this name, lost files are restored and
            the stored rows are checked against it again.
        folder: The folder, or the file of its judgements to read.
        domain: The ingested domain that the task tests; None: the task is out of domain for every version.

    Raises:
        DataError: The folder is not a task.
        InvalidNameError: The name is not allowed, or another task has it.
        NotFoundError: There is no such domain.
        WorkspaceBusy: An ingest or another import is running. Only one may, because each checks leakage between all
            tasks and all rows.
    """
    name = check_name(name, "task")
    with registry.lock(LOCK, "task add"):
        domains = [record.name for record in registry.domains()]
        if domain is not None and domain not in domains:
            raise NotFoundError(
                f"There is no domain {domain!r}.{did_you_mean(domain, domains)} "
                "Run `continual ingest` to create a domain."
            )
        tables = read_task(folder)
        reading = tables.reading
        assert reading is not None
        taken = next((task for task in registry.tasks() if task.name == name), None)
        if taken is not None and (taken.sha256 != tables.sha256() or taken.domain != domain):
            raise task_taken(taken)
        lost = taken is not None and bool(registry.lost_files(taken))
        path = registry.path(task_path(name))
        with swept(registry):
            if taken is None or lost or not (path / SHINGLES).is_file():
                announce(registry.root / ANNOUNCED, task_path(name))
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
            dropped_queries=reading.unjudged_queries + reading.irrelevant_queries + reading.empty_queries,
            dropped_documents=reading.empty_documents,
            unchanged=taken is not None and not lost,
            reading=reading,
        )


def task_path(name: str) -> str:
    """Return the folder of a task, relative to `.continual/`."""
    return f"tasks/{name}"


def task_taken(task: Task) -> InvalidNameError:
    """Return the error for a name that another task has."""
    whose = f"the task of domain {task.domain!r}" if task.domain else "an out-of-domain task"
    revisions = ", ".join(sorted({part["revision"][:7] for part in task.mteb["parts"]})) if task.mteb else ""
    origin = f"{task.origin} (revision {revisions})" if revisions else task.origin
    return InvalidNameError(
        f"The name {task.name!r} is taken: it is {whose} with {task.queries} queries, from {origin}. "
        "Tasks never change, so that scores stay comparable. Choose another name."
    )


def task_record(name: str, domain: str | None, tables: TaskTables, origin: str) -> Task:
    """Return the catalog's record of a task."""
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

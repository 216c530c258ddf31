"""The domain that a file is ingested into, and what the options may still change about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from continual.config import IngestConfig
from continual.errors import InputError, InvalidNameError
from continual.models.folder import RESERVED_PROMPTS, prompt_names
from continual.registry import GRADED, RETRIEVAL, ROOT, Batch, Registry, Task
from continual.stream.holdout import HELD
from continual.stream.leaks import shingle_files
from continual.stream.options import IngestOptions
from continual.stream.schema import Columns
from continual.stream.split import StoredFiles
from continual.stream.task_tables import KEYS, TaskTables
from continual.stream.tasks import task_taken


@dataclass(frozen=True, slots=True)
class Target:
    """The domain of an ingest, and what the workspace holds when the ingest begins.

    Attributes:
        name: Name of the domain; it may be new.
        kind: Kind of the domain, one of `KINDS`.
        instruction: What is put before the domain's queries; None if the model's own prompt is used.
        batches: The batches of all domains.
        tasks: The evaluation tasks of all domains, and the OOD tasks.
    """

    name: str
    kind: str
    instruction: str | None
    batches: list[Batch]
    tasks: list[Task]

    @property
    def own_batches(self) -> list[Batch]:
        """Return the batches of the domain."""
        return [batch for batch in self.batches if batch.domain == self.name]

    @property
    def own_tasks(self) -> list[Task]:
        """Return the evaluation tasks of the domain."""
        return [task for task in self.tasks if task.domain == self.name]

    @property
    def graded(self) -> bool:
        """Whether the rows of the domain are graded pairs."""
        return self.kind == GRADED

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Return the range of the scores in the last file of a graded domain; None before the first."""
        found = [batch.columns["grades"]["range"] for batch in self.own_batches if "grades" in batch.columns]
        return (found[-1][0], found[-1][1]) if found else None

    def read_columns(self, columns: Columns) -> Columns:
        """Return how to read a file of the domain: scores have the range of its last file unless another is asked."""
        return columns if columns.score_range else replace(columns, score_range=self.score_range)

    def find_batch(self, content: str, columns: dict[str, Any], tables: TaskTables | None) -> Batch | None:
        """Return the batch that already holds a file, or None.

        Args:
            content: SHA-256 of the file.
            columns: Its columns by role; the same content read from other columns is another batch.
            tables: The task given with the file. The batch counts only if the domain has this task too.
        """
        if tables is not None and all(task.sha256 != tables.sha256() for task in self.own_tasks):
            return None
        return next(
            (batch for batch in self.own_batches if batch.source_sha256 == content and batch.columns == columns), None
        )


def find_target(registry: Registry, name: str, options: IngestOptions) -> Target:
    """Return the domain called `name` as the workspace has it, or as the options define it.

    Raises:
        InputError: The options give an existing domain another kind or another instruction.
        InvalidNameError: The name of a new domain with an instruction is already a prompt of the model.
    """
    with registry.catalog.together():
        batches, tasks = registry.batches(), registry.tasks()
        domain = next((domain for domain in registry.domains() if domain.name == name), None)
    if domain is None:
        if options.instruction is not None:
            _check_prompt_name(registry, name)
        return Target(name, options.kind or RETRIEVAL, options.instruction, batches, tasks)
    if options.kind not in (None, domain.kind):
        raise InputError(
            f"Domain {name!r} is of kind {domain.kind}, and --kind says {options.kind}: all rows of a domain are of "
            "one kind. Leave --kind out, or give these rows a --domain of their own."
        )
    if options.instruction not in (None, domain.instruction):
        state = "no instruction" if domain.instruction is None else f"the instruction {domain.instruction!r}"
        raise InputError(
            f"Domain {name!r} has {state}, and its versions and scores were made with it. Leave --instruction out, or "
            "give these rows a --domain of their own."
        )
    return Target(name, domain.kind, domain.instruction, batches, tasks)


def _check_prompt_name(registry: Registry, name: str) -> None:
    """Reject a domain name under which the model already has another prompt."""
    root = registry.path(f"versions/{ROOT}")
    if name in RESERVED_PROMPTS or name in prompt_names(root):
        raise InvalidNameError(
            "The instruction of a domain is stored as a model prompt under the domain's name, but the model already "
            f"has a prompt {name!r}. Choose another --domain."
        )


def holdout_share(target: Target, config: IngestConfig, options: IngestOptions) -> float:
    """Return the share of the documents to hold out, 0 to 1.

    Raises:
        InputError: The domain has a task, or rows that a task given now may already be trained on.
        InvalidNameError: Another task has the name that the domain's task would get.
    """
    first = not target.own_batches
    if target.graded and options.holdout:
        raise InputError(
            "No evaluation task can be held out of a domain of kind graded: its pairs have no relevant documents. "
            f"Leave --holdout out, and add a task with {task_hint(target.name)}."
        )
    if (target.own_tasks and (options.holdout or options.task is not None)) or (options.task is not None and not first):
        state = (
            f"has the evaluation task {target.own_tasks[0].name!r}, which stays as it is"
            if target.own_tasks
            else "has stored rows already"
        )
        raise InputError(
            f"Domain {target.name!r} {state}. Ingest without --holdout and --task; "
            f"`continual task add NAME DIR --domain {target.name}` adds another task."
        )
    if options.task is not None:
        share = 0.0
    elif options.holdout is not None:
        share = options.holdout
    else:
        share = config.holdout if first and not target.graded else 0.0
    taken = next((task for task in target.tasks if task.name == target.name), None)
    if taken is not None and (share or options.task is not None):
        raise InvalidNameError(
            f"{task_taken(taken)} The task of a new domain is named after the domain: choose another --domain, "
            "or use --holdout 0 for a domain without a task."
        )
    return share


def task_hint(domain: str) -> str:
    """Return the command that adds a task for a graded domain."""
    return f"`continual task add mteb:STSBenchmark --domain {domain}`, or another task of mteb"


def stored_files(registry: Registry, target: Target) -> StoredFiles:
    """Return the files that new rows of the domain are compared with."""
    held = {task.name: registry.path(task.path) / HELD for task in target.tasks if task.origin == "holdout"}
    held = {name: file for name, file in held.items() if file.is_file()}  # older tasks don't have this file
    return StoredFiles(
        batches=registry.rows_files(target.batches),
        own_batches=registry.rows_files(target.own_batches),
        keys=[folder / KEYS for folder in registry.task_folders(target.tasks)],
        shingles=shingle_files(registry, target.tasks),
        held=list(held.values()),
        own_held=[held[task.name] for task in target.own_tasks if task.name in held],
    )

"""From a file to a batch of a domain: read top to bottom, it is the way of a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.config import IngestConfig
from continual.errors import (
    DataError,
    InputError,
    InvalidNameError,
    did_you_mean,
)
from continual.models.folder import ROLES, prompt_names
from continual.progress import SILENT, Progress
from continual.registry import (
    GIVEN_ONLY,
    KINDS,
    RETRIEVAL,
    Batch,
    Registry,
    Task,
)
from continual.registry.catalog import now
from continual.registry.names import check_name
from continual.registry.registry import ROOT
from continual.storage.files import publish
from continual.storage.locks import exclusive
from continual.stream import split
from continual.stream.database import database
from continual.stream.holdout import (
    HELD,
    held_out_task,
    hold_out,
    write_held,
)
from continual.stream.leaks import (
    count_leaks,
    find_leaks,
    shingle_files,
    write_leaks,
)
from continual.stream.near import SHINGLES
from continual.stream.ordered import write_rows
from continual.stream.readers import open_source
from continual.stream.schema import Columns, Mapping, resolve
from continual.stream.stage import Staged, stage
from continual.stream.sweep import staging
from continual.stream.task_files import (
    KEYS,
    TaskTables,
    read_task,
    write_task,
)
from continual.stream.tasks import (
    LOCK,
    task_path,
    task_record,
    task_taken,
)

MAX_INSTRUCTION = 500
"""Characters of a domain's instruction."""
MAX_LICENSE = 200
"""Characters of a licence's name."""

KEPT, REJECTS, TASK = "kept.parquet", "rejects.jsonl", "task"
"""Names in the staging folder: the rows to store, the bad ones, the domain's task."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did: `rows_in = kept + duplicates + leaked + rejected + held_out`.

    Attributes:
        domain: The domain.
        batch: Id of the batch; None when no row was kept, and so none was recorded.
        source: The file, as the caller named it.
        unchanged: The domain has this content from these columns already; the counts are those of then, and
            nothing changed.
        rows_in: Rows of the file.
        kept: Training rows stored.
        duplicates: Pairs that the file has before, or that any batch of any domain has.
        leaked: Rows whose query is a query of an evaluation task, or whose positive is relevant in one, or nearly so;
            and rows of a document that was held out of the domain before.
        rejected: Bad rows; see `reject_reasons` and the file at `rejects_path`.
        held_out: Rows held out as the domain's evaluation task.
        rejects_path: The reject file, relative to `.continual/`; None if no row was bad.
        reject_reasons: Bad rows by reason; empty when `unchanged`.
        task: Name of the evaluation task that this ingest made; None if it made none.
        columns: Which column was read as what.
        license: The licence of the data as it is recorded now; None if nobody stated it.
        near: Leaked rows that are near duplicates of a task's texts; empty when `unchanged`, as the next.
        of_held: Leaked rows that belong to a document which was held out before.
        kind: The type of task that the domain's rows are of.
        without_negatives: Kept rows that no step will train on: of a classification or clustering domain, and without
            negatives of their own; 0 when `unchanged`.
        instruction: What is put before the domain's queries; None where nothing of its own is.
    """

    domain: str
    batch: str | None
    source: str
    unchanged: bool
    rows_in: int
    kept: int
    duplicates: int
    leaked: int
    rejected: int
    held_out: int
    rejects_path: str | None = None
    reject_reasons: dict[str, int] = field(default_factory=dict)
    task: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    license: str | None = None
    near: int = 0
    of_held: int = 0
    kind: str = RETRIEVAL
    without_negatives: int = 0
    instruction: str | None = None


def ingest(
    registry: Registry,
    config: IngestConfig,
    source: str,
    *,
    domain: str | None = None,
    columns: Columns = Columns(),  # noqa: B008  frozen
    holdout: float | None = None,
    task: Path | None = None,
    license: str | None = None,
    kind: str | None = None,
    instruction: str | None = None,
    progress: Progress = SILENT,
) -> IngestReport:
    """Register the rows of a file as a batch of a domain.

    Each row has one fate, the first that fits: *rejected* (missing, empty, not text, too long, NUL or lone
    surrogates; kept in a reject file), *duplicate* (of a row in the file or in any batch of any domain),
    *leaked* (into an evaluation task, nearly or quite), *held out*, *kept*. None depends on the order of the rows.

    The first batch of a domain is split: a share of its documents becomes the domain's evaluation task, of
    the domain's name, and never changes again (`continual.stream.holdout.hold_out` says how they are chosen).
    With `task`, that folder is the domain's task instead. Later batches are not split unless `holdout` is
    given and the domain has no task; their rows that leak into its task are counted as leaked.

    If no row is kept (all are duplicates, say), no batch is recorded; that is an error only with `task`, which
    would be lost. The same content again changes nothing, unless other columns of it are read; only a licence that is
    given then is recorded. Memory is bounded
    by `batch_rows` and DuckDB's limit, whatever the size of the file; the disk needs about three times its size.

    Args:
        registry: The workspace's registry.
        config: Limits and defaults.
        source: A file, or `hf:NAME[:CONFIG][:SPLIT]`; see `open_source`.
        domain: The domain; by default the file's name without its ending, or the data set's name.
        columns: Column names; what is None is recognised.
        holdout: Share of documents to hold out, 0 to 1, 0 for no task; None: `config.holdout` in a domain's
            first batch.
        task: A BEIR-like folder to use as the domain's task; see `read_task`.
        license: Licence of the data, such as "cc-by-4.0"; a model card lists it.
        kind: The type of task that the domain's rows are of, one of `KINDS`; None: what the domain is already, or
            retrieval. In a classification or clustering domain a row's negatives are only those given with it, so one
            kept row must have some, and those without are never trained on.
        instruction: What the domain's queries are for; it is put before each as `INSTRUCTED` says, in place of the
            model's own prompt, wherever they are trained on, searched with or served. None: what the domain has.
        progress: Shows how far it is.

    Returns:
        What became of the rows.

    Raises:
        DataError: The source cannot be read, lacks columns, has too many bad rows, is too small to hold
            anything out of, or has no row to keep beside `task`; or no row that is kept has negatives, and the domain
            is of a kind that needs them.
        InputError: The call contradicts itself or the domain's state.
        InvalidNameError: The domain's name is not allowed, or an unrelated task has it.
        WorkspaceBusy: Another ingest is running.
    """
    if holdout is not None and not 0 <= holdout <= 1:
        raise InputError(f"--holdout is a share from 0 to 1, not {holdout:g}.")
    if holdout and task is not None:
        raise InputError("--holdout and --task exclude each other: a domain has one evaluation task of its own.")
    if license is not None:
        license = _check_license(license)
    if kind is not None and kind not in KINDS:
        raise InputError(f"--kind takes the type of task that rows are of, not {kind!r}.{did_you_mean(kind, KINDS)}")
    if instruction is not None:
        instruction = _check_instruction(instruction)
    opened = open_source(source)
    domain = check_name(opened.stem if domain is None else domain, "domain")
    mapping = resolve(columns, opened.columns, source)
    opened.check(mapping)

    with exclusive(registry.root / LOCK, "ingest"):
        content = opened.sha256()
        batches, tasks = registry.batches(), registry.tasks()
        kind, instruction = _about(registry, domain, kind, instruction)
        tables = read_task(task) if task is not None else None
        for batch in batches:
            same = (batch.domain, batch.source_sha256, batch.columns) == (domain, content, mapping.record())
            if same and (tables is None or any(_is_own(known, domain, tables) for known in tasks)):
                if license is not None and license != batch.license:
                    registry.set_license(batch.id, license)
                    batch = dataclasses.replace(batch, license=license)
                return _unchanged(batch, source, kind, instruction)
        first = all(batch.domain != domain for batch in batches)
        share = _share(tasks, config, domain, first, holdout, task)
        with staging(registry) as folder, _finishing(progress):
            rows, rejects, kept = folder / "rows.parquet", folder / REJECTS, folder / KEPT
            staged = stage(opened, mapping, config, rows, rejects, progress)
            if staged.rejected > config.max_reject_share * staged.rows_in:
                listed = registry.path(_keep_loose(registry, rejects, domain, content))
                raise _too_many(staged, source, listed, config)

            history = [registry.rows_file(batch) for batch in batches]
            keys = [registry.task_folder(known) / KEYS for known in tasks]
            shingles = shingle_files(registry, tasks)
            if tables is not None:
                write_task(tables, folder / TASK)
                keys.append(folder / TASK / KEYS)
            with database(folder / "spill") as connection:
                split.load(connection, rows, history, _files(registry, batches, domain))
                split.drop_duplicates(connection)
                clean = split.drop_leaks(connection, keys, *_held(registry, tasks, domain))
                documents = hold_out(connection, share if clean else 0.0, config.max_holdout_queries)
                split.keep_rest(connection)
                if documents:
                    tables = held_out_task(connection, rows)
                    write_task(tables, folder / TASK)
                    write_held(connection, folder / TASK / HELD)
                if tables is not None:
                    shingles.append(folder / TASK / SHINGLES)
                counts = split.fates(connection, split.drop_near(connection, rows, staged.good, shingles))
                if share and clean:
                    _check_hold_out(source, share, documents, counts)
                mask = split.kept_rows(connection, staged.good)
            without = 0
            if counts.kept:
                write_rows(rows, mask, kept, folder, progress)
                without = _without_negatives(kept, source, kind) if kind in GIVEN_ONLY else 0
            report = IngestReport(
                domain=domain,
                batch=None,
                source=source,
                unchanged=False,
                rows_in=staged.rows_in,
                kept=counts.kept,
                duplicates=counts.duplicates,
                leaked=counts.leaked,
                rejected=staged.rejected,
                held_out=counts.held_out,
                reject_reasons=staged.reasons,
                columns=mapping.describe(),
                license=license,
                near=counts.near,
                of_held=counts.of_held,
                kind=kind,
                without_negatives=without,
                instruction=instruction,
            )
            if not counts.kept:
                where = _keep_loose(registry, rejects, domain, content) if staged.rejected else None
                if task is not None:
                    raise _task_without_rows(report, task, where)
                return dataclasses.replace(report, rejects_path=where)

            origin = "holdout" if task is None else str(task)
            return _record(registry, folder, report, content, mapping, tables, origin)


def _record(
    registry: Registry,
    folder: Path,
    report: IngestReport,
    content: str,
    mapping: Mapping,
    tables: TaskTables | None,
    origin: str,
) -> IngestReport:
    """Publish what is staged in a folder as a batch, and the domain's task if there is one.

    Nothing counts before the transaction at the end; what is published until then is swept if it fails.

    Args:
        registry: The workspace's registry; the caller holds its lock.
        folder: Where the kept rows, the rejects and the task lie.
        report: What became of the rows.
        content: SHA-256 of the source.
        mapping: Which column was read as what.
        tables: The task that this ingest makes.
        origin: Where the task is from.

    Returns:
        The report with the batch, the file of rejects and the task.
    """
    domain = report.domain
    identity = registry.next_batch_id()
    path, rejects_path = f"data/{domain}/{identity}.parquet", None
    _move(folder / KEPT, registry.path(path))
    if report.rejected:
        rejects_path = f"data/{domain}/{identity}.rejects.jsonl"
        _move(folder / REJECTS, registry.path(rejects_path))
    record, leaks = None, []
    if tables is not None:
        found = find_leaks(registry, {domain: folder / TASK})[domain]
        write_leaks(folder / TASK, found)
        leaks = count_leaks(domain, found)
        _move(folder / TASK, registry.path(task_path(domain)))
        record = task_record(domain, domain, tables, origin)
    batch = Batch(
        id=identity,
        domain=domain,
        source=report.source,
        source_sha256=content,
        path=path,
        rows_in=report.rows_in,
        kept=report.kept,
        duplicates=report.duplicates,
        leaked=report.leaked,
        rejected=report.rejected,
        held_out=report.held_out,
        rejects_path=rejects_path,
        columns=mapping.record(),
        created_at=now(),
        license=report.license,
    )
    registry.add_batch(batch, record, leaks, kind=report.kind, instruction=report.instruction)
    made = None if record is None else domain
    return dataclasses.replace(report, batch=identity, rejects_path=rejects_path, task=made)


def _files(registry: Registry, batches: Sequence[Batch], domain: str) -> list[Path]:
    return [registry.rows_file(batch) for batch in batches if batch.domain == domain]


def _held(registry: Registry, tasks: Sequence[Task], domain: str) -> tuple[list[Path], list[Path]]:
    """Return the files of what was held out of any domain, and of them those of this domain."""
    files = {task.name: registry.path(task.path) / HELD for task in tasks if task.origin == "holdout"}
    found = {name: file for name, file in files.items() if file.is_file()}  # older tasks have none
    own = {task.name for task in tasks if task.domain == domain}
    return list(found.values()), [file for name, file in found.items() if name in own]


def _about(registry: Registry, domain: str, kind: str | None, instruction: str | None) -> tuple[str, str | None]:
    """Return the kind and the instruction of a domain, or refuse what it does not have."""
    known = next((each for each in registry.domains() if each.name == domain), None)
    if known is None:
        if instruction is not None:
            _check_prompt_name(registry, domain)
        return kind or RETRIEVAL, instruction
    if kind not in (None, known.kind):
        raise InputError(
            f"Domain {domain!r} is of kind {known.kind}, and --kind says {kind}: all rows of a domain are of one kind. "
            "Leave --kind out, or give these rows a --domain of their own."
        )
    if instruction not in (None, known.instruction):
        has = "no instruction" if known.instruction is None else f"the instruction {known.instruction!r}"
        raise InputError(
            f"Domain {domain!r} has {has}, and its versions and scores are made with it. Leave --instruction out, or "
            "give these rows a --domain of their own."
        )
    return known.kind, known.instruction


def _check_instruction(instruction: str) -> str:
    instruction = instruction.strip()
    if not 0 < len(instruction) <= MAX_INSTRUCTION or not instruction.isprintable():
        raise InputError(
            f"--instruction takes a sentence of 1 to {MAX_INSTRUCTION} characters in one line, such as 'Given a "
            f"question, retrieve the passage that answers it'; not {instruction!r}."
        )
    return instruction


def _check_prompt_name(registry: Registry, domain: str) -> None:
    """Refuse a domain whose prompt would be taken for another one of the model."""
    root = registry.path(f"versions/{ROOT}")
    if domain in ROLES or domain in prompt_names(root):
        raise InvalidNameError(
            f"A domain with an instruction becomes a prompt of the model, and {domain!r} is one that it has already. "
            "Give another --domain."
        )


def _without_negatives(kept: Path, source: str, kind: str) -> int:
    """Return how many of the kept rows have no negatives, or refuse a file in which none has."""
    without = rows = 0
    with pq.ParquetFile(kept) as file:
        for batch in file.iter_batches(columns=["negatives"]):
            without += pc.sum(pc.equal(pc.list_value_length(batch["negatives"]), 0)).as_py()
            rows += batch.num_rows
    if without == rows:
        raise DataError(
            f"{source}: none of its {rows:,} new rows has negatives, and in a domain of kind {kind} a row is told only "
            "from the negatives given with it, since other rows may be of its class. Name their column with "
            "--negatives-column, or give --kind retrieval and a domain of its own, if the documents of other rows do "
            "not answer a row's query."
        )
    return without


def _unchanged(batch: Batch, source: str, kind: str, instruction: str | None) -> IngestReport:
    return IngestReport(
        domain=batch.domain,
        batch=batch.id,
        source=source,
        unchanged=True,
        rows_in=batch.rows_in,
        kept=batch.kept,
        duplicates=batch.duplicates,
        leaked=batch.leaked,
        rejected=batch.rejected,
        held_out=batch.held_out,
        rejects_path=batch.rejects_path,
        license=batch.license,
        kind=kind,
        instruction=instruction,
    )


def _check_license(license: str) -> str:
    license = license.strip()
    if not 0 < len(license) <= MAX_LICENSE or not license.isprintable():
        raise InputError(
            f"--license takes a name of 1 to {MAX_LICENSE} characters in one line, such as cc-by-4.0; not {license!r}."
        )
    return license


def _is_own(known: Task, domain: str, tables: TaskTables) -> bool:
    return known.domain == domain and known.sha256 == tables.sha256()


def _share(
    tasks: Sequence[Task], config: IngestConfig, domain: str, first: bool, holdout: float | None, task: Path | None
) -> float:
    """Return the share to hold out, or refuse what would change or double the domain's task."""
    own = [known.name for known in tasks if known.domain == domain]
    if (own and (holdout or task is not None)) or (task is not None and not first):
        state = f"has the evaluation task {own[0]!r}, which stays as it is" if own else "has stored rows already"
        raise InputError(
            f"Domain {domain!r} {state}. Ingest without --holdout and --task; "
            f"`continual task add NAME DIR --domain {domain}` adds another task."
        )
    share = 0.0 if task is not None else holdout if holdout is not None else config.holdout if first else 0.0
    taken = next((known for known in tasks if known.name == domain), None)
    if taken is not None and (share or task is not None):
        raise InvalidNameError(
            f"{task_taken(taken)} The task of a new domain has the domain's name: give another --domain, "
            "or --holdout 0 for no task."
        )
    return share


def _check_hold_out(source: str, share: float, documents: int, counts: split.Split) -> None:
    """Refuse a hold-out that leaves nothing to evaluate or nothing to train."""
    if documents and counts.kept:
        return
    why = (
        "leaves no row to train on"
        if documents
        else f"of {counts.kept:,} new rows is less than one document, or all share texts with stored rows"
    )
    raise DataError(
        f"{source}: --holdout {share:.3g} {why}. Give an evaluation task with --task DIR, "
        "another share with --holdout, or --holdout 0 for a domain that is not evaluated."
    )


def _task_without_rows(report: IngestReport, task: Path, rejects: str | None) -> DataError:
    listed = f" (listed in .continual/{rejects})" if rejects else ""
    return DataError(
        f"{report.source} has no new row to train on: {report.duplicates} of its {report.rows_in} rows are "
        f"duplicates, {report.leaked} leak into evaluation tasks, {report.rejected} cannot be used{listed}. So there "
        f"is no domain {report.domain!r} whose task {task} could be, and nothing was registered. Give --task with a "
        f"file that has new rows, or register the folder with `continual task add NAME DIR`."
    )


def _too_many(staged: Staged, source: str, listed: Path, config: IngestConfig) -> DataError:
    reasons = ", ".join(
        f"{reason} ({count})" for reason, count in sorted(staged.reasons.items(), key=lambda item: -item[1])
    )
    return DataError(
        f"{source}: {staged.rejected} of {staged.rows_in} rows ({staged.rejected / staged.rows_in:.1%}) cannot be "
        f"used, more than max_reject_share = {config.max_reject_share:.1%}: {reasons}. They are listed in {listed}. "
        "Mend the file, or raise ingest.max_reject_share in continual.toml. Nothing else was changed."
    )


def _keep_loose(registry: Registry, rejects: Path, domain: str, content: str) -> str:
    """Publish the rejects of a file that made no batch, and return their path relative to `.continual/`."""
    path = f"rejects/{domain}-{content[:12]}.jsonl"
    _move(rejects, registry.path(path))
    return path


def _move(source: Path, target: Path) -> None:
    with publish(target) as partial:
        source.replace(partial)


@contextmanager
def _finishing(progress: Progress) -> Iterator[None]:
    """End the bar whatever happens, so that an error is not printed over it."""
    try:
        yield
    finally:
        progress.finish()

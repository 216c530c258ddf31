"""Ingest: from a file to a batch of a domain. `ingest` lists the steps that every row goes through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from continual.config import IngestConfig
from continual.progress import SILENT, Progress
from continual.registry import GIVEN_ONLY, Batch, Registry
from continual.registry.catalog import now
from continual.registry.names import check_name
from continual.storage.aside import announce
from continual.storage.files import publish
from continual.stream.checks import (
    check_hold_out,
    check_read,
    count_without_negatives,
    few_queries,
    task_without_rows,
    too_many_rejects,
    with_range,
)
from continual.stream.domain import Target, find_target, holdout_share, stored_files
from continual.stream.graded import add_negatives, drop_positives
from continual.stream.leaks import count_leaks, find_leaks, write_leaks
from continual.stream.options import IngestOptions, check_options
from continual.stream.ordered import write_rows
from continual.stream.readers import (
    Dialect,
    IdSource,
    Source,
    TextFiles,
    WatchedSource,
    naming_header,
    open_ids,
    open_source,
    text_columns,
)
from continual.stream.report import IngestReport, Read, report_rows, report_unchanged
from continual.stream.schema import Columns, Mapping, check_unread, resolve
from continual.stream.split import Split, split_rows
from continual.stream.stage import Staged, stage_all
from continual.stream.sweep import ANNOUNCED, KEPT, NEGATIVES, REJECTS, ROWS, TASK, staging
from continual.stream.task_files import read_task
from continual.stream.tasks import LOCK, task_path, task_record


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
    dialect: Dialect = Dialect(),  # noqa: B008  frozen
    corpus: Path | None = None,
    queries: Path | None = None,
    max_forgetting: float = 0.0,
    progress: Progress = SILENT,
) -> IngestReport:
    """Store the rows of a file as a batch of a domain.

    Each row has one fate, the first that applies: *rejected* (missing, empty, not text, too long, NUL or lone
    surrogates; written to a reject file), *not positive* (by its score; see `Columns`), *duplicate* (of a row in the
    file or in any batch of any domain), *leaked* (an exact or near duplicate of a text of an evaluation task), *held
    out*, *kept*. The order of the rows does not matter.

    The first batch of a domain is split: a share of its documents becomes the domain's evaluation task, which has the
    domain's name and never changes again; see `continual.stream.holdout.hold_out`. With `task`, that folder is the
    domain's task instead. Later batches are split only if `holdout` is given and the domain has no task.

    If no row is kept, no batch is recorded; this is an error only with `task`, which would be lost. Ingesting the same
    content from the same columns again changes nothing except the licence, if one is given. `batch_rows` and DuckDB's
    limit bound the memory whatever the size of the file; the disk needs about three times its size.

    Args:
        registry: Registry of the workspace.
        config: Limits and defaults.
        source: A file, or `hf:NAME[:CONFIG][:SPLIT]`; see `open_source`.
        domain: Name of the domain; None: the file's name without its suffix, or the name of the Hub data set.
        columns: Names of the columns, and what their scores mean; a role that is None is recognised by the common
            names.
        holdout: Share of the documents to hold out, 0 to 1; 0: no task; None: `config.holdout` for the first batch
            of a domain.
        task: A BEIR-like folder to use as the domain's task; see `read_task`.
        license: Licence of the data, such as "cc-by-4.0"; model cards list it.
        kind: Kind of the domain, one of `KINDS`; None: the kind it has, or retrieval. In a classification or
            clustering domain rows use only their own negatives: at least one kept row must have some, and rows
            without negatives are never trained on. In a graded domain every row has a score between 0 and 1, no
            negatives and a loss of its own, and nothing is held out.
        instruction: Purpose of the domain's queries. It replaces the model's own prompt, in the form of `INSTRUCTED`,
            wherever the queries are trained on, searched with or served. None: the instruction the domain has.
        dialect: How CSV and TSV files are written; their suffix decides what it leaves open.
        corpus: File with the texts of the positives and negatives, if the source names them by id.
        queries: File with the texts of the queries, likewise.
        max_forgetting: The gate's limit, in points. A new task with too few queries for it is a warning; 0: none is.
        progress: Reports rows checked and written.

    Returns:
        The fates of the rows.

    Raises:
        DataError: The source cannot be read, lacks columns, has too many bad rows, is too small to hold anything out,
            or has no row to keep although `task` is given; or no kept row has negatives and the domain's kind needs
            them.
        InputError: The options contradict each other or the state of the domain.
        InvalidNameError: The domain's name is not allowed, or an unrelated task has it.
        WorkspaceBusy: Another ingest is running.
    """
    # 1. Check the options and open the source.
    texts = TextFiles(corpus, queries)
    opened: IdSource | WatchedSource
    opened = open_ids(source, dialect, texts, columns) if texts else WatchedSource(open_source(source, dialect))
    columns = text_columns(columns, texts)
    options = check_options(IngestOptions(domain, columns, holdout, task, license, kind, instruction))
    name = check_name(opened.stem if options.domain is None else options.domain, "domain")

    with registry.lock(LOCK, "ingest"):
        # 2. Find the domain. Stop if it has this file already.
        target = find_target(registry, name, options)
        wanted = target.read_columns(options.columns)
        with naming_header(opened):
            mapping = resolve(wanted, opened.columns, source, graded=target.graded)
        opened.check(mapping)
        content = opened.sha256()
        given_task = read_task(options.task) if options.task is not None else None
        batch = target.find_batch(content, _record_columns(mapping, opened), given_task)
        if batch is not None:
            return _set_license(registry, batch, source, target, options.license)
        share = holdout_share(target, config, options)

        with staging(registry) as folder, _finishing(progress):
            # 3. Check every row: good rows go to the staging file, bad ones to the reject file.
            staged, mapping = stage_all(opened, mapping, wanted, config, folder, progress)
            batch = target.find_batch(content, _record_columns(mapping, opened), given_task)
            if batch is not None:  # with columns that were only found in its rows
                return _set_license(registry, batch, source, target, options.license)
            if staged.rejected > config.max_reject_share * staged.rows_in:
                rejects = registry.path(_publish_rejects(registry, folder, name, content))
                raise too_many_rejects(source, staged, config.max_reject_share, rejects)
            asked = bool(texts) or (options.columns.query is not None and options.columns.positive is not None)
            check_read(source, mapping, staged, asked=asked)
            if mapping.score_name is None and wanted.score is None:
                check_unread(source, opened.suspects())
            given_range = mapping.score_range
            mapping = with_range(source, mapping, staged)
            score_range = mapping.score_range

            # 4. Split the good rows into duplicates, leaks, held-out and kept rows.
            stored = stored_files(registry, target)
            split = split_rows(folder, staged.good, stored, given_task, share, config.max_holdout_queries)
            if share and split.clean:
                check_hold_out(source, share, split)
            dropped = drop_positives(folder / ROWS, folder / "spill") if staged.given else 0
            negatives = add_negatives(folder / ROWS, folder / NEGATIVES, folder / "spill") if staged.negatives else 0

            # 5. Write the kept rows in the order of their hash.
            without_negatives = 0
            if split.counts.kept:
                write_rows(folder / ROWS, split.kept, folder / KEPT, folder, progress, score_range)
                if target.kind in GIVEN_ONLY:
                    without_negatives = count_without_negatives(folder / KEPT, source, target.kind)

            # 6. Publish the files, and record the batch, the domain and its task.
            batch, rejects_path = None, None
            if split.counts.kept:
                columns_read = _record_columns(mapping, opened)
                batch = _record(registry, folder, target, source, content, columns_read, staged, split, options)
                rejects_path = batch.rejects_path
            elif staged.rejected:
                rejects_path = _publish_rejects(registry, folder, name, content)
            if batch is None and options.task is not None:
                raise task_without_rows(source, name, options.task, staged, split.counts, rejects_path)
            warnings = [*opened.warnings, *(_task_warnings(name, split, max_forgetting) if batch is not None else [])]
            read = Read(
                mapping, staged, negatives, dropped, opened.columns, warnings, None if given_range else score_range
            )
            return report_rows(target, source, read, split, batch, rejects_path, options.license, without_negatives)


def _task_warnings(domain: str, split: Split, max_forgetting: float) -> list[str]:
    """Return what is wrong with a new task."""
    few = None if split.task is None else few_queries(domain, split.task.queries.num_rows, max_forgetting)
    return [few] if few else []


def _record_columns(mapping: Mapping, opened: Source) -> dict[str, Any]:
    """Return what identifies a batch beside its content: which columns were read, and how."""
    return mapping.record() | ({"dialect": opened.dialect} if opened.dialect else {})


def _set_license(registry: Registry, batch: Batch, source: str, target: Target, license: str | None) -> IngestReport:
    """Record the licence of a file that the domain already has, if one is given, and report the file as unchanged."""
    if license is None:
        license = batch.license
    elif license != batch.license:
        registry.set_license(batch.id, license)
    return report_unchanged(batch, source, license=license, kind=target.kind, instruction=target.instruction)


def _record(
    registry: Registry,
    folder: Path,
    target: Target,
    source: str,
    content: str,
    columns: dict[str, Any],
    staged: Staged,
    split: Split,
    options: IngestOptions,
) -> Batch:
    """Publish the files of a staging folder and record them as a batch, with the domain's task if there is one.

    Nothing counts before the transaction at the end. If it fails, `staging` sweeps what was published.

    Args:
        registry: Registry of the workspace; the caller holds the ingest lock.
        folder: The staging folder.
        target: The domain.
        source: The file, as the caller named it.
        content: SHA-256 of the file.
        columns: Columns of the file by role, and how it was read.
        staged: Result of the first pass.
        split: Result of the second pass.
        options: Options of the ingest.
    """
    identity = registry.next_batch_id()
    path, rejects_path = f"data/{target.name}/{identity}.parquet", None
    if staged.rejected:
        rejects_path = f"data/{target.name}/{identity}.rejects.jsonl"
    new_task = None if split.task is None else task_path(target.name)
    announce(registry.root / ANNOUNCED, path, rejects_path, new_task)
    _move(folder / KEPT, registry.path(path))
    if rejects_path is not None:
        _move(folder / REJECTS, registry.path(rejects_path))
    task, leaks = None, []
    if split.task is not None:
        leaked_rows = find_leaks(registry, {target.name: folder / TASK})[target.name]
        write_leaks(folder / TASK, leaked_rows)
        leaks = count_leaks(target.name, leaked_rows)
        _move(folder / TASK, registry.path(task_path(target.name)))
        origin = "holdout" if options.task is None else str(options.task)
        task = task_record(target.name, target.name, split.task, origin)
    batch = Batch(
        id=identity,
        domain=target.name,
        source=source,
        source_sha256=content,
        path=path,
        rows_in=staged.rows_in,
        kept=split.counts.kept,
        duplicates=split.counts.duplicates,
        leaked=split.counts.leaked,
        rejected=staged.rejected,
        held_out=split.counts.held_out,
        rejects_path=rejects_path,
        columns=columns,
        created_at=now(),
        license=options.license,
    )
    return registry.add_batch(batch, task, leaks, kind=target.kind, instruction=target.instruction)


def _publish_rejects(registry: Registry, folder: Path, domain: str, content: str) -> str:
    """Publish the rejects of a file that no batch is recorded for, and return their path relative to `.continual/`."""
    path = f"rejects/{domain}-{content[:12]}.jsonl"
    _move(folder / REJECTS, registry.path(path))
    return path


def _move(source: Path, target: Path) -> None:
    with publish(target) as partial:
        source.replace(partial)


@contextmanager
def _finishing(progress: Progress) -> Iterator[None]:
    """Close the progress bar in every case, so that an error is not printed over it."""
    try:
        yield
    finally:
        progress.finish()

"""The records of the catalog against each other, and their numbers against the files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from continual.care.findings import Finding
from continual.eval.query_scores import QueryScores
from continual.registry import CURRENT, Batch, Registry, Score, Task

_CATALOG = "Restore the catalog from a backup."

_ROUNDING = 1e-6
"""Largest difference, in points, between a score and the mean of its scores per query."""


def check_records(registry: Registry, *, full: bool) -> Iterator[Finding]:
    """Yield records that name records that do not exist, and numbers that differ from those in the files.

    Args:
        full: Also count the lines of the reject files.
    """
    yield from _references(registry)
    for batch in registry.batches():
        yield from _batch(registry, batch, full=full)
    for task in registry.tasks():
        if task.mteb is None:
            yield from _task(registry, task)
    yield from _scores(registry, registry.all_scores())


def _references(registry: Registry) -> Iterator[Finding]:
    versions = {version.id: version for version in registry.versions()}
    batches = {batch.id for batch in registry.batches()}
    tasks = {task.name for task in registry.tasks()}

    def missing(
        where: str, what: str, names: Iterable[str | None], known: Iterable[str], affects: str
    ) -> Iterator[Finding]:
        for name in sorted({name for name in names if name is not None}.difference(known)):
            yield Finding("error", where, f"names the {what} {name}, which does not exist", affects, _CATALOG)

    for version in versions.values():
        named = [version.parent, version.provenance.start, *version.provenance.members]
        yield from missing(f"version {version.id}", "version", named, versions, "its lineage, and its rebuild")
        yield from missing(f"version {version.id}", "batch", version.batches, batches, "what it has learned")
    newest = {event.alias: event.version for event in registry.alias_events()}
    for alias, name in newest.items():
        yield from missing(f"alias {alias}", "version", [name], versions, "every command that takes the alias")
    if CURRENT not in newest:
        what = "does not exist, so there is no current version"
        yield Finding("error", f"alias {CURRENT}", what, "every command", _CATALOG)
    for score in registry.all_scores():
        where = f"score of {score.version} on {score.task}"
        run = registry.interrupted()
        known = [*versions, run.id] if run is not None else [*versions]
        yield from missing(where, "version", [score.version], known, "reports")
        yield from missing(where, "task", [score.task], tasks, "reports")


def _batch(registry: Registry, batch: Batch, *, full: bool) -> Iterator[Finding]:
    owner = f"batch {batch.id} of the domain {batch.domain}"
    yield from _count(registry, batch.path, batch.kept, owner)
    if full and batch.rejects_path is not None:
        with suppress(OSError), registry.path(batch.rejects_path).open("rb") as file:
            yield from _differs(batch.rejects_path, sum(1 for _ in file), batch.rejected, owner)


def _task(registry: Registry, task: Task) -> Iterator[Finding]:
    counts = {"queries": task.queries, "corpus": task.documents, "qrels": task.judgements}
    for name, rows in counts.items():
        yield from _count(registry, f"{task.path}/{name}.parquet", rows, f"the task {task.name}")


def _count(registry: Registry, path: str, rows: int, owner: str) -> Iterator[Finding]:
    with suppress(OSError, pa.ArrowException):  # the digest tells that it is missing or damaged
        yield from _differs(path, pq.read_metadata(registry.path(path)).num_rows, rows, owner)


def _differs(path: str, found: int, rows: int, owner: str) -> Iterator[Finding]:
    if found != rows:
        what = f"has {found:,} rows, but {rows:,} were recorded"
        yield Finding("error", f".continual/{path}", what, owner, "Restore it, or the catalog, from a backup.")


def _scores(registry: Registry, scores: Iterable[Score]) -> Iterator[Finding]:
    """Compare scores with the means of their scores per query."""
    files = QueryScores(registry.root)
    for score in scores:
        found = None if score.path is None else files.read(score.path)
        if found is None:
            continue
        values, where = found[1], Path(".continual") / str(score.path)
        mean = 100 * float(values.mean()) if len(values) else 0.0
        if len(values) != score.queries or not abs(mean - score.score) <= _ROUNDING:
            yield Finding(
                "error",
                where.as_posix(),
                f"gives {mean:.4f} points over {len(values):,} queries, but {score.score:.4f} over {score.queries:,} "
                "were recorded",
                f"the score of {score.version} on {score.task}",
                f"Score again: `continual doctor --fix`, then `continual eval {score.version}`.",
                mend="rescore",
                subject=str(score.path),
            )

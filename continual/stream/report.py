"""What an ingest reports: the fate of every row of the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from continual.registry import RETRIEVAL, Batch
from continual.stream.domain import Target, task_hint
from continual.stream.schema import Mapping
from continual.stream.split import Split
from continual.stream.stage import Staged
from continual.stream.task_tables import TaskReading


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The result of an ingest: `rows_in = kept + duplicates + leaked + rejected + held_out + not_positive`.

    Attributes:
        domain: Name of the domain.
        batch: Id of the batch; None if no row was kept, because then no batch is recorded.
        source: The file, as the caller named it.
        unchanged: The domain already has a batch of this content from these columns. Nothing was stored, and the
            counts are those of that batch.
        rows_in: Rows in the file; a row with several positives counts once for each.
        kept: Training rows stored.
        duplicates: Rows whose pair another row of the file or any batch of any domain already has.
        leaked: Rows whose query or positive is an exact or near duplicate of a query or a relevant document of an
            evaluation task, and rows of a document that was held out of the domain before.
        rejected: Bad rows; see `reject_reasons` and the file at `rejects_path`.
        held_out: Rows held out as the domain's evaluation task.
        rejects_path: The reject file, relative to `.continual/`; None if no row was bad.
        reject_reasons: Number of bad rows by reason; empty if `unchanged`.
        task: Name of the evaluation task that this ingest created; None if it created none.
        columns: Column by role (query, positive, negatives, doc_id, score); empty if `unchanged`.
        license: Licence of the data as recorded now; None if not stated.
        near: Leaked rows that are near duplicates; 0 if `unchanged`.
        of_held: Leaked rows of a document that was held out before; 0 if `unchanged`.
        kind: Kind of the domain, one of `KINDS`.
        without_negatives: Kept rows that no step trains on, because they have no negatives and the domain is of kind
            classification or clustering; 0 if `unchanged`.
        instruction: What is put before the domain's queries; None if the model's own prompt is used.
        task_reading: What was left out or converted in the folder of the task; None without such a folder.
        not_positive: Rows whose score is below `Columns.positive_at`.
        between: Of these, rows that are left out, because their score is above `Columns.negative_at`.
        hard_negatives: Different pairs of a query and a text that the other of these rows gave as a negative to rows
            with the same query, at most `MAX_NEGATIVES` per query; 0 if `unchanged`, like `between`.
        dropped_negatives: Negatives of rows that were left out, because they are positives of the same query in the
            file; 0 if `unchanged`.
        scores: Smallest and largest score; None without a score column.
        several_positives: Rows with a list of several positives, each of which is a row of its own.
        unread: Columns that were not read.
        warnings: What may be wrong with the file, as sentences.
        score_range: Smallest and largest possible score of graded pairs, stored as 0 and 1; None for other rows.
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
    task_reading: TaskReading | None = None
    not_positive: int = 0
    between: int = 0
    hard_negatives: int = 0
    dropped_negatives: int = 0
    scores: tuple[float, float] | None = None
    several_positives: int = 0
    unread: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    score_range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a file: its columns and the result of the first pass.

    Attributes:
        mapping: The columns that were read.
        staged: The counts of the first pass.
        negatives: Pairs of a query and a hard negative.
        dropped: Negatives left out because they are positives of their query.
        columns: All columns.
        warnings: What may be wrong with the file.
        observed: Range of the scores of graded pairs, if it was only found in the file.
    """

    mapping: Mapping
    staged: Staged
    negatives: int
    dropped: int
    columns: list[str]
    warnings: list[str]
    observed: tuple[float, float] | None = None


def report_rows(
    target: Target,
    source: str,
    read: Read,
    split: Split,
    batch: Batch | None,
    rejects_path: str | None,
    license: str | None,
    without_negatives: int,
) -> IngestReport:
    """Return the report for the rows of a new file; `batch` is None if no row was kept."""
    mapping, staged = read.mapping, read.staged
    return IngestReport(
        domain=target.name,
        batch=None if batch is None else batch.id,
        source=source,
        unchanged=False,
        rows_in=staged.rows_in,
        kept=split.counts.kept,
        duplicates=split.counts.duplicates,
        leaked=split.counts.leaked,
        rejected=staged.rejected,
        held_out=split.counts.held_out,
        rejects_path=rejects_path,
        reject_reasons=dict(sorted(staged.reasons.items())),
        task=None if batch is None or split.task is None else target.name,
        columns=mapping.describe(),
        license=license,
        near=split.counts.near,
        of_held=split.counts.of_held,
        kind=target.kind,
        without_negatives=without_negatives,
        instruction=target.instruction,
        task_reading=None if batch is None or split.task is None else split.task.reading,
        not_positive=staged.not_positive,
        between=staged.between,
        hard_negatives=read.negatives,
        dropped_negatives=read.dropped,
        scores=staged.scores,
        several_positives=staged.several,
        unread=[name for name in read.columns if name not in mapping.names],
        warnings=[*read.warnings, *(_graded_warnings(target, source, read, split) if target.graded else [])],
        score_range=mapping.grades.range if mapping.grades else None,
    )


def _graded_warnings(target: Target, source: str, read: Read, split: Split) -> Iterator[str]:
    if read.observed is not None:
        yield (
            f"the scores of {source} are taken to be from {read.observed[0]:g} to {read.observed[1]:g}, the smallest "
            "and largest in it. If others are possible, ingest the file into a new domain with --score-range."
        )
    if split.counts.contradicted:
        yield f"{split.counts.contradicted:,} pairs have several scores. One of them is used."
    if not target.own_tasks and split.task is None:
        yield (
            f"the domain {target.name} has no evaluation task, since none can be held out of graded pairs: the gate "
            f"doesn't see what an update gains or forgets there. Add one with {task_hint(target.name)}."
        )


def report_unchanged(
    batch: Batch, source: str, *, license: str | None, kind: str, instruction: str | None
) -> IngestReport:
    """Return the report for a file that the domain already has as `batch`."""
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
        license=license,
        kind=kind,
        instruction=instruction,
        # The catalog records the other fates, and each row has one.
        not_positive=batch.rows_in - batch.kept - batch.duplicates - batch.leaked - batch.rejected - batch.held_out,
    )

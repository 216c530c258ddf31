"""The checks between the steps of an ingest: too many bad rows, nothing to train on, no negatives."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.errors import DataError
from continual.stream.schema import GIVE_TEXTS, Mapping
from continual.stream.split import Counts, Split
from continual.stream.stage import Staged

QUERY_SPREAD = 18.0
"""Usual standard deviation of a query's change of nDCG@10 in an update, in points: 300 queries give an interval of two
points on either side."""


def too_many_rejects(source: str, staged: Staged, limit: float, rejects: Path) -> DataError:
    """Return the error for a file with more than the share `limit` of bad rows, listed in `rejects`."""
    reasons = ", ".join(
        f"{reason} ({count})" for reason, count in sorted(staged.reasons.items(), key=lambda item: -item[1])
    )
    return DataError(
        f"{source}: {staged.rejected} of {staged.rows_in} rows ({staged.rejected / staged.rows_in:.1%}) cannot be "
        f"used, more than max_reject_share = {limit:.1%}: {reasons}. Nothing was stored; {rejects} lists the rows. "
        "Fix the file, or raise ingest.max_reject_share in continual.toml."
    )


def check_read(source: str, mapping: Mapping, staged: Staged, *, asked: bool) -> None:
    """Check that what was read can be the texts of pairs and the scores that were asked for.

    Args:
        source: The file.
        mapping: The columns that were read.
        staged: The result of the first pass.
        asked: The caller says where the texts are, so they may be numbers.

    Raises:
        DataError: No row is positive by its score, or the texts are ids.
    """
    check_scores_read(source, mapping, staged)
    if not asked:
        check_texts_read(source, staged)


def check_scores_read(source: str, mapping: Mapping, staged: Staged) -> None:
    """Check that the scores leave a positive pair.

    Raises:
        DataError: Every score is below that of a positive.
    """
    if mapping.score is not None and staged.scores is not None and not staged.good:
        least, largest = staged.scores
        raise DataError(
            f"{source}: no pair has a {mapping.score.name!r} of {mapping.score.positive_at:g} or more; its scores are "
            f"from {least:g} to {largest:g}. Give a lower --positive-at."
        )


def check_texts_read(source: str, staged: Staged) -> None:
    """Check that the queries and positives are not all numbers, which are ids of texts.

    Raises:
        DataError: They are.
    """
    if staged.good and staged.numbers == staged.good:
        raise DataError(
            f"{source}: every query and every positive is a number, so they are ids and no texts. {GIVE_TEXTS}"
        )


def with_range(source: str, mapping: Mapping, staged: Staged) -> Mapping:
    """Return a mapping with the range of the scores: as it was given, or from the smallest to the largest score.

    Raises:
        DataError: The range is not given, and all scores are equal.
    """
    if mapping.grades is None or mapping.grades.range is not None or staged.scores is None:
        return mapping
    least, largest = staged.scores
    if least == largest:
        raise DataError(
            f"{source}: every {mapping.grades.name!r} is {least:g}, so no pair is better than another. Give the "
            "smallest and the largest possible score with --score-range LOW HIGH."
        )
    return replace(mapping, grades=replace(mapping.grades, range=staged.scores))


def check_hold_out(source: str, share: float, split: Split) -> None:
    """Check that the hold-out leaves something to evaluate and something to train on.

    Raises:
        DataError: No document was held out, or no row was kept.
    """
    if split.documents and split.counts.kept:
        return
    reason = (
        "leaves no row to train on"
        if split.documents
        else f"of {split.counts.kept:,} new rows is less than one document, or all rows share texts with stored rows"
    )
    raise DataError(
        f"{source}: --holdout {share:.3g} {reason}. Give an evaluation task with --task DIR, "
        "another share with --holdout, or --holdout 0 for a domain that is not evaluated."
    )


def few_queries(task: str, queries: int, limit: float) -> str | None:
    """Return a warning if a task has too few queries for the gate to see a fall of `limit` points; None otherwise.

    A fall breaks the limit if it is significant, one-sided at 5 %: beyond 1.64 standard errors. The scores of single
    queries usually change by some `QUERY_SPREAD` points.
    """
    needed = math.ceil((1.64 * QUERY_SPREAD / limit) ** 2) if limit else 0
    if queries >= needed:
        return None
    return (
        f"the task {task} has {queries:,} queries, and the gate usually needs {needed:,} to tell a fall of {limit:g} "
        "points (gate.max_forgetting) from chance. Hold out more with --holdout, or add a larger task with `continual "
        "task add`."
    )


def count_without_negatives(kept: Path, source: str, kind: str) -> int:
    """Return how many rows of a file of kept rows have no negatives.

    Raises:
        DataError: No row has negatives.
    """
    without = rows = 0
    with pq.ParquetFile(kept) as file:
        for batch in file.iter_batches(columns=["negatives"]):
            without += pc.sum(pc.equal(pc.list_value_length(batch["negatives"]), 0)).as_py()
            rows += batch.num_rows
    if without == rows:
        raise DataError(
            f"{source}: none of its {rows:,} new rows has negatives, and in a domain of kind {kind} rows use only "
            "their own negatives, since other rows may belong to the same class. Name their column with "
            "--negatives-column. If the documents of other rows don't answer a row's query, use --kind retrieval and "
            "another --domain instead."
        )
    return without


def task_without_rows(
    source: str, domain: str, task: Path, staged: Staged, counts: Counts, rejects: str | None
) -> DataError:
    """Return the error for a file that comes with a task but has no row to keep."""
    listed = f" (listed in .continual/{rejects})" if rejects else ""
    return DataError(
        f"{source} has no new row to train on: {counts.duplicates} of its {staged.rows_in} rows are duplicates, "
        f"{counts.leaked} leak into evaluation tasks, {staged.not_positive} are not positive, {staged.rejected} cannot "
        f"be used{listed}. The domain {domain!r} and its task {task} were not registered. Give --task with a file that "
        "has new rows, or register the folder with `continual task add NAME DIR`."
    )

"""Confidence intervals of every value a report shows, from per-query scores, for all versions of a task at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual.eval.metrics import Learned, Matrix
from continual.eval.significance import (
    OF_SCORES,
    Moments,
    combine_moments,
    moments,
)

Ends = tuple[float, float] | None
"""Lower and upper end; None where the value is missing or has no per-query scores."""

RowIndices = NDArray[np.int64]

NONE = -1
"""Marks a cell without a row."""


@dataclass(frozen=True)
class Intervals:
    """The intervals of a report: lists by version; `score`, `over_base` and `since_learned` by version, then by task.

    The ends are in points, except those of the retained share (`metrics["retained"]`), which are in percent.

    Attributes:
        confidence: Level of the intervals, 0 to 1.
        score: Each score.
        over_base: Each score minus the root base's.
        since_learned: Each score minus the score right after its domain was learned, from the following step on.
        gained: The mean gain right after learning, which `retained` is a share of.
        metrics: Each metric, by name. The interval of `forgetting` treats the best version as fixed. `retained` has an
            interval only where that of `gained` is above zero.
        ood_change: The OOD mean minus the root base's.
    """

    confidence: float
    score: list[list[Ends]]
    over_base: list[list[Ends]]
    since_learned: list[list[Ends]]
    gained: list[Ends]
    metrics: dict[str, list[Ends]]
    ood_change: list[Ends]

    def to_json(self) -> dict[str, Any]:
        """Return the intervals as plain data: [low, high] or null."""
        return dict(vars(self))


@dataclass(frozen=True)
class Contrast:
    """Which score is subtracted from which, for each version and task.

    Attributes:
        first: Rows of the minuends, of shape [versions, tasks]; `NONE` where nothing is compared.
        second: Rows of the subtrahends, in the same form.
    """

    first: RowIndices
    second: RowIndices

    def moments(self, values: Sequence[Matrix], drift: Matrix) -> Moments:
        """Return the moments over each task's queries, of shape [versions, tasks]; NaN where nothing is compared.

        Args:
            values: As `report_intervals` takes them.
            drift: Variance that is added for each score, of shape [versions, tasks], with a row for the joint version.
        """
        stacked = np.full((3, *self.first.shape), np.nan)
        for task, points in enumerate(values):
            measured = _measured(points)  # the others give NaN; most versions of a long stream may have no file
            first, second = self.first[:, task], self.second[:, task]
            versions = np.flatnonzero((first != NONE) & (second != NONE) & measured[first] & measured[second])
            if versions.size:
                part = moments(points[self.first[versions, task]] - points[self.second[versions, task]])
                more = drift[first[versions], task] + drift[second[versions], task]
                stacked[:, versions, task] = part.mean, part.variance + more, part.freedom
        return Moments(*stacked)


def report_intervals(
    matrix: Matrix,
    lineages: Sequence[Sequence[int]],
    learned: Sequence[Learned],
    ood: Sequence[int],
    values: Sequence[Matrix],
    joint: NDArray[np.float64] | None,
    confidence: float,
    drift: Matrix | None = None,
) -> Intervals:
    """Return the intervals of a report.

    Args:
        matrix: Points, of shape [versions, tasks]; NaN where a score is missing.
        lineages: For each version, the rows of its lineage, from the root base to the version itself.
        learned: For each version and task, the position in the version's lineage of the step that learned the task's
            domain, or None.
        ood: Columns of the OOD set.
        values: For each task, the points of every query, of shape [versions, queries]; NaN where they are missing. With
            `joint`, there is one more row, the joint version's.
        joint: Points of the joint version, of shape [tasks]; NaN where it was not scored or did not learn the domain.
        confidence: Level of the intervals, 0 to 1.
        drift: Variance that is added because a score is that of an earlier version, points squared, of shape
            [versions, tasks]; None: all are the versions' own.
    """
    contrasts = _contrasts(matrix, lineages, learned, joint)
    drift = np.zeros(matrix.shape) if drift is None else drift
    with_joint = np.vstack([drift, np.zeros(matrix.shape[1])])
    parts = {name: contrast.moments(values, with_joint) for name, contrast in contrasts.items()}
    parts["score"] = _scores(values, drift)
    acc = np.isfinite(matrix) & np.array([[step is not None for step in steps] for steps in learned], bool)
    outside = np.zeros(matrix.shape, bool)
    outside[:, list(ood)] = True
    metrics = {"acc": _mean_ends(parts["score"], acc, confidence)}
    contrast_of = {"bwt": "since", "fwt": "before", "forgetting": "best", "intransigence": "joint"}
    for metric, name in contrast_of.items():
        metrics[metric] = _mean_ends(parts[name], contrasts[name].first != NONE, confidence)
    metrics["retained"], gained = _retained(contrasts["since"], matrix, values, drift, confidence)
    metrics["ood_mean"] = _mean_ends(parts["score"], outside, confidence)
    return Intervals(
        confidence=confidence,
        score=_table(parts["score"], confidence),
        over_base=_table(parts["base"], confidence),
        since_learned=_table(parts["since"], confidence),
        gained=gained,
        metrics=metrics,
        ood_change=_mean_ends(parts["base"], outside, confidence),
    )


def _contrasts(
    matrix: Matrix,
    lineages: Sequence[Sequence[int]],
    learned: Sequence[Learned],
    joint: NDArray[np.float64] | None,
) -> Mapping[str, Contrast]:
    """Return what the curves and metrics subtract, where both scores exist."""
    scored = np.isfinite(matrix)
    contrasts = {
        name: Contrast(np.full(matrix.shape, NONE), np.full(matrix.shape, NONE))
        for name in ("base", "since", "before", "best", "joint")
    }

    tasks = np.arange(matrix.shape[1])
    best: list[RowIndices] = []  # of each version: the row of the best score in its lineage, the first of equal ones
    for version, (lineage, steps) in enumerate(zip(lineages, learned, strict=True)):
        last = len(lineage) - 1
        step = np.array([NONE if found is None or found > last else found for found in steps], np.int64)
        rows = np.asarray(lineage)[step]  # of the version that learned each task; meaningless where step is NONE

        before = best[lineage[-2]] if last else np.full(tasks.shape, NONE)
        own, root = np.full(tasks.shape, version), np.zeros(tasks.shape, np.int64)
        earlier = (step != NONE) & (step < last)
        for name, where, first, second in (
            ("base", np.full(tasks.shape, last > 0), own, root),
            ("before", step >= 2, np.asarray(lineage)[np.maximum(step - 1, 0)], root),
            ("since", earlier, own, rows),
            ("best", earlier & (before != NONE), before, own),
        ):
            both = where & scored[first, tasks] & scored[second, tasks]
            contrasts[name].first[version, both], contrasts[name].second[version, both] = first[both], second[both]
        if joint is not None:
            where = (step != NONE) & np.isfinite(joint) & scored[rows, tasks]
            contrasts["joint"].first[version, where], contrasts["joint"].second[version, where] = (
                len(matrix),
                rows[where],
            )
        with np.errstate(invalid="ignore"):
            better = scored[version] & ((before == NONE) | ~(matrix[before, tasks] >= matrix[version]))
        best.append(np.where(better, version, before))
    return contrasts


def _scores(values: Sequence[Matrix], drift: Matrix) -> Moments:
    stacked = np.full((3, *drift.shape), np.nan)
    for task, points in enumerate(values):
        rows = np.flatnonzero(_measured(points)[: len(drift)])
        if rows.size:
            part = moments(points[rows], OF_SCORES)
            stacked[:, rows, task] = part.mean, part.variance + drift[rows, task], part.freedom
    return Moments(*stacked)


def _retained(
    since: Contrast, matrix: Matrix, values: Sequence[Matrix], drift: Matrix, confidence: float
) -> tuple[list[Ends], list[Ends]]:
    """Return the intervals of the retained shares, in percent, and those of the mean gains, in points.

    By the delta method: the share is r = sum of (score - base) / sum of gains, and its error is that of
    (score - base - r gain), query by query, over the sum of gains. If the sum of gains may be zero, the share can take
    any value, so it has no interval.
    """
    learned_in = np.where(since.first != NONE, since.second, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        gained = np.take_along_axis(matrix, learned_in, 0) - matrix[0]
        used = (since.first != NONE) & (gained > 0)
        total = np.where(used, gained, 0.0).sum(1)
        share = np.where(used, matrix - matrix[0], 0.0).sum(1) / total
        weights = np.where(used, 100.0 / total[:, None], 0.0)
    parts, gains_of = np.full((2, 3, *matrix.shape), np.nan)
    for task, points in enumerate(values):
        measured = _measured(points)
        rows = np.flatnonzero(
            used[:, task] & measured[: len(used)] & measured[learned_in[:, task]] & measured[:1].all()
        )
        if rows.size:
            gains = points[learned_in[rows, task]] - points[0]
            part = moments(points[rows] - points[0] - share[rows, None] * gains)
            parts[:, rows, task] = part.mean, part.variance + drift[rows, task], part.freedom
            part = moments(gains)
            gains_of[:, rows, task] = part.mean, part.variance, part.freedom
    gained_ends = _mean_ends(Moments(*gains_of), used, confidence)
    low, high = combine_moments(Moments(*parts), weights).ends(confidence)
    share_ends = [_ends(*ends) for ends in zip(100.0 * share + low, 100.0 * share + high, strict=True)]
    above_zero = [ends is not None and ends[0] > 0 for ends in gained_ends]
    return [ends if sure else None for ends, sure in zip(share_ends, above_zero, strict=True)], gained_ends


def _measured(points: Matrix) -> NDArray[np.bool_]:
    """Return whether each version has points per query."""
    if not points.shape[1]:
        return np.zeros(len(points), bool)
    return np.asarray(~np.isnan(points).any(1))


def _mean_ends(parts: Moments, chosen: NDArray[np.bool_], confidence: float) -> list[Ends]:
    """Return the interval of each version's mean over the chosen tasks; `chosen` has shape [versions, tasks]."""
    weights = chosen / np.maximum(chosen.sum(1, keepdims=True), 1)
    return [_ends(low, high) for low, high in zip(*combine_moments(parts, weights).ends(confidence), strict=True)]


def _table(parts: Moments, confidence: float) -> list[list[Ends]]:
    low, high = parts.ends(confidence)
    table: list[list[Ends]] = [[None] * low.shape[1] for _ in low]
    for version, task in zip(*np.nonzero(np.isfinite(low) & np.isfinite(high)), strict=True):
        table[version][task] = _ends(low[version, task], high[version, task])
    return table


def _ends(low: float, high: float) -> Ends:
    return (round(float(low), 9), round(float(high), 9)) if np.isfinite(low) and np.isfinite(high) else None

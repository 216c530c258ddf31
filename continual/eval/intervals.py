"""Intervals of everything that a report draws, from the scores of every query: all versions of a task at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
"""Lower and upper end; None where there is no value, or a score has no values per query."""

RowIndices = NDArray[np.int64]

NONE = -1
"""No row."""


@dataclass(frozen=True)
class Intervals:
    """The intervals of a report; lists are by version, and those of tasks then by task. All are in points, as the
    values they belong to; that of the retained share is in percent.

    Attributes:
        confidence: Their level.
        score: Of each score.
        over_base: Of each score minus the root base's.
        since_learned: Of each score minus the one right after its domain was learned, from the step after that on.
        gained: Of the gain right after learning that `retained` is a share of, the mean over its tasks.
        metrics: Of each metric, by its name; that of `forgetting` takes the best version for known, and `retained`
            has one only where `gained` is above zero.
        ood_change: Of the OOD mean minus the root base's.
    """

    confidence: float
    score: list[list[Ends]]
    over_base: list[list[Ends]]
    since_learned: list[list[Ends]]
    gained: list[Ends]
    metrics: dict[str, list[Ends]]
    ood_change: list[Ends]

    def to_json(self) -> dict[str, Any]:
        """Return them as plain data: [low, high] or null."""
        return asdict(self)


@dataclass(frozen=True)
class Contrast:
    """Which score minus which other, row by row: both of shape [versions, tasks], NONE where there is none."""

    first: RowIndices
    second: RowIndices

    def moments(self, values: Sequence[Matrix]) -> Moments:
        """Return the moments over the queries of each task, NaN where there are none, [versions, tasks]."""
        found = np.full((3, *self.first.shape), np.nan)
        for task, points in enumerate(values):
            known = np.flatnonzero((self.first[:, task] != NONE) & (self.second[:, task] != NONE))
            if known.size and points.shape[1]:
                part = moments(points[self.first[known, task]] - points[self.second[known, task]])
                found[:, known, task] = part.mean, part.variance, part.freedom
        return Moments(*found)


def report_intervals(
    matrix: Matrix,
    lineages: Sequence[Sequence[int]],
    learned: Sequence[Learned],
    ood: Sequence[int],
    values: Sequence[Matrix],
    joint: NDArray[np.float64] | None,
    confidence: float,
) -> Intervals:
    """Return the intervals of a report.

    Args:
        matrix: Points of all versions, NaN where there is none, of shape [versions, tasks].
        lineages: Per version, the rows of its lineage, from the root base to it.
        learned: Per version and task, the place in its lineage of the step that learned the task's domain, or None.
        ood: Columns of the OOD set.
        values: Per task, the points of every query, [versions, queries], NaN where there are none; with `joint`, it
            has one more row.
        joint: Points of the joint version by task, NaN where it was not scored or did not learn the domain.
        confidence: Level of the intervals.
    """
    contrasts = _contrasts(matrix, lineages, learned, joint)
    parts = {name: each.moments(values) for name, each in contrasts.items()}
    parts["score"] = _scores(values, matrix.shape)
    acc = np.isfinite(matrix) & np.array([[step is not None for step in steps] for steps in learned], bool)
    outside = np.zeros(matrix.shape, bool)
    outside[:, list(ood)] = True
    metrics = {"acc": _mean_ends(parts["score"], acc, confidence)}
    named = {"bwt": "since", "fwt": "before", "forgetting": "best", "intransigence": "joint"}
    for metric, name in named.items():
        metrics[metric] = _mean_ends(parts[name], contrasts[name].first != NONE, confidence)
    metrics["retained"], gained = _retained(contrasts["since"], matrix, values, confidence)
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
    """Return what the curves and metrics subtract, only where both scores are there."""
    known = np.isfinite(matrix)
    found = {
        name: Contrast(np.full(matrix.shape, NONE), np.full(matrix.shape, NONE))
        for name in ("base", "since", "before", "best", "joint")
    }

    def put(name: str, version: int, task: int, first: int, second: int) -> None:
        if known[first, task] and known[second, task]:
            found[name].first[version, task], found[name].second[version, task] = first, second

    for version, line in enumerate(lineages):
        last = len(line) - 1
        for task, step in enumerate(learned[version]):
            if last:
                put("base", version, task, version, 0)
            if step is None or step > last:
                continue
            if joint is not None and np.isfinite(joint[task]) and known[line[step], task]:
                found["joint"].first[version, task], found["joint"].second[version, task] = len(matrix), line[step]
            if step >= 2:
                put("before", version, task, line[step - 1], 0)
            if step < last:
                put("since", version, task, version, line[step])
                if known[line[:last], task].any():
                    put("best", version, task, line[int(np.nanargmax(matrix[line[:last], task]))], version)
    return found


def _scores(values: Sequence[Matrix], shape: tuple[int, ...]) -> Moments:
    found = np.full((3, *shape), np.nan)
    for task, points in enumerate(values):
        if points.shape[1]:
            part = moments(points[: shape[0]], OF_SCORES)
            found[:, :, task] = part.mean, part.variance, part.freedom
    return Moments(*found)


def _retained(
    since: Contrast, matrix: Matrix, values: Sequence[Matrix], confidence: float
) -> tuple[list[Ends], list[Ends]]:
    """Return the intervals of the retained shares, percent, by the delta method; and those of the mean gains, points.

    The share is r = sum of what is left / sum of what was gained; its error is that of (left - r gained), query by
    query, over the sum of what was gained. Where that sum may be zero, the share may be anything: it has no interval.
    """
    places = np.where(since.first != NONE, since.second, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        gained = np.take_along_axis(matrix, places, 0) - matrix[0]
        used = (since.first != NONE) & (gained > 0)
        total = np.where(used, gained, 0.0).sum(1)
        share = np.where(used, matrix - matrix[0], 0.0).sum(1) / total
        weights = np.where(used, 100.0 / total[:, None], 0.0)
    parts, gains_of = np.full((2, 3, *matrix.shape), np.nan)
    for task, points in enumerate(values):
        rows = np.flatnonzero(used[:, task])
        if rows.size and points.shape[1]:
            gains = points[places[rows, task]] - points[0]
            part = moments(points[rows] - points[0] - share[rows, None] * gains)
            parts[:, rows, task] = part.mean, part.variance, part.freedom
            part = moments(gains)
            gains_of[:, rows, task] = part.mean, part.variance, part.freedom
    gained_ends = _mean_ends(Moments(*gains_of), used, confidence)
    low, high = combine_moments(Moments(*parts), weights).ends(confidence)
    ends = [_ends(*each) for each in zip(100.0 * share + low, 100.0 * share + high, strict=True)]
    sure = [each is not None and each[0] > 0 for each in gained_ends]
    return [each if known else None for each, known in zip(ends, sure, strict=True)], gained_ends


def _mean_ends(parts: Moments, chosen: NDArray[np.bool_], confidence: float) -> list[Ends]:
    """Return the intervals of the means over the chosen tasks, by version."""
    weights = chosen / np.maximum(chosen.sum(1, keepdims=True), 1)
    return [_ends(low, high) for low, high in zip(*combine_moments(parts, weights).ends(confidence), strict=True)]


def _table(parts: Moments, confidence: float) -> list[list[Ends]]:
    low, high = parts.ends(confidence)
    return [[_ends(*ends) for ends in zip(*rows, strict=True)] for rows in zip(low, high, strict=True)]


def _ends(low: float, high: float) -> Ends:
    return (round(float(low), 9), round(float(high), 9)) if np.isfinite(low) and np.isfinite(high) else None

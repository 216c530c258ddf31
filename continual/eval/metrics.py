"""Continual-learning metrics over an R matrix, as pure functions of numpy arrays.

`R[i][j]` is the score of the i-th version of a lineage on task j, in points; row 0 is the root base and the last
row, T, is the version that is judged. NaN marks a cell that was never measured. `learned[j]` is the row of the step
that first learned the domain of task j, or None while task j is out of domain. Where the literature has one task a
step, a step of ours may learn several domains, so the sums run over tasks and `R[i][i]` reads "right after the step
that first learned it".

A mean leaves out the tasks whose cells are missing, and is NaN when none is left, or when no task qualifies (BWT at
the first step). `docs/metrics.md` sets these definitions beside those of Avalanche and Mammoth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Learned = Sequence[int | None]


def acc(scores: Matrix, learned: Learned) -> float:
    """Average score on what was learned: ACC_T = mean over j of R[T][j].

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None: out of domain.

    Returns:
        Points, 0 to 100; NaN before anything was learned. Higher is better.
    """
    last = len(scores) - 1
    return _mean(scores[last, j] for j in _in_domain(learned, last))


def bwt(scores: Matrix, learned: Learned) -> float:
    """Backward transfer: BWT_T = mean over the tasks learned before T of R[T][j] - R[i_j][j].

    i_j is the step that learned task j. Below zero is forgetting; above, later steps helped. Lopez-Paz and Ranzato
    2017, https://arxiv.org/abs/1706.08840. Avalanche calls its negative, first minus last, "forgetting".

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None: out of domain.

    Returns:
        Points, -100 to 100; NaN before the second step.
    """
    last = len(scores) - 1
    return _mean(scores[last, j] - scores[step, j] for j, step in _before(learned, last))


def fwt(scores: Matrix, learned: Learned) -> float:
    """Forward transfer: FWT_T = mean over the tasks learned in steps 2 to T of R[i_j - 1][j] - R[0][j].

    What the steps before had already done for a domain by the time it was learned, against the root base.

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None: out of domain.

    Returns:
        Points, -100 to 100; NaN before the second step. Higher is better.
    """
    last = len(scores) - 1
    return _mean(scores[step - 1, j] - scores[0, j] for j, step in _in_domain(learned, last).items() if step >= 2)


def forgetting(scores: Matrix, learned: Learned) -> float:
    """Forgetting: F_T = mean over the tasks learned before T of (max over l < T of R[l][j]) - R[T][j].

    The best that any earlier version did, the root base included, minus what the last one does; below zero when the
    last is the best yet. Chaudhry et al. 2018, https://arxiv.org/abs/1801.10112. Mammoth lets the maximum include
    the last row, so that it is never negative; Avalanche takes first minus last, our -BWT.

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None: out of domain.

    Returns:
        Points, -100 to 100; NaN before the second step. Lower is better.
    """
    last = len(scores) - 1
    falls = []
    for j, _ in _before(learned, last):
        known = scores[:last, j][~np.isnan(scores[:last, j])]
        falls.append(known.max() - scores[last, j] if known.size else np.nan)
    return _mean(falls)


def ood_mean(scores: Matrix, tasks: Sequence[int]) -> float:
    """Mean score of the last version on tasks that no domain of ours belongs to.

    The set is fixed by the caller and the same for every version, so that the values make one curve. A version that
    lacks one of them has no mean: it would be a mean of something else.

    Args:
        scores: R, points, of shape [versions, tasks].
        tasks: Columns of the set.

    Returns:
        Points, 0 to 100; NaN for an empty set or a missing cell.
    """
    return float(np.mean(scores[-1, list(tasks)])) if tasks else float("nan")


METRICS: dict[str, Callable[[Matrix, Learned], float]] = {
    "acc": acc,
    "bwt": bwt,
    "fwt": fwt,
    "forgetting": forgetting,
}
"""The metrics of a lineage, in the order they are shown."""


def _in_domain(learned: Learned, last: int) -> dict[int, int]:
    return {j: step for j, step in enumerate(learned) if step is not None and step <= last}


def _before(learned: Learned, last: int) -> list[tuple[int, int]]:
    return [(j, step) for j, step in _in_domain(learned, last).items() if step < last]


def _mean(values: Iterable[float]) -> float:
    known = np.array([value for value in values if not np.isnan(value)], dtype=np.float64)
    return float(known.mean()) if known.size else float("nan")

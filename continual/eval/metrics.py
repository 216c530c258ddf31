"""Continual-learning metrics over an R matrix, as pure functions of numpy arrays.

`R[i][j]` is the score of the i-th version of a lineage on task j, in points. Row 0 is the root base, and the last row,
T, is the version to judge. NaN marks a cell that was not measured. `learned[j]` is the row of the step that first
learned the domain of task j, or None if task j is out of domain. The literature has one task per step; here a step can
learn several domains, so the sums run over tasks, and i_j is the step that first learned task j.

A mean leaves out the tasks whose cells are missing. It is NaN if no task is left or none qualifies (BWT at the first
step). `docs/metrics.md` compares these definitions with those of Avalanche and Mammoth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Learned = Sequence[int | None]


def acc(scores: Matrix, learned: Learned) -> float:
    """Average score on the learned tasks: ACC_T = mean over j of R[T][j].

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None if out of domain.

    Returns:
        Points, 0 to 100; NaN before the first step. Higher is better.
    """
    last = len(scores) - 1
    return _mean(scores[last, j] for j in _in_domain(learned, last))


def bwt(scores: Matrix, learned: Learned) -> float:
    """Backward transfer: BWT_T = mean over the tasks learned before T of R[T][j] - R[i_j][j].

    i_j is the step that learned task j. Negative values are forgetting; positive values mean that later steps helped.
    Lopez-Paz and Ranzato 2017, https://arxiv.org/abs/1706.08840. Avalanche calls the negative of this "forgetting".

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None if out of domain.

    Returns:
        Points, -100 to 100; NaN before the second step.
    """
    last = len(scores) - 1
    return _mean(scores[last, j] - scores[step, j] for j, step in _before(learned, last))


def fwt(scores: Matrix, learned: Learned) -> float:
    """Forward transfer: FWT_T = mean over the tasks learned in steps 2 to T of R[i_j - 1][j] - R[0][j].

    How much earlier steps had already changed a task's score, against the root base, before its domain was learned.

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None if out of domain.

    Returns:
        Points, -100 to 100; NaN before the second step. Higher is better.
    """
    last = len(scores) - 1
    return _mean(scores[step - 1, j] - scores[0, j] for j, step in _in_domain(learned, last).items() if step >= 2)


def forgetting(scores: Matrix, learned: Learned) -> float:
    """Forgetting: F_T = mean over the tasks learned before T of (max over l < T of R[l][j]) - R[T][j].

    The best score of any earlier version, including the root base, minus the last score; negative if the last score is
    the best so far. Chaudhry et al. 2018, https://arxiv.org/abs/1801.10112. Mammoth includes the last row in the
    maximum, so its value is never negative; Avalanche takes first minus last, which is our -BWT.

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None if out of domain.

    Returns:
        Points, -100 to 100; NaN before the second step. Lower is better.
    """
    last = len(scores) - 1
    tasks = [j for j, _ in _before(learned, last)]
    best = np.fmax.reduce(scores[:last, tasks], initial=-np.inf)  # fmax leaves NaN out
    return _mean(np.where(np.isfinite(best), best - scores[last, tasks], np.nan))


def retained(scores: Matrix, learned: Learned) -> float:
    """Retained share of gain: how much is left of what the tasks learned before T had gained over the root base.

    100 * (sum over j of R[T][j] - R[0][j]) / (sum over j of R[i_j][j] - R[0][j]), over the tasks whose gain right
    after learning, R[i_j][j] - R[0][j], was above zero. A task that gained nothing has nothing to retain, so it is left
    out; BWT and forgetting cover its losses. The sums are divided instead of averaging the shares, because the share of
    a task that gained a tenth of a point is noise.

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None if out of domain.

    Returns:
        Percent. 100 means that all of the gain is left, above 100 that later steps added to it, below 0 that the tasks
        are worse than under the root base. NaN before the second step or if no task had gained.
    """
    last = len(scores) - 1
    pairs = [(scores[step, j] - scores[0, j], scores[last, j] - scores[0, j]) for j, step in _before(learned, last)]
    pairs = [(gain, left) for gain, left in pairs if gain > 0 and not np.isnan(left)]
    return 100.0 * sum(left for _, left in pairs) / sum(gain for gain, _ in pairs) if pairs else float("nan")


def intransigence(scores: Matrix, learned: Learned, joint: NDArray[np.float64]) -> float:
    """Intransigence: I_T = mean over the tasks learned by T of R*[j] - R[i_j][j].

    What the steps failed to learn, compared with joint training: R* is the score of a model trained on all domains at
    once. Chaudhry et al. 2018, https://arxiv.org/abs/1801.10112; their I_k is the term of step k's task, with a
    separate joint model for every k.

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None if out of domain.
        joint: R*, points, of shape [tasks]; NaN where the joint model was not scored or did not learn the domain.

    Returns:
        Points, -100 to 100; NaN before the first step. Lower is better; negative if the steps learned more.
    """
    last = len(scores) - 1
    return _mean(joint[j] - scores[step, j] for j, step in _in_domain(learned, last).items())


def ood_mean(scores: Matrix, tasks: Sequence[int]) -> float:
    """Mean score of the last version on a fixed set of OOD tasks.

    The caller uses the same set for every version, so that the values are comparable. A version without a score on one
    of these tasks has no mean.

    Args:
        scores: R, points, of shape [versions, tasks].
        tasks: Columns of the OOD set.

    Returns:
        Points, 0 to 100; NaN for an empty set or a missing cell.
    """
    return float(np.mean(scores[-1, list(tasks)])) if tasks else float("nan")


METRICS: dict[str, Callable[[Matrix, Learned], float]] = {
    "acc": acc,
    "bwt": bwt,
    "fwt": fwt,
    "forgetting": forgetting,
    "retained": retained,
}
"""The metrics of a lineage, in display order."""


def _in_domain(learned: Learned, last: int) -> dict[int, int]:
    return {j: step for j, step in enumerate(learned) if step is not None and step <= last}


def _before(learned: Learned, last: int) -> list[tuple[int, int]]:
    return [(j, step) for j, step in _in_domain(learned, last).items() if step < last]


def _mean(values: Iterable[float]) -> float:
    measured = np.fromiter(values, np.float64)
    measured = measured[~np.isnan(measured)]
    return float(measured.mean()) if measured.size else float("nan")

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


def retained(scores: Matrix, learned: Learned) -> float:
    """Retained share of gain: of what the tasks learned before T had gained over the root base, how much is left.

    100 * (sum over j of R[T][j] - R[0][j]) / (sum over j of R[i_j][j] - R[0][j]), over the tasks whose gain right
    after learning, R[i_j][j] - R[0][j], was above zero. A task that gained nothing has nothing to retain: it is left
    out, and its losses are for BWT and forgetting to tell. The sums are divided, not the shares averaged, because the
    share of a task that gained a tenth of a point is noise.

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None: out of domain.

    Returns:
        Percent; 100: all of it is left; above: later steps added; below 0: worse than the root base. NaN before the
        second step, or when nothing had gained.
    """
    last = len(scores) - 1
    pairs = [(scores[step, j] - scores[0, j], scores[last, j] - scores[0, j]) for j, step in _before(learned, last)]
    known = [(gain, left) for gain, left in pairs if gain > 0 and not np.isnan(left)]
    return 100.0 * sum(left for _, left in known) / sum(gain for gain, _ in known) if known else float("nan")


def intransigence(scores: Matrix, learned: Learned, joint: NDArray[np.float64]) -> float:
    """Intransigence: I_T = mean over the tasks learned by T of R*[j] - R[i_j][j].

    What learning step by step failed to learn: R* is the score of a model trained on all domains at once, "joint".
    Chaudhry et al. 2018, https://arxiv.org/abs/1801.10112, whose I_k is the term of the task of step k, with a joint
    model of its own for every k.

    Args:
        scores: R, points, of shape [versions, tasks].
        learned: Row of the step that first learned each task's domain; None: out of domain.
        joint: R*, points, of shape [tasks]; NaN where the joint model was not scored or did not learn the domain.

    Returns:
        Points, -100 to 100; NaN before anything was learned. Lower is better; below zero, the steps learned more.
    """
    last = len(scores) - 1
    return _mean(joint[j] - scores[step, j] for j, step in _in_domain(learned, last).items())


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
    "retained": retained,
}
"""The metrics of a lineage, in the order they are shown."""


def _in_domain(learned: Learned, last: int) -> dict[int, int]:
    return {j: step for j, step in enumerate(learned) if step is not None and step <= last}


def _before(learned: Learned, last: int) -> list[tuple[int, int]]:
    return [(j, step) for j, step in _in_domain(learned, last).items() if step < last]


def _mean(values: Iterable[float]) -> float:
    known = np.array([value for value in values if not np.isnan(value)], dtype=np.float64)
    return float(known.mean()) if known.size else float("nan")

"""Test whether a difference of two versions is more than chance: intervals, a permutation test, a correction.

Versions are compared query by query. Most queries score the same under both versions, and the others can move by up to
a hundred points, so a few dozen queries often contain too few moves to estimate their spread. With 20 queries, the
percentile bootstrap misses the true difference twice as often as it should. The interval here is Student's, with the
spread estimated from the queries plus `PRIOR` imaginary ones that move as queries commonly do. It is a closed form, so
a report can show thousands of intervals. See decision 13 for the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from continual.errors import DataError

Values = NDArray[np.float64]

CELLS = 4_000_000
"""Maximum number of random signs in memory at once."""

PRIOR = 3.0
"""Number of imaginary queries added when the spread of a task's differences is estimated."""

SPREAD = 20.0
"""Standard deviation of the imaginary queries' differences, in points; real steps had 9 to 12, so this is cautious."""

OF_SCORES = 40.0
"""The same for scores instead of differences, in points."""


@dataclass(frozen=True)
class Interval:
    """A mean difference with its confidence interval.

    Attributes:
        difference: Points, new minus old; above zero, the new version is better.
        low: Lower end of the interval, points.
        high: Upper end, points.
        p: Two-sided p-value of "the true difference is zero", 0 to 1.
        error: Standard error of the difference, points.
        freedom: Degrees of freedom of the t distribution.
    """

    difference: float
    low: float
    high: float
    p: float
    error: float
    freedom: float

    def p_below(self, bound: float = 0.0) -> float:
        """Return the one-sided p-value of "the true difference is at least `bound` points"; small if it is below."""
        from scipy.special import stdtr

        return float(stdtr(self.freedom, (self.difference - bound) / self.error))


@dataclass(frozen=True)
class Moments:
    """Means of samples with the variances that their intervals need; three arrays of the same shape.

    Attributes:
        mean: Mean of each sample, points.
        variance: Variance of each mean (the squared standard error), points squared.
        freedom: Degrees of freedom of each variance.
    """

    mean: Values
    variance: Values
    freedom: Values

    def ends(self, confidence: float) -> tuple[Values, Values]:
        """Return the lower and upper ends of the intervals."""
        from scipy.special import stdtrit

        reach = stdtrit(self.freedom, (1.0 + confidence) / 2.0) * np.sqrt(self.variance)
        return self.mean - reach, self.mean + reach


def moments(points: Values, spread: float = SPREAD) -> Moments:
    """Return the moments of samples over the last axis, which has one value per query.

    variance = (PRIOR spread^2 + sum of (x - mean)^2) / (PRIOR + n - 1) / n, with PRIOR + n - 1 degrees of freedom: the
    posterior of a normal mean whose variance has a scaled inverse chi-squared prior; Smyth 2004 calls it a moderated t,
    https://doi.org/10.2202/1544-6115.1027.

    Args:
        points: Differences or scores, points, of shape [..., queries] with at least one query.
        spread: Standard deviation of the imaginary queries, points.
    """
    count = points.shape[-1]
    mean = points.mean(-1)
    squares = ((points - mean[..., None]) ** 2).sum(-1)
    freedom = PRIOR + count - 1
    return Moments(mean, (PRIOR * spread**2 + squares) / freedom / count, np.full_like(mean, freedom))


def stack(parts: Sequence[Moments]) -> Moments:
    """Stack the moments of single samples into arrays of shape [samples]."""
    return Moments(*(np.array([getattr(part, name) for part in parts]) for name in ("mean", "variance", "freedom")))


def combine_moments(parts: Moments, weights: Values) -> Moments:
    """Return the moments of weighted sums over the last axis, for samples that share no queries.

    The degrees of freedom follow Satterthwaite 1946, https://doi.org/10.2307/3002019.

    Args:
        parts: Moments of shape [..., tasks]; they may be NaN where the weight is 0.
        weights: Weights of the same shape.
    """
    used = weights != 0
    mean = np.where(used, weights * parts.mean, 0.0).sum(-1)
    terms = np.where(used, weights**2 * parts.variance, 0.0)
    variance = terms.sum(-1)
    spent = np.where(used, terms**2 / np.where(used, parts.freedom, 1.0), 0.0).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Moments(mean, variance, np.asarray(variance**2 / spent))


def paired_interval(new: ArrayLike, old: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean difference of two versions on the queries of a task, with its interval.

    Args:
        new: Scores of the new version, 0 to 1, of shape [queries].
        old: Scores of the old version on the same queries, in the same order.
        confidence: Level of the interval, 0 to 1.

    Raises:
        ValueError: The shapes differ, or there are no queries.

    Example:
        >>> paired_interval([0.5, 0.75, 1.0], [0.25, 0.5, 0.75]).difference
        25.0
    """
    return mean_interval([(new, old)], confidence)


def mean_interval(pairs: Sequence[tuple[ArrayLike, ArrayLike]], confidence: float = 0.95) -> Interval:
    """Return the mean over tasks of their mean differences, with its interval.

    Args:
        pairs: (new, old) for each task, as for `paired_interval`; every task has the same weight.
        confidence: Level of the interval, 0 to 1.

    Raises:
        ValueError: There are no tasks, shapes differ, or a task has no queries.
    """
    from scipy.special import stdtr

    parts = stack([moments(100.0 * values) for values in _differences(pairs)])
    mean = combine_moments(parts, np.full(len(pairs), 1.0 / len(pairs)))
    low, high = mean.ends(confidence)
    difference, error, freedom = float(mean.mean), float(np.sqrt(mean.variance)), float(mean.freedom)
    return Interval(
        difference, float(low), float(high), float(2.0 * stdtr(freedom, -abs(difference) / error)), error, freedom
    )


def permutation_test(new: ArrayLike, old: ArrayLike, permutations: int = 10_000, seed: int = 0) -> float:
    """Return the p-value of a permutation test: how often random exchanges of scores give as large a mean difference.

    This is the two-sided p-value of "both versions are the same", 0 to 1: each query's two scores are exchanged at
    random. One is added to numerator and denominator, so the value is never zero. The test assumes nothing about the
    distribution of scores. Fisher's test; Smucker et al. 2007, https://doi.org/10.1145/1321440.1321528.

    Args:
        new: Scores of the new version, of shape [queries].
        old: Scores of the old version on the same queries, in the same order.
        permutations: Number of random exchanges.

    Raises:
        ValueError: The shapes differ, or there are no queries.
    """
    return mean_permutation([(new, old)], permutations, seed)


def mean_permutation(pairs: Sequence[tuple[ArrayLike, ArrayLike]], permutations: int = 10_000, seed: int = 0) -> float:
    """Return the p-value of `permutation_test` for the mean over tasks; every task has the same weight.

    Args:
        pairs: (new, old) for each task, as for `permutation_test`.
        permutations: Number of random exchanges.

    Raises:
        ValueError: There are no tasks, shapes differ, or a task has no queries.
    """
    # Queries with equal scores can be left out. Dividing by the task's size gives every task the same weight.
    moved = np.concatenate([values[values != 0] / len(values) for values in _differences(pairs)])
    if not moved.size:
        return 1.0
    generator = np.random.default_rng(seed)
    extreme, observed, step = 0, abs(moved.sum()) * (1 - 1e-9), max(1, CELLS // len(moved))
    for start in range(0, permutations, step):
        signs = generator.integers(2, size=(min(step, permutations - start), len(moved)), dtype=np.int8) * 2 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ moved) >= observed))
    return (extreme + 1) / (permutations + 1)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values with Holm's adjustment for multiple tests: the smallest times n, the next times n - 1, and so on.

    If every adjusted value of at most alpha counts as a difference, the probability of any false one is at most alpha.
    Holm 1979, https://www.jstor.org/stable/4615733.

    Example:
        >>> holm([0.01, 0.5, 0.02])
        [0.03, 0.5, 0.04]
    """
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def _differences(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> list[Values]:
    """Return new minus old for each task, of shape [queries] each."""
    if not pairs:
        raise ValueError("There are no tasks to compare.")
    differences = []
    for new, old in pairs:
        first, second = np.asarray(new, np.float64), np.asarray(old, np.float64)
        if first.shape != second.shape or first.ndim != 1 or not first.size:
            raise ValueError(f"Paired scores must have one shape [queries], not {first.shape} and {second.shape}.")
        differences.append(first - second)
    return differences


def paired(new: Path, old: Path) -> tuple[Values, Values]:
    """Read the per-query scores of two versions on one task and match them by query.

    Args:
        new: File of the new version's per-query scores.
        old: File of the old version's per-query scores.

    Returns:
        New and old scores, 0 to 1, of shape [queries] each, for the queries that both files have.

    Raises:
        DataError: A file can't be read, or the files have no query in common.
    """
    scores = {}
    for path in (new, old):
        try:
            table = pq.read_table(path, columns=["query_id", "score"])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"Per-query scores cannot be read from {path}: {error}. Restore the file from a backup."
            ) from None
        scores[path] = dict(zip(table["query_id"].to_pylist(), table["score"].to_pylist(), strict=True))
    common = sorted(scores[new].keys() & scores[old].keys())
    if not common:
        raise DataError(
            f"{new} and {old} have no query in common, so the two versions cannot be compared. Restore the files from "
            "a backup."
        )
    return tuple(np.array([scores[path][query] for query in common]) for path in (new, old))  # type: ignore[return-value]

"""Is a difference of two versions more than the luck of the queries? Intervals, a permutation test, a correction.

Versions are compared query by query. Most queries score the same under both, and the rest move by anything up to a
hundred points, so a few dozen queries often hold too few moves to tell how far they spread: on 20 queries the
percentile bootstrap misses the truth twice as often as it says. The interval here is Student's, with the spread
measured on the queries *and* on `PRIOR` imagined ones that move as queries commonly do. That is a closed form, so that
a report of thousands of cells has one in each. The decision on honest intervals has the figures.
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
"""Signs held in memory at once."""

PRIOR = 3.0
"""Imagined queries that the spread of a task's differences is measured on besides its own."""

SPREAD = 20.0
"""Standard deviation, in points, of their differences; a real step had 9 to 12, and this is wider on purpose."""

OF_SCORES = 40.0
"""The same of scores themselves, which lie anywhere from 0 to 100."""


@dataclass(frozen=True)
class Interval:
    """A mean difference in points with its confidence interval.

    Attributes:
        difference: New minus old; above zero, the new one is better.
        low: Lower end of the interval.
        high: Upper end.
        p: Two-sided p-value of "the true difference is zero", 0 to 1.
        error: Standard error of the difference, points.
        freedom: Degrees of freedom of its t distribution.
    """

    difference: float
    low: float
    high: float
    p: float
    error: float
    freedom: float

    def p_below(self, bound: float = 0.0) -> float:
        """Return the one-sided p-value of "the true difference is at least `bound`": small, if it is below."""
        from scipy.special import stdtr

        return float(stdtr(self.freedom, (self.difference - bound) / self.error))


@dataclass(frozen=True)
class Moments:
    """Means of samples with what their intervals need; arrays of one shape, points.

    Attributes:
        mean: Of each sample.
        variance: Of each mean: the standard error squared.
        freedom: Degrees of freedom of the variance.
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
    """Return the moments of samples of points, one a query, over the last axis.

    variance = (PRIOR spread^2 + sum of (x - mean)^2) / (PRIOR + n - 1) / n, with PRIOR + n - 1 degrees of freedom: the
    posterior of a normal mean whose variance has a scaled inverse chi-squared prior; Smyth 2004 calls it a moderated t,
    https://doi.org/10.2202/1544-6115.1027.

    Args:
        points: Differences, or scores, of shape [..., queries]; at least one query.
        spread: Standard deviation of the imagined ones.
    """
    count = points.shape[-1]
    mean = points.mean(-1)
    squares = ((points - mean[..., None]) ** 2).sum(-1)
    freedom = PRIOR + count - 1
    return Moments(mean, (PRIOR * spread**2 + squares) / freedom / count, np.full_like(mean, freedom))


def stack(parts: Sequence[Moments]) -> Moments:
    """Return the moments of single samples as arrays of shape [samples]."""
    return Moments(*(np.array([getattr(part, name) for part in parts]) for name in ("mean", "variance", "freedom")))


def combine_moments(parts: Moments, weights: Values) -> Moments:
    """Return the moments of weighted sums over the last axis, of samples that share no query.

    The degrees of freedom are those of Satterthwaite 1946, https://doi.org/10.2307/3002019.

    Args:
        parts: Of shape [..., tasks].
        weights: Likewise; what has the weight 0 may be NaN.
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
        new: Scores of the new version, 0 to 1, one a query, of shape [queries].
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
    """Return the mean over several tasks of their mean differences, with its interval.

    Args:
        pairs: (new, old) per task, as for `paired_interval`; every task counts the same.
        confidence: Level of the interval, 0 to 1.

    Raises:
        ValueError: There are no tasks, shapes differ, or a task has no queries.
    """
    from scipy.special import stdtr

    parts = stack([moments(100.0 * values) for values in _differences(pairs)])
    whole = combine_moments(parts, np.full(len(pairs), 1.0 / len(pairs)))
    low, high = whole.ends(confidence)
    difference, error, freedom = float(whole.mean), float(np.sqrt(whole.variance)), float(whole.freedom)
    return Interval(
        difference, float(low), float(high), float(2.0 * stdtr(freedom, -abs(difference) / error)), error, freedom
    )


def permutation_test(new: ArrayLike, old: ArrayLike, permutations: int = 10_000, seed: int = 0) -> float:
    """Return how often the versions' scores, exchanged at random query by query, differ as much on average.

    The two-sided p-value of "both versions are the same", 0 to 1, with one added above and below so that it is never
    zero. It assumes nothing about how scores are distributed. Fisher's test; Smucker et al. 2007,
    https://doi.org/10.1145/1321440.1321528.

    Args:
        new: Scores of the new version, one a query, of shape [queries].
        old: Scores of the old version on the same queries, in the same order.
        permutations: How often to exchange.
        seed: Same seed, same value.

    Raises:
        ValueError: The shapes differ, or there are no queries.
    """
    return mean_permutation([(new, old)], permutations, seed)


def mean_permutation(pairs: Sequence[tuple[ArrayLike, ArrayLike]], permutations: int = 10_000, seed: int = 0) -> float:
    """Return the same for the mean over several tasks, each counting the same.

    Args:
        pairs: (new, old) per task, as for `permutation_test`.
        permutations: How often to exchange.
        seed: Same seed, same value.

    Raises:
        ValueError: There are no tasks, shapes differ, or a task has no queries.
    """
    # A query that is the same under both stays so; one of a large task counts for less in the mean over tasks.
    moved = np.concatenate([values[values != 0] / len(values) for values in _differences(pairs)])
    if not moved.size:
        return 1.0
    generator = np.random.default_rng(seed)
    extreme, seen, step = 0, abs(moved.sum()) * (1 - 1e-9), max(1, CELLS // len(moved))
    for start in range(0, permutations, step):
        signs = generator.integers(2, size=(min(step, permutations - start), len(moved)), dtype=np.int8) * 2 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ moved) >= seen))
    return (extreme + 1) / (permutations + 1)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several: the least times their number, the next times one less, and so on.

    If each that is at most alpha is called a difference, any of them is none with a probability of alpha at most.
    Holm 1979, https://www.jstor.org/stable/4615733.

    Example:
        >>> holm([0.01, 0.5, 0.02])
        [0.03, 0.5, 0.04]
    """
    adjusted, most = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        most = max(most, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = most
    return adjusted


def _differences(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> list[Values]:
    """Return new minus old of each task, [queries] each."""
    if not pairs:
        raise ValueError("There are no tasks to compare.")
    differences = []
    for new, old in pairs:
        first, second = np.asarray(new, np.float64), np.asarray(old, np.float64)
        if first.shape != second.shape or first.ndim != 1 or not first.size:
            raise ValueError(f"Paired scores need one shape [queries], not {first.shape} and {second.shape}.")
        differences.append(first - second)
    return differences


def paired(new: Path, old: Path) -> tuple[Values, Values]:
    """Read the per-query scores of two versions on one task, matched by query, 0 to 1, [queries] each.

    Raises:
        DataError: A file cannot be read, or the two share no query.
    """
    read = {}
    for path in (new, old):
        try:
            table = pq.read_table(path, columns=["query_id", "score"])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"Per-query scores cannot be read from {path}: {error}.") from None
        read[path] = dict(zip(table["query_id"].to_pylist(), table["score"].to_pylist(), strict=True))
    common = sorted(read[new].keys() & read[old].keys())
    if not common:
        raise DataError(f"{new} and {old} have no query in common, so the two versions cannot be compared.")
    return tuple(np.array([read[path][query] for query in common]) for path in (new, old))  # type: ignore[return-value]

"""Is a difference of two versions more than the luck of the queries? A paired bootstrap over queries."""

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
"""Draws held in memory at once; 32 MB of indices."""


@dataclass(frozen=True)
class Interval:
    """A mean difference in points with its confidence interval.

    Attributes:
        difference: New minus old; above zero, the new one is better.
        low: Lower end of the interval.
        high: Upper end.
        p: Two-sided p-value of "the true difference is zero", 0 to 1.
    """

    difference: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    new: ArrayLike, old: ArrayLike, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Resample queries with replacement and look at the mean difference.

    The interval is the percentile interval. The p-value is the share of resamples whose difference, shifted to
    a mean of zero, is at least as large as the one seen, with one added above and below so that it is never zero.
    Koehn 2004, https://aclanthology.org/W04-3250; Sakai 2006, https://doi.org/10.1145/1148170.1148261.

    Args:
        new: Scores of the new version, 0 to 1, one a query, of shape [queries].
        old: Scores of the old version on the same queries, in the same order.
        resamples: How often to resample, from 100 up.
        confidence: Level of the interval, 0 to 1.
        seed: Same seed, same interval.

    Raises:
        ValueError: The shapes differ, or there are no queries.

    Example:
        >>> paired_bootstrap([0.5, 0.75, 1.0], [0.25, 0.5, 0.75], resamples=100).difference
        25.0
    """
    return mean_bootstrap([(new, old)], resamples, confidence, seed)


def mean_bootstrap(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Bootstrap the mean over several tasks: each task's queries are resampled by themselves, then averaged.

    Args:
        pairs: (new, old) per task, as for `paired_bootstrap`; every task counts the same.
        resamples: How often to resample, from 100 up.
        confidence: Level of the interval, 0 to 1.
        seed: Same seed, same interval.

    Raises:
        ValueError: There are no tasks, shapes differ, or a task has no queries.
    """
    if not pairs:
        raise ValueError("There are no tasks to compare.")
    differences = []
    for new, old in pairs:
        first, second = np.asarray(new, np.float64), np.asarray(old, np.float64)
        if first.shape != second.shape or first.ndim != 1 or not first.size:
            raise ValueError(f"Paired scores need one shape [queries], not {first.shape} and {second.shape}.")
        differences.append(100.0 * (first - second))
    generator = np.random.default_rng(seed)
    seen = float(np.mean([values.mean() for values in differences]))
    drawn = np.mean([_resample(values, resamples, generator) for values in differences], axis=0)  # [resamples]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    # A hair of slack, because equal means come out of sums in different orders.
    extreme = int(np.count_nonzero(np.abs(drawn - seen) >= abs(seen) - 1e-9))
    return Interval(seen, float(low), float(high), (extreme + 1) / (resamples + 1))


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
    first, second = np.asarray(new, np.float64), np.asarray(old, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"Paired scores need one shape [queries], not {first.shape} and {second.shape}.")
    moved = (first - second)[first != second]  # a query that is the same under both stays so
    if not moved.size:
        return 1.0
    generator = np.random.default_rng(seed)
    extreme, seen, step = 0, abs(moved.sum()), max(1, CELLS // len(moved))
    for start in range(0, permutations, step):
        signs = generator.integers(2, size=(min(step, permutations - start), len(moved)), dtype=np.int8) * 2 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ moved) >= seen - 1e-9))
    return (extreme + 1) / (permutations + 1)


def _resample(values: Values, resamples: int, generator: np.random.Generator) -> Values:
    """Return the means of `resamples` samples with replacement, [resamples]."""
    means = np.empty(resamples)
    step = max(1, CELLS // len(values))
    for start in range(0, resamples, step):
        part = means[start : start + step]
        part[:] = values[generator.integers(len(values), size=(len(part), len(values)))].mean(axis=1)
    return means


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

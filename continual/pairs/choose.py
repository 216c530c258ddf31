"""Choose hard negatives among the nearest passages of each query.

The rules and their names are those of `sentence_transformers.util.mine_hard_negatives`. The default relative margin
is the positive-aware one of NV-Retriever: a negative scores at most 95 % of the positive, since passages that score as
high as it are often right as well. https://arxiv.org/abs/2407.15831
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from continual.config import MineConfig

Scores = NDArray[np.float32]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Chosen:
    """The negatives of some queries.

    Attributes:
        indices: Passages, the hardest first; -1 where there are fewer, [queries, most].
        scores: Their scores, -inf where there are fewer, [queries, most].
        near: Number of passages of each query that scored too close to the positive, or above it, [queries].
    """

    indices: Indices
    scores: Scores
    near: Indices


def limit(positives: Scores, config: MineConfig) -> Scores:
    """Return the largest score that a negative may have, [queries].

    Args:
        positives: The lowest score of a positive of each query, [queries].
    """
    most = np.full_like(positives, np.inf if config.max_score is None else config.max_score)
    if config.absolute_margin is not None:
        most = np.minimum(most, positives - np.float32(config.absolute_margin))
    if config.relative_margin != "off":
        # Of a negative score, the margin makes it lower as well.
        most = np.minimum(most, positives - np.abs(positives) * np.float32(config.relative_margin))
    return most


def choose(
    scores: Scores, indices: Indices, excluded: Flags, positives: Scores, config: MineConfig, most: int
) -> Chosen:
    """Return the hardest passages that pass the rules.

    Args:
        scores: Scores of the nearest passages, the largest first, [queries, candidates].
        indices: The passages, -1 where there are fewer, [queries, candidates].
        excluded: Candidates that are no negatives whatever they score, such as the query's positives; the same shape.
        positives: The lowest score of a positive of each query, [queries].
        config: The rules.
        most: Passages per query.
    """
    free = ~excluded & (indices >= 0)
    near = free & (scores > limit(positives, config)[:, None])
    passed = free & ~near
    if config.min_score is not None:
        passed &= scores >= np.float32(config.min_score)
    place = np.cumsum(passed, axis=1) - 1  # rank among those that pass
    wanted = passed & (place >= config.range_min) & (place < min(config.range_min + most, config.range_max))
    found = np.full((len(scores), most), -1, np.int64)
    values = np.full(found.shape, -np.inf, np.float32)
    rows, columns = np.nonzero(wanted)
    slots = place[rows, columns] - config.range_min
    found[rows, slots], values[rows, slots] = indices[rows, columns], scores[rows, columns]
    return Chosen(found, values, near.sum(axis=1))

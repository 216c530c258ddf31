"""Rows spread over the embedding space of their domain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from continual.replay.policies import (
    Candidates,
    History,
    Picks,
    policy,
)
from continual.replay.policies.uniform import uniform

Points = NDArray[np.float32]

BLOCK = 2048
"""Candidates clustered at a time. Candidates are in hash order, so each block is a random sample of them."""

ROUNDS = 10
"""Largest number of k-means iterations."""


def nearest_to_centres(candidates: Candidates, rows: int, seed: int) -> Picks:
    """Return the candidates nearest to the centres of a k-means clustering with as many clusters as rows.

    A point is the query's embedding followed by the positive's. Blocks of `BLOCK` candidates are clustered separately,
    and each gives its share of the rows.
    """
    points = np.concatenate([candidates.queries, candidates.positives], axis=1)
    total = len(points)
    picks: list[Picks] = []
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        share = rows * stop // total - rows * start // total
        if share:
            picks.append(start + _representatives(points[start:stop], share, np.random.default_rng([seed, start])))
    return np.concatenate(picks) if picks else np.zeros(0, np.int64)


def _representatives(points: Points, clusters: int, rng: np.random.Generator) -> Picks:
    """Return the indices of `clusters` distinct points, one near each centre, in ascending order."""
    centres = points[_seeds(points, clusters, rng)]
    assigned: NDArray[np.int64] | None = None
    for _ in range(ROUNDS):
        nearest = _distances(points, centres).argmin(axis=1)
        if assigned is not None and (nearest == assigned).all():
            break
        assigned = nearest
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        counts = np.bincount(nearest, minlength=clusters)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    distances = _distances(points, centres)
    chosen: list[int] = []
    for centre in range(clusters):
        best = int(distances[:, centre].argmin())
        chosen.append(best)
        distances[best] = np.inf  # two centres can be nearest to the same point
    return np.sort(np.array(chosen))


def _seeds(points: Points, clusters: int, rng: np.random.Generator) -> Picks:
    """Return the indices of the first centres by k-means++: drawn by squared distance to the centres so far."""
    chosen = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < clusters:
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1, dtype=np.float64))
        nearest[chosen] = 0.0
        total = nearest.sum()
        if total > 0:
            place = int(np.searchsorted(np.cumsum(nearest), rng.random() * total, side="right"))
            chosen.append(min(place, len(points) - 1))
        else:  # all other points are copies of chosen ones
            rest = np.setdiff1d(np.arange(len(points)), chosen)
            chosen += rest[: clusters - len(chosen)].tolist()
    return np.array(chosen, np.int64)


def _distances(points: Points, centres: Points) -> Points:
    """Return squared distances, [points, centres]."""
    point_norms, centre_norms = (points**2).sum(axis=1), (centres**2).sum(axis=1)
    distances: Points = point_norms[:, None] + centre_norms[None, :] - 2 * points @ centres.T
    return distances


@policy(name="diverse", reference_url="https://arxiv.org/abs/1708.00489", choose=nearest_to_centres)
def diverse(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to the sizes; within a domain, pick rows spread over its embedding space."""
    return uniform(history, wanted)

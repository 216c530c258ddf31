"""Exact search for the nearest passages of many queries, in memory that does not grow with the passages."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Scores = NDArray[np.float32]
Indices = NDArray[np.int64]

BLOCK = 8_192
"""Passages that are compared with all queries of a call at a time."""


def nearest(queries: Vectors, blocks: Iterable[Vectors], k: int) -> tuple[Scores, Indices]:
    """Return the k passages with the largest inner product with each query, the largest first.

    Passages with the same score are in their order. Where there are fewer than k, scores are -inf and indices -1.

    Args:
        queries: [queries, dimensions].
        blocks: The passages in their order, [passages, dimensions] each.
        k: Passages per query, at least 1.

    Returns:
        Scores and indices, [queries, k].
    """
    asked = torch.from_numpy(queries)
    scores = torch.full((len(queries), k), -torch.inf)
    indices = torch.full((len(queries), k), -1, dtype=torch.int64)
    start = 0
    for block in blocks:
        found = asked @ torch.from_numpy(np.array(block)).T  # [queries, block]
        best, places = _top(found, min(k, found.shape[1]))
        both = torch.cat([scores, best], dim=1), torch.cat([indices, places + start], dim=1)
        scores, kept = _top(both[0], k)
        indices = both[1].gather(1, kept)
        start += len(block)
    return scores.numpy(), indices.numpy()


def _top(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest values of each row and their places; of equal ones the first."""
    values, places = scores.topk(k, dim=1)
    # topk takes any of several values that equal the last one. Rows where that happens are few.
    last = values[:, -1:]
    ties = ((scores == last).sum(1) > (values == last).sum(1)) & (last[:, 0] > -torch.inf)
    rows = ties.nonzero()[:, 0]
    if len(rows):
        order = torch.sort(scores[rows], dim=1, descending=True, stable=True)
        values[rows], places[rows] = order.values[:, :k], order.indices[:, :k]
    by_place = places.argsort(dim=1)
    values, places = values.gather(1, by_place), places.gather(1, by_place)
    order = torch.sort(values, dim=1, descending=True, stable=True)
    return order.values, places.gather(1, order.indices)

"""What the sparse merges share: the magnitude that cuts a vector at a rank, and the vote on signs."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import hardshrink


def ranked(values: Tensor, ranks: list[int]) -> list[float]:
    """Return the values at these places of the ascending order. Overwrites `values` (one dimension, fp32).

    A selection, not a sort: linear in the number of elements. `numpy` selects with vector instructions, several
    times faster than `torch.kthvalue`.
    """
    array = values.numpy()
    array.partition(ranks)
    return [float(array[rank]) for rank in ranks]


def below(threshold: float) -> float:
    """Return the fp32 number just below a positive threshold, so that `hardshrink` keeps what equals it."""
    return float(np.nextafter(np.float32(threshold), np.float32(-math.inf))) if threshold > 0 else 0.0


def largest(vector: Tensor, density: float) -> float:
    """Return the magnitude that the `density` share of largest elements reaches; at least one element does.

    Args:
        vector: One dimension, fp32.
        density: Share of elements to keep, 0 to 1; 0 keeps none.
    """
    size = vector.numel()
    if density <= 0:
        return math.inf
    if density >= 1 or not size:
        return 0.0
    keep = max(1, int(density * size))
    return ranked(vector.abs(), [size - keep])[0]


def trimmed(part: Tensor, threshold: float) -> Tensor:
    """Return a copy of the part in which elements smaller in magnitude than the threshold are 0."""
    return hardshrink(part, below(threshold)) if math.isfinite(threshold) else torch.zeros_like(part)


def direction(parts: Tensor) -> Tensor:
    """Return the sign of the sum over the vectors, 1 or -1, of shape (elements,); a sum of 0 counts as positive.

    Args:
        parts: Vectors, of shape (vectors, elements).
    """
    # Two numbers cannot sum to the wrong sign; more could, by the order they come in, and float64 is past that.
    total = parts.sum(0, dtype=torch.float64 if len(parts) > 2 else torch.float32).float()
    return torch.copysign(torch.ones_like(total), total)


def agreed(parts: Tensor, weights: Tensor, signs: Tensor, normalize: bool) -> Tensor:
    """Return the sum over the vectors of the elements that have the sign. Overwrites `parts`.

    Args:
        parts: Weighted vectors, of shape (vectors, elements).
        weights: Their weights, of shape (vectors,).
        signs: From `direction`.
        normalize: Divide each element by the weights of the vectors that agree there, where they sum to anything.
    """
    along = parts.mul_(signs).clamp_(min=0)  # arithmetic, because choosing by a bool tensor is ten times slower
    merged = along.sum(0).mul_(signs)
    if normalize:
        divisor = weights @ along.sign_()
        merged /= divisor.masked_fill_(divisor == 0, 1)
    return merged

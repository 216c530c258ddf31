"""Helpers of the sparse merges: the magnitude at a rank, trimming, and the election of signs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def ranked(values: Tensor, ranks: list[int]) -> list[float]:
    """Return the values at the given ranks in ascending order. Overwrites `values` (one dimension, fp32).

    The time is linear in the number of elements. numpy's selection is several times faster than `torch.kthvalue`.
    """
    array = values.numpy()
    array.partition(ranks)
    return [float(array[rank]) for rank in ranks]


def below(threshold: float) -> float:
    """Return the fp32 number just below a positive threshold, so that `hardshrink` keeps elements equal to it."""
    return float(np.nextafter(np.float32(threshold), np.float32(-math.inf))) if threshold > 0 else 0.0


def largest(vector: Tensor, density: float) -> float:
    """Return the smallest magnitude among the `density` share of largest elements; at least one element is kept.

    Args:
        vector: One dimension, fp32.
        density: Share of elements to keep, 0 to 1. At 0 the result is infinite, so that no element is kept.
    """
    size = vector.numel()
    if density <= 0:
        return math.inf
    if density >= 1 or not size:
        return 0.0
    keep = max(1, int(density * size))
    return ranked(vector.abs(), [size - keep])[0]


def trimmed(part: Tensor, threshold: float) -> Tensor:
    """Return a copy of the part with all elements below the threshold in magnitude set to 0."""
    import torch
    from torch.nn.functional import hardshrink

    return hardshrink(part, below(threshold)) if math.isfinite(threshold) else torch.zeros_like(part)


def direction(parts: Tensor) -> Tensor:
    """Return the sign of the sum over the vectors, 1 or -1, of shape (elements,). A sum of 0 counts as positive.

    Args:
        parts: Vectors, of shape (vectors, elements).
    """
    import torch

    # The rounded sum of two fp32 numbers always has the right sign. With more numbers it depends on their order, so
    # they are summed in float64.
    total = parts.sum(0, dtype=torch.float64 if len(parts) > 2 else torch.float32).float()
    return torch.copysign(torch.ones_like(total), total)


def agreed(parts: Tensor, weights: Tensor, signs: Tensor, normalize: bool) -> Tensor:
    """Return the sum over the vectors of the elements with the elected sign. Overwrites `parts`.

    Args:
        parts: Weighted vectors, of shape (vectors, elements).
        weights: Weights of the vectors, of shape (vectors,).
        signs: Elected signs, as `direction` returns them, of shape (elements,).
        normalize: Divide each element by the sum of the weights of the vectors that agree there, unless it is 0.
    """
    along = parts.mul_(signs).clamp_(min=0)  # indexing with a bool tensor is ten times slower
    merged = along.sum(0).mul_(signs)
    if normalize:
        divisor = weights @ along.sign_()
        merged /= divisor.masked_fill_(divisor == 0, 1)
    return merged

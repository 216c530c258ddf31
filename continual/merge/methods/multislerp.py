"""The mean direction at the mean length (mergekit's Multi-SLERP, in closed form)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from continual.merge.methods import Method
from continual.merge.methods._geometry import (
    combine,
    cosines,
    gram,
    norms,
    shares,
)

CANCELLED = 1e-7
"""A mean of unit vectors shorter than this has no direction that float64 inner products could tell."""


def coefficients(products: Tensor, weights: Tensor) -> Tensor:
    """Return the factor of each vector.

    Args:
        products: Inner products, (n, n) in float64.
        weights: Weights, (n,) in float64, with sum 1.
    """
    lengths = norms(products)
    mean = (weights @ cosines(products) @ weights).clamp(min=0).sqrt()
    if mean < CANCELLED:
        return weights
    factors = weights * (weights @ lengths) / (torch.where(lengths > 0, lengths, 1) * mean)
    return torch.where(lengths > 0, factors, 0)


def multislerp(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return (sum_i w_i |v_i|) m / |m|, m = sum_i w_i v_i / |v_i|, the weights taken with sum 1.

    The author describes a step in the tangent space at m / |m|: its weighted sum there is always zero, so it
    changes nothing (https://goddard.blog/posts/multislerp-wow-what-a-cool-idea). A zero vector has no direction and
    counts in the length alone. Where the directions cancel, the result is the plain weighted mean.

    Raises:
        InputError: The weights sum to zero.
    """
    return combine(vectors, coefficients(gram(vectors), shares("multislerp", weights)))


METHOD = Method(
    name="multislerp",
    summary="The mean direction of the models, at their mean length.",
    reference="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    base="optional",
    merge=multislerp,
)

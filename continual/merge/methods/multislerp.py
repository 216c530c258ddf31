"""The mean direction at the mean length (mergekit's Multi-SLERP, in closed form)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method
from continual.merge.methods._geometry import (
    cosine_matrix,
    gram,
    norms,
    weight_shares,
    weighted_sum,
)

if TYPE_CHECKING:
    from torch import Tensor

CANCELLED = 1e-7
"""Length below which the direction of a mean of unit vectors cannot be computed from float64 inner products."""


def multislerp_coefficients(products: Tensor, weights: Tensor) -> Tensor:
    """Return the factor of each vector, (n,).

    Args:
        products: Inner products, (n, n) in float64.
        weights: Weights, (n,) in float64, with sum 1.
    """
    import torch

    lengths = norms(products)
    mean = (weights @ cosine_matrix(products) @ weights).clamp(min=0).sqrt()
    if mean < CANCELLED:
        return weights
    factors = weights * (weights @ lengths) / (torch.where(lengths > 0, lengths, 1) * mean)
    return torch.where(lengths > 0, factors, 0)


def multislerp(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return (sum_i w_i |v_i|) m / |m| with m = sum_i w_i v_i / |v_i|, for weights normalised to sum 1.

    The original (https://goddard.blog/posts/multislerp-wow-what-a-cool-idea) adds a step in the tangent space at
    m / |m|. The weighted sum there is always zero, so the step changes nothing and is left out. A zero vector has no
    direction and counts only in the length. If the directions cancel, the result is the weighted mean of the vectors.

    Raises:
        InputError: The weights sum to zero.
    """
    return weighted_sum(vectors, multislerp_coefficients(gram(vectors), weight_shares("multislerp", weights)))


METHOD = Method(
    name="multislerp",
    summary="The mean direction of the models, at their mean length.",
    reference="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    base="optional",
    merge=multislerp,
)

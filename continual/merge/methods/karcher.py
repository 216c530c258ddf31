"""The Riemannian mean on the sphere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from continual.merge.methods import Method
from continual.merge.methods._geometry import combine, cosines, gram, norms, shares
from continual.merge.methods.multislerp import CANCELLED

TOLERANCE = 1e-12
"""Change of the mean's coordinates, as a share of the largest, below which the iteration ends."""

ITERATIONS = 1000
"""Most steps; a few dozen are enough unless the vectors point away from one another."""

OPPOSITE = torch.pi - 1e-6
"""A vector this far from the mean is pulled to it along every arc alike, so it does not move the mean."""


def mean_direction(angles: Tensor, weights: Tensor) -> Tensor | None:
    """Return a with sum_i a_i u_i = m, the unit vector at which sum_i w_i log_m(u_i) = 0; None where none is unique.

    log_m(u) is the tangent at m towards u whose length is the angle between them.

    Args:
        angles: Cosines between the unit vectors u_i, (n, n) in float64.
        weights: Weights of 0 or more, (n,) in float64.
    """
    size = (weights @ angles @ weights).clamp(min=0).sqrt()
    if size < CANCELLED * weights.sum():
        return None
    point = weights / size
    for _ in range(ITERATIONS):
        nearness = (angles @ point).clamp(-1, 1)  # cosine of m and each u_i
        theta = torch.arccos(nearness)
        stretch = torch.where(theta > 1e-9, theta / torch.sin(theta).clamp(min=1e-9), 1.0)
        stretch[theta > OPPOSITE] = 0.0
        pull = weights * stretch
        tangent = pull - (pull @ nearness) * point
        length = (tangent @ angles @ tangent).clamp(min=0).sqrt()
        point = torch.cos(length) * point + torch.sinc(length / torch.pi) * tangent
        point = point / (point @ angles @ point).clamp(min=1e-300).sqrt()
        if tangent.abs().max() <= TOLERANCE * point.abs().max():
            break
    return point


def coefficients(products: Tensor, weights: Tensor) -> Tensor:
    """Return the factor of each vector.

    Args:
        products: Inner products, (n, n) in float64.
        weights: Weights of 0 or more, (n,) in float64, with sum 1.
    """
    lengths = norms(products)
    directed = (lengths > 0) & (weights > 0)
    factors = torch.zeros_like(weights)
    if not bool(directed.any()):
        return factors
    kept = weights[directed]
    point = mean_direction(cosines(products)[directed][:, directed], kept / kept.sum())
    if point is None:
        return weights
    factors[directed] = point * (weights @ lengths) / lengths[directed]
    return factors


def karcher(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return (sum_i w_i |v_i|) m: the weighted Riemannian mean of the directions, at the weighted mean length.

    m minimises sum_i w_i angle(m, v_i)^2 (https://arxiv.org/abs/2603.04972). It is a combination of the vectors, so the
    iteration runs on n numbers. A zero vector has no direction and counts in the length alone. Where the
    directions cancel, there is no single mean, and the result is the plain weighted mean.

    Raises:
        InputError: The weights sum to zero, or one is negative.
    """
    return combine(vectors, coefficients(gram(vectors), shares("karcher", weights, signed=False)))


METHOD = Method(
    name="karcher",
    summary="The direction nearest to all models by angle, at their mean length.",
    reference="https://arxiv.org/abs/2603.04972",
    base="optional",
    merge=karcher,
)

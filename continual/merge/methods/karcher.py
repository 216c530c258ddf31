"""The Riemannian mean on the sphere."""

from __future__ import annotations

import math
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
from continual.merge.methods.multislerp import CANCELLED

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-12
"""Length of the mean tangent, in radians, at which the iteration ends."""

ITERATIONS = 1000
"""Maximum number of iterations. A few dozen are enough unless the vectors point away from each other."""

OPPOSITE = math.pi - 1e-6
"""Angle from which a vector counts as opposite to the mean. All arcs to it are equally short, so it has no pull."""


def mean_direction(angles: Tensor, weights: Tensor) -> Tensor | None:
    """Return a with sum_i a_i u_i = m, the unit vector with sum_i w_i log_m(u_i) = 0, or None if m is not unique.

    log_m(u) is the tangent at m towards u; its length is the angle between m and u.

    Args:
        angles: Cosines between the unit vectors u_i, (n, n) in float64.
        weights: Weights of 0 or more, (n,) in float64.
    """
    import torch

    weights = weights / weights.sum()
    values, axes = torch.linalg.eigh(angles)
    spanned = values > 1e-14 * values.max()
    roots = values[spanned].sqrt()
    units = axes[:, spanned] * roots  # the u_i in an orthonormal basis of their span, [n, dimensions]
    mean = weights @ units
    if mean.norm() < CANCELLED:
        return None
    point = start = mean / mean.norm()
    tangent, step, least = torch.zeros_like(point), 1.0, torch.inf
    for _ in range(ITERATIONS):
        nearness = (units @ point).clamp(-1, 1)  # cosine of m and each u_i
        theta = torch.arccos(nearness)
        spread = float(weights @ theta.square())
        if spread > least + 1e-14:  # the step was too long; happens if the vectors point away from each other
            step /= 2
        else:
            stretch = torch.where(theta > 1e-9, theta / torch.sin(theta).clamp(min=1e-9), 1.0)
            pull = weights * torch.where(theta > OPPOSITE, 0.0, stretch)
            tangent = pull @ units - (pull @ nearness) * point
            if tangent.norm() < TOLERANCE:
                break
            start, least = point, spread
        arc = step * tangent.norm()
        point = torch.cos(arc) * start + torch.sinc(arc / torch.pi) * step * tangent
        point = point / point.norm()
    coordinates: Tensor = axes[:, spanned] @ (point / roots)
    return coordinates


def karcher_coefficients(products: Tensor, weights: Tensor) -> Tensor:
    """Return the factor of each vector, (n,).

    Args:
        products: Inner products, (n, n) in float64.
        weights: Weights of 0 or more, (n,) in float64, with sum 1.
    """
    import torch

    lengths = norms(products)
    directed = (lengths > 0) & (weights > 0)
    factors = torch.zeros_like(weights)
    if not bool(directed.any()):
        return factors
    point = mean_direction(cosine_matrix(products)[directed][:, directed], weights[directed])
    if point is None:
        return weights
    factors[directed] = point * (weights @ lengths) / lengths[directed]
    return factors


def karcher(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return (sum_i w_i |v_i|) m: the weighted Riemannian mean m of the directions, at the weighted mean length.

    m minimises sum_i w_i angle(m, v_i)^2 (https://arxiv.org/abs/2603.04972). It is a linear combination of the vectors,
    so the iteration runs on n numbers. A zero vector has no direction and counts only in the length. If the directions
    cancel, m is not unique, and the result is the weighted mean of the vectors.

    Raises:
        InputError: The weights sum to zero, or one is negative.
    """
    return weighted_sum(vectors, karcher_coefficients(gram(vectors), weight_shares("karcher", weights, signed=False)))


METHOD = Method(
    name="karcher",
    summary="The direction closest to all models by angle, at their mean length.",
    reference="https://arxiv.org/abs/2603.04972",
    base="optional",
    merge=karcher,
)

"""Spherical interpolation between two models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method
from continual.merge.methods._geometry import (
    cosine_matrix,
    gram,
    turn,
    weight_shares,
    weighted_sum,
)

if TYPE_CHECKING:
    from torch import Tensor


def slerp_coefficients(products: Tensor, weights: Tensor) -> Tensor:
    """Return the factors of the two vectors, (2,).

    Args:
        products: Inner products, (2, 2) in float64.
        weights: Weights with sum 1, (2,) in float64; the second is t.
    """
    import torch

    return torch.stack(turn(cosine_matrix(products)[0, 1], weights[1]))


def slerp(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return sin((1 - t) a) / sin(a) v_1 + sin(t a) / sin(a) v_2, with a their angle and t = w_2 / (w_1 + w_2).

    The vectors are not normalised; Shoemake (1985) defines slerp for unit vectors. Nearly parallel vectors are
    interpolated linearly.

    Raises:
        InputError: The weights sum to zero.
    """
    return weighted_sum(vectors, slerp_coefficients(gram(vectors), weight_shares("slerp", weights)))


METHOD = Method(
    name="slerp",
    summary="Rotate the first model towards the second, along the arc between them.",
    reference="https://en.wikipedia.org/wiki/Slerp",
    base="first",
    merge=slerp,
    least=2,
    most=2,
)

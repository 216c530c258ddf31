"""Spherical interpolation between two models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from continual.merge.methods import Method
from continual.merge.methods._geometry import (
    combine,
    cosines,
    gram,
    shares,
    turn,
)


def coefficients(products: Tensor, weights: Tensor) -> Tensor:
    """Return the factors of the two vectors.

    Args:
        products: Their inner products, (2, 2) in float64.
        weights: Their weights, (2,) in float64, with sum 1: t is the second.
    """
    return torch.stack(turn(cosines(products)[0, 1], weights[1]))


def slerp(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return sin((1 - t) a) / sin(a) v_1 + sin(t a) / sin(a) v_2, a the angle between them, t = w_2 / (w_1 + w_2).

    The vectors keep their lengths (Shoemake 1985 has unit ones). Nearly parallel ones are interpolated linearly.

    Raises:
        InputError: The weights sum to zero.
    """
    return combine(vectors, coefficients(gram(vectors), shares("slerp", weights)))


METHOD = Method(
    name="slerp",
    summary="Turn from the first model towards the second, along the arc between them.",
    reference="https://en.wikipedia.org/wiki/Slerp",
    base="first",
    merge=slerp,
    least=2,
    most=2,
)

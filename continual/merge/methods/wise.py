"""Interpolation between a base and an update (WiSE-FT)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from continual.merge.methods import Method
from continual.merge.methods._geometry import shares


def wise(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return v_1 + a (v_2 - v_1), a = w_2 / (w_1 + w_2).

    WiSE-FT: https://arxiv.org/abs/2109.01903. Between a model in service and its update the base cancels, so it is
    never read and adds no rounding. a = 0 gives v_1 and a = 1 gives v_2, both bit for bit.

    Raises:
        InputError: The weights sum to zero.
    """
    first, second = vectors
    share = float(shares("wise", weights)[1])
    if share in (0, 1):  # lerp would turn -0.0 into 0.0
        return (second if share else first).clone()
    return torch.lerp(first, second, share)


METHOD = Method(
    name="wise",
    summary="Go part of the straight way from the first model to the second.",
    reference="https://arxiv.org/abs/2109.01903",
    base="first",
    merge=wise,
    least=2,
    most=2,
)

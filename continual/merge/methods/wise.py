"""Interpolation between a base and an update (WiSE-FT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method
from continual.merge.methods._geometry import weight_shares

if TYPE_CHECKING:
    from torch import Tensor


def wise(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return v_1 + a (v_2 - v_1) with a = w_2 / (w_1 + w_2).

    WiSE-FT: https://arxiv.org/abs/2109.01903. The base of two models cancels, so it is not read and adds no rounding
    error. a = 0 gives v_1 and a = 1 gives v_2, bit for bit.

    Raises:
        InputError: The weights sum to zero.
    """
    import torch

    first, second = vectors
    share = float(weight_shares("wise", weights)[1])
    if share in (0, 1):  # lerp would turn -0.0 into 0.0
        return (second if share else first).clone()
    return torch.lerp(first, second, share)


METHOD = Method(
    name="wise",
    summary="Interpolate linearly between the first model and the second.",
    reference="https://arxiv.org/abs/2109.01903",
    base="first",
    merge=wise,
    least=2,
    most=2,
)

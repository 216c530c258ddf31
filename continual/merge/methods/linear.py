"""The weighted mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method, Parameter
from continual.merge.methods._geometry import weight_shares, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


def linear(vectors: Sequence[Tensor], weights: Sequence[float], normalize: bool = True) -> Tensor:
    """Return sum_i w_i v_i / sum_i w_i, or without the division if `normalize` is off.

    Model soups: https://arxiv.org/abs/2203.05482. With the weights 1 - 1/n and 1/n for the mean so far and model n, it
    is the running mean.

    Raises:
        InputError: The weights sum to zero, and `normalize` is on.
    """
    return weighted_sum(vectors, weight_shares("linear", weights) if normalize else weights)


METHOD = Method(
    name="linear",
    summary="The weighted mean of the models.",
    reference="https://arxiv.org/abs/2203.05482",
    base="none",
    merge=linear,
    parameters={"normalize": Parameter(True, 0, 1, "divide by the sum of the weights")},
)

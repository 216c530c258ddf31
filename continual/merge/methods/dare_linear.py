"""The sum of task vectors with elements dropped at random (DARE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.errors import InputError
from continual.merge.methods import Method, Parameter
from continual.merge.methods._blocks import blocks, flat

if TYPE_CHECKING:
    from torch import Generator, Tensor


def thinned(part: Tensor, density: float, generator: Generator) -> Tensor:
    """Keep each element with probability `density`, and set the others to 0. At density 1 return the part itself.

    The probability is rounded to a multiple of 2^-32: 64 random bits decide two elements, which is several times faster
    than `bernoulli_`.
    """
    import torch

    if density >= 1:
        return part
    size = part.numel()
    bits = torch.empty((size + 1) // 2, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    bound = min(round(density * 2**32) - 2**31, 2**31 - 1)
    return part * (bits.view(torch.int32)[:size] < bound)


def dare_linear(
    vectors: Sequence[Tensor],
    weights: Sequence[float],
    density: float = 0.5,
    lambda_: float = 1.0,
    normalize: bool = False,
    *,
    generator: Generator,
) -> Tensor:
    """Return lambda sum_i w_i b_i v_i / density, where elements of b_i are 1 with probability `density`, else 0.

    DARE: https://arxiv.org/abs/2311.03099. Dividing by the probability keeps the expected result. The same generator
    state gives the same bytes.

    Raises:
        InputError: The weights sum to zero, and `normalize` is on.
    """
    import torch

    total = sum(weights) if normalize else 1.0
    if total == 0:
        raise InputError(
            "dare_linear divides by the sum of the weights, but it is 0. Change --weights, or turn normalize off."
        )
    rows = flat(vectors)
    result = torch.zeros(vectors[0].shape, dtype=torch.float32)
    whole = result.view(-1)
    for block in blocks(whole.numel()):
        for row, weight in zip(rows, weights, strict=True):
            whole[block].add_(thinned(row[block], density, generator), alpha=lambda_ * weight / (total * density))
    return result


METHOD = Method(
    name="dare_linear",
    summary="The sum of a random share of each model's changes, scaled up by the inverse of the share.",
    reference="https://arxiv.org/abs/2311.03099",
    base="needed",
    merge=dare_linear,
    parameters={
        "density": Parameter(0.5, 0.01, 1, "probability of keeping an element"),
        "lambda": Parameter(1.0, -10, 10, "scale of the merged task vector"),
        "normalize": Parameter(False, 0, 1, "divide by the sum of the weights"),
    },
    symmetric=False,
    seeded=True,
)

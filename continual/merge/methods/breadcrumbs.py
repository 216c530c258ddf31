"""The sum of task vectors without their smallest elements and their outliers (Model Breadcrumbs)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.errors import InputError
from continual.merge.methods import Method, Parameter
from continual.merge.methods._blocks import blocks, flat
from continual.merge.methods._sparse import below, ranked

if TYPE_CHECKING:
    from torch import Tensor


def band(vector: Tensor, density: float, gamma: float) -> tuple[float, float]:
    """Return the smallest and the largest magnitude to keep.

    Args:
        vector: One dimension, fp32.
        density: Share of elements to keep, 0 to 1.
        gamma: Share of the largest elements to drop, 0 to 1; less if `density` and `gamma` sum to more than 1.
    """
    size = vector.numel()
    keep = int(density * size)
    if density >= 1 or not size:
        return 0.0, math.inf
    if not keep:
        return math.inf, math.inf
    first = max(0, size - keep - int(gamma * size))
    low, high = ranked(vector.abs(), [first, first + keep - 1])
    return low, high


def breadcrumbs(
    vectors: Sequence[Tensor],
    weights: Sequence[float],
    density: float = 0.9,
    gamma: float = 0.01,
    lambda_: float = 1.0,
    normalize: bool = False,
) -> Tensor:
    """Return lambda sum_i w_i v_i, with only the elements of each v_i between two magnitudes.

    Model Breadcrumbs: https://arxiv.org/abs/2312.06795. The `gamma` share of largest elements (outliers) is dropped,
    then the smallest elements until the `density` share is left. Elements equal to the smallest or largest kept one
    are kept too.

    Raises:
        InputError: The weights sum to zero, and `normalize` is on.
    """
    import torch
    from torch.nn.functional import hardshrink

    total = sum(weights) if normalize else 1.0
    if total == 0:
        raise InputError(
            "breadcrumbs divides by the sum of the weights, but it is 0. Change --weights, or turn normalize off."
        )
    rows = flat(vectors)
    bands = [band(row, density, gamma) for row in rows]
    result = torch.zeros(vectors[0].shape, dtype=torch.float32)
    whole = result.view(-1)
    for block in blocks(whole.numel()):
        for row, weight, (low, high) in zip(rows, weights, bands, strict=True):
            if math.isinf(low):
                continue
            part = hardshrink(row[block], below(low))
            if math.isfinite(high):
                part -= hardshrink(row[block], high)  # exact: an outlier minus itself is 0
            whole[block].add_(part, alpha=lambda_ * weight / total)
    return result


METHOD = Method(
    name="breadcrumbs",
    summary="The sum of the models' changes, without each model's smallest changes and outliers.",
    reference="https://arxiv.org/abs/2312.06795",
    base="needed",
    merge=breadcrumbs,
    parameters={
        "density": Parameter(
            0.9, 0, 1, "share of each task vector's elements to keep", zero="keeps nothing of the updates"
        ),
        "gamma": Parameter(0.01, 0, 1, "share of each task vector's elements to drop as outliers"),
        "lambda": Parameter(1.0, -10, 10, "scale of the merged task vector"),
        "normalize": Parameter(False, 0, 1, "divide by the sum of the weights"),
    },
)

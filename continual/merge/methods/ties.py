"""The sum of trimmed task vectors where their signs agree (TIES)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method, Parameter
from continual.merge.methods._blocks import blocks, flat
from continual.merge.methods._sparse import (
    agreed,
    direction,
    largest,
    trimmed,
)

if TYPE_CHECKING:
    from torch import Tensor


def ties(
    vectors: Sequence[Tensor],
    weights: Sequence[float],
    density: float = 0.5,
    lambda_: float = 1.0,
    normalize: bool = True,
) -> Tensor:
    """Return lambda times the sum of the trimmed, weighted elements that have the sign of their sum.

    TIES: https://arxiv.org/abs/2306.01708. 1. Trim: keep the `density` share of each vector with the largest magnitude.
    Elements equal to the smallest kept one are kept too, so that the result does not depend on their order. 2. Elect:
    the sign of an element is that of sum_i w_i v_i. 3. Merge: sum the elements with that sign; `normalize` divides by
    the sum of their weights.
    """
    import torch

    rows = flat(vectors)
    thresholds = [largest(row, density) for row in rows]
    factors = torch.tensor(list(weights), dtype=torch.float32)
    result = torch.empty(vectors[0].shape, dtype=torch.float32)
    whole = result.view(-1)
    for block in blocks(whole.numel()):
        parts = torch.stack([trimmed(row[block], least) for row, least in zip(rows, thresholds, strict=True)])
        parts *= factors[:, None]
        torch.mul(agreed(parts, factors, direction(parts), normalize), lambda_, out=whole[block])
    return result


METHOD = Method(
    name="ties",
    summary="The sum of each model's largest changes, where they agree with the sign of the sum.",
    reference="https://arxiv.org/abs/2306.01708",
    base="needed",
    merge=ties,
    parameters={
        "density": Parameter(
            0.5,
            0,
            1,
            "share of each task vector's elements to keep, the largest first",
            zero="keeps nothing of the updates",
        ),
        "lambda": Parameter(1.0, -10, 10, "scale of the merged task vector"),
        "normalize": Parameter(True, 0, 1, "divide each element by the weights of the models that agree there"),
    },
)

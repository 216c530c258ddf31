"""The largest change of each element (MagMax)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method, Parameter
from continual.merge.methods._blocks import blocks, flat

if TYPE_CHECKING:
    from torch import Tensor


def magmax(vectors: Sequence[Tensor], weights: Sequence[float], lambda_: float = 1.0) -> Tensor:
    """Return lambda times the value of largest magnitude of each element; of x and -x it takes the positive one.

    MagMax: https://arxiv.org/abs/2407.06322. The weights have no effect. With lambda 1, merging one model after another
    gives the same result as merging all at once.
    """
    import torch

    rows = flat(vectors)
    result = torch.empty(vectors[0].shape, dtype=torch.float32)
    whole = result.view(-1)
    for block in blocks(whole.numel()):
        highest, lowest = rows[0][block], rows[0][block]
        for row in rows[1:]:
            highest, lowest = torch.maximum(highest, row[block]), torch.minimum(lowest, row[block])
        torch.mul(torch.where(highest >= -lowest, highest, lowest), lambda_, out=whole[block])
    return result


METHOD = Method(
    name="magmax",
    summary="For each element, the largest change that any model made.",
    reference="https://arxiv.org/abs/2407.06322",
    base="needed",
    merge=magmax,
    parameters={"lambda": Parameter(1.0, -10, 10, "scale of the merged task vector")},
    weighted=False,
)

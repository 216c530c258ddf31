"""The sum of task vectors with elements dropped at random, where their signs agree (DARE with TIES)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method, Parameter
from continual.merge.methods._blocks import blocks, flat
from continual.merge.methods._sparse import agreed, direction
from continual.merge.methods.dare_linear import thinned

if TYPE_CHECKING:
    from torch import Generator, Tensor


def dare_ties(
    vectors: Sequence[Tensor],
    weights: Sequence[float],
    density: float = 0.5,
    lambda_: float = 1.0,
    normalize: bool = False,
    *,
    generator: Generator,
) -> Tensor:
    """Return the TIES merge with random dropping, as in `dare_linear`, instead of trimming.

    DARE: https://arxiv.org/abs/2311.03099, TIES: https://arxiv.org/abs/2306.01708. Only kept elements elect the signs,
    so the expected result is not TIES of the whole vectors. The same generator state gives the same bytes.
    """
    import torch

    rows = flat(vectors)
    factors = torch.tensor(list(weights), dtype=torch.float32)
    result = torch.empty(vectors[0].shape, dtype=torch.float32)
    whole = result.view(-1)
    for block in blocks(whole.numel()):
        parts = torch.stack([thinned(row[block], density, generator) for row in rows])
        parts *= factors[:, None] / density
        torch.mul(agreed(parts, factors, direction(parts), normalize), lambda_, out=whole[block])
    return result


METHOD = Method(
    name="dare_ties",
    summary="The sum of a random share of each model's changes, where they agree with the sign of the sum.",
    reference="https://arxiv.org/abs/2311.03099",
    base="needed",
    merge=dare_ties,
    parameters={
        "density": Parameter(0.5, 0.01, 1, "probability of keeping an element"),
        "lambda": Parameter(1.0, -10, 10, "scale of the merged task vector"),
        "normalize": Parameter(False, 0, 1, "divide each element by the weights of the models that agree there"),
    },
    symmetric=False,
    seeded=True,
)

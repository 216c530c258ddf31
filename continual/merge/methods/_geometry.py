"""Helpers of merges that are a linear combination of n vectors, with factors that follow from their inner products.

The factors are computed in float64 from the n x n inner products. The tensors are read twice: once for the inner
products and once for the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.errors import InputError
from continual.merge.methods._blocks import BLOCK, blocks, flat

if TYPE_CHECKING:
    from torch import Tensor

PARALLEL = 0.9995
"""Above this |cosine|, vectors count as parallel: at the precision of weights they span no plane to rotate in."""


def gram(vectors: Sequence[Tensor]) -> Tensor:
    """Return the inner products G[i, j] = <v_i, v_j>, of shape (n, n) in float64.

    Only one block at a time is converted to float64.
    """
    import torch

    rows = flat(vectors)
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    buffer = torch.empty(len(rows), min(BLOCK, rows[0].numel()), dtype=torch.float64)
    for block in blocks(rows[0].numel()):
        part = buffer[:, : block.stop - block.start]
        for row, vector in zip(part, rows, strict=True):
            row.copy_(vector[block])
        total.addmm_(part, part.T)
    return total


def weighted_sum(vectors: Sequence[Tensor], coefficients: Tensor | Sequence[float]) -> Tensor:
    """Return sum_i c_i v_i in fp32, in the vectors' shape. Only the result is allocated."""
    import torch

    factors = coefficients.tolist() if isinstance(coefficients, torch.Tensor) else list(coefficients)
    rows = flat(vectors)
    result = torch.empty(vectors[0].shape, dtype=torch.float32)
    whole = result.view(-1)
    for block in blocks(rows[0].numel()):
        part = whole[block]
        torch.mul(rows[0][block], factors[0], out=part)
        for row, factor in zip(rows[1:], factors[1:], strict=True):
            part.add_(row[block], alpha=factor)
    return result


def weight_shares(method: str, weights: Sequence[float], signed: bool = True) -> Tensor:
    """Return the weights divided by their sum, in float64.

    Args:
        method: Name of the method, for the error message.
        weights: One per vector.
        signed: Whether weights may be negative.

    Raises:
        InputError: The weights sum to zero, or one is negative though `signed` is false.
    """
    import torch

    values = torch.tensor(list(weights), dtype=torch.float64)
    listed = ", ".join(f"{weight:g}" for weight in weights)
    if not signed and bool((values < 0).any()):
        raise InputError(f"{method} takes weights of 0 or more, but they are {listed}. Change --weights.")
    total = values.sum()
    if abs(float(total)) < 1e-8 * max(float(values.abs().sum()), 1e-300):
        raise InputError(f"{method} divides by the sum of the weights, but {listed} sum to 0. Change --weights.")
    return values / total


def norms(products: Tensor) -> Tensor:
    """Return the lengths |v_i| from the inner products, (n,)."""
    return products.diagonal().clamp(min=0).sqrt()


def cosine_matrix(products: Tensor) -> Tensor:
    """Return the cosines between the vectors from their inner products, (n, n). All cosines of a zero vector are 0."""
    import torch

    lengths = norms(products)
    inverse = torch.where(lengths > 0, 1 / torch.where(lengths > 0, lengths, 1), 0)
    return (products * inverse[:, None] * inverse[None, :]).clamp(-1, 1)


def turn(cosine: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two factors of a slerp: sin((1 - t) a) / sin a and sin(t a) / sin a, with a = arccos(cosine).

    For nearly parallel and nearly opposite vectors (see `PARALLEL`) the factors are linear: 1 - t and t. Values and
    gradients are finite in both cases.
    """
    import torch

    linear = cosine.abs() > PARALLEL
    angle = torch.arccos(torch.where(linear, 0.0, cosine))
    return (
        torch.where(linear, 1 - t, torch.sin((1 - t) * angle) / torch.sin(angle)),
        torch.where(linear, t, torch.sin(t * angle) / torch.sin(angle)),
    )

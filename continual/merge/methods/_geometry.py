"""Merges that are a linear combination: n vectors are described by their n x n inner products, and by nothing else.

So the mathematics runs in float64 on a handful of numbers, and the tensors are read twice: once for the inner
products, once for the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from continual.errors import InputError
from continual.merge.methods._blocks import BLOCK, blocks, flat

PARALLEL = 0.9995
"""Vectors whose |cosine| is above this have no plane that a slerp could turn in, to the precision of weights."""


def gram(vectors: Sequence[Tensor]) -> Tensor:
    """Return the inner products of the vectors, G[i, j] = <v_i, v_j>, of shape (n, n) in float64.

    Products are summed in float64 a block at a time, so no tensor is ever held in float64.
    """
    rows = flat(vectors)
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    buffer = torch.empty(len(rows), min(BLOCK, rows[0].numel()), dtype=torch.float64)
    for block in blocks(rows[0].numel()):
        part = buffer[:, : block.stop - block.start]
        for row, vector in zip(part, rows, strict=True):
            row.copy_(vector[block])
        total.addmm_(part, part.T)
    return total


def combine(vectors: Sequence[Tensor], coefficients: Tensor | Sequence[float]) -> Tensor:
    """Return sum_i c_i v_i in fp32, in the vectors' shape. Needs no memory but the result's."""
    factors = coefficients.tolist() if isinstance(coefficients, Tensor) else list(coefficients)
    rows = flat(vectors)
    result = torch.empty(vectors[0].shape, dtype=torch.float32)
    whole = result.view(-1)
    for block in blocks(rows[0].numel()):
        part = whole[block]
        torch.mul(rows[0][block], factors[0], out=part)
        for row, factor in zip(rows[1:], factors[1:], strict=True):
            part.add_(row[block], alpha=factor)
    return result


def shares(method: str, weights: Sequence[float], signed: bool = True) -> Tensor:
    """Return the weights divided by their sum, in float64.

    Args:
        method: Who asks, for the message.
        weights: One for each vector.
        signed: Whether a weight may be negative.

    Raises:
        InputError: The weights sum to zero, or one is negative and may not be.
    """
    given = torch.tensor(list(weights), dtype=torch.float64)
    listed = ", ".join(f"{weight:g}" for weight in weights)
    if not signed and bool((given < 0).any()):
        raise InputError(f"{method} takes weights of 0 or more, and they are {listed}.")
    total = given.sum()
    if abs(float(total)) < 1e-8 * max(float(given.abs().sum()), 1e-300):
        raise InputError(f"{method} divides by the sum of the weights, and {listed} sum to 0.")
    return given / total


def norms(products: Tensor) -> Tensor:
    """Return |v_i| from the inner products."""
    return products.diagonal().clamp(min=0).sqrt()


def cosines(products: Tensor) -> Tensor:
    """Return the cosines between the vectors, (n, n); those with a zero vector are 0, its own too."""
    lengths = norms(products)
    inverse = torch.where(lengths > 0, 1 / torch.where(lengths > 0, lengths, 1), 0)
    return (products * inverse[:, None] * inverse[None, :]).clamp(-1, 1)


def turn(cosine: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two factors of a slerp, sin((1 - t) a) / sin a and sin(t a) / sin a, a = arccos(cosine).

    Nearly parallel and nearly opposite vectors (see `PARALLEL`) are interpolated linearly: 1 - t and t.
    Differentiable in both arguments, and finite on either branch.
    """
    linear = cosine.abs() > PARALLEL
    angle = torch.arccos(torch.where(linear, 0.0, cosine))
    return (
        torch.where(linear, 1 - t, torch.sin((1 - t) * angle) / torch.sin(angle)),
        torch.where(linear, t, torch.sin(t * angle) / torch.sin(angle)),
    )

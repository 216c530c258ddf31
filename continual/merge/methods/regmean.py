"""The merge that keeps what each model's linear layers give for the texts it is good at (RegMean)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method, Parameter
from continual.merge.methods._geometry import weight_shares, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 1e-6
"""Least variance of an input, as a share of the mean of all: an input that is always 0 gets the mean of the weights."""


def normalised(gram: Tensor, off_diagonal: float) -> Tensor:
    """Return a Gram matrix divided by its mean diagonal, with its other elements scaled, in float64.

    Args:
        gram: G = X' X of a layer's inputs, (inputs, inputs).
        off_diagonal: Factor of the elements beside the diagonal, 0 to 1; below 1 the matrix can be inverted.
    """
    import torch

    diagonal = gram.diagonal().double()
    mean = diagonal.mean()
    if not mean > 0:
        return torch.eye(len(gram), dtype=torch.float64)
    scaled = gram.double() * (off_diagonal / mean)
    scaled.diagonal().copy_((diagonal / mean).clamp(min=FLOOR))
    return scaled


def regmean(
    vectors: Sequence[Tensor],
    weights: Sequence[float],
    grams: Sequence[Tensor | None],
    off_diagonal: float = 0.95,
) -> Tensor:
    """Return (sum_i w_i W_i G_i) (sum_i w_i G_i)^-1: the W with the least sum_i w_i |X_i W' - X_i W_i'|^2.

    X_i [tokens, inputs] is what the layer gets in model i on the texts of model i, and G_i = X_i' X_i, divided by its
    mean diagonal. So a difference between the models is followed in the directions that the texts of one of them use,
    and not where only those of another one do. Without G_i (a bias, an embedding, a norm), the weighted mean.

    Args:
        vectors: The weights W_i, (outputs, inputs) if there are Gram matrices.
        weights: One per model, 0 or more.
        grams: One per model, (inputs, inputs); all None if the tensor is not the weight of a linear layer.
        off_diagonal: Factor of the elements of G_i beside its diagonal.

    Raises:
        InputError: A weight is negative, or they sum to zero.

    Reference: https://arxiv.org/abs/2212.09849
    """
    import torch

    shares = weight_shares("regmean", weights, signed=False)
    known = [gram for gram in grams if gram is not None]
    if len(known) < len(vectors):
        return weighted_sum(vectors, shares)
    first = vectors[0]
    total = torch.zeros(known[0].shape, dtype=torch.float64)
    moved = torch.zeros(first.shape, dtype=torch.float64)
    for share, vector, gram in zip(shares.tolist(), vectors, known, strict=True):
        scaled = normalised(gram, off_diagonal).mul_(share)
        total += scaled
        moved += (vector.double() - first.double()) @ scaled  # measured from one model, so that equal ones stay exact
    change: Tensor = torch.linalg.solve(total, moved, left=False)
    return (first.double() + change).float()


METHOD = Method(
    name="regmean",
    summary="Per linear layer, the weights that change least what each model gives for its own texts.",
    reference="https://arxiv.org/abs/2212.09849",
    base="none",
    merge=regmean,
    least=2,
    parameters={"off_diagonal": Parameter(0.95, 0, 0.999, "factor of what two inputs of a layer have in common")},
    needs_texts=True,
)

"""Interpolation between the base and the mean of the models, by the angle between their updates (Model Stock)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method
from continual.merge.methods._geometry import cosine_matrix, gram, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


def model_stock_coefficients(products: Tensor) -> Tensor:
    """Return the factor of each task vector, t / n, (n,).

    Args:
        products: Inner products, (n, n) in float64; n is 2 or more.
    """
    import torch

    count = len(products)
    angles = cosine_matrix(products)
    cosine = (angles.sum() - angles.diagonal().sum()) / (count * (count - 1))
    denominator = 1 + (count - 1) * cosine
    # Updates that cancel do not tell where the centre is, so the result is the base.
    share = torch.zeros_like(cosine) if denominator.abs() < 1e-6 else count * cosine / denominator
    return (share / count).expand(count)


def model_stock(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return t times the unweighted mean of the task vectors, with t = n c / (1 + (n - 1) c) and c their mean cosine.

    Model Stock: https://arxiv.org/abs/2403.19522. The angles between the updates tell how far the centre of all
    fine-tuned models is from the base. The weights have no effect. Orthogonal updates give t = 0 and so the base; a
    negative c makes t negative.
    """
    return weighted_sum(vectors, model_stock_coefficients(gram(vectors)))


METHOD = Method(
    name="model_stock",
    summary="Move from the base towards the mean of the models, as far as their updates agree.",
    reference="https://arxiv.org/abs/2403.19522",
    base="needed",
    merge=model_stock,
    least=2,
    weighted=False,
)

"""Interpolation between the base and the mean of the models, by the angle between their updates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from continual.merge.methods import Method
from continual.merge.methods._geometry import combine, cosines, gram


def coefficients(products: Tensor) -> Tensor:
    """Return the factor of each task vector, t / n.

    Args:
        products: Inner products, (n, n) in float64; n is 2 or more.
    """
    count = len(products)
    angles = cosines(products)
    cosine = (angles.sum() - angles.diagonal().sum()) / (count * (count - 1))
    denominator = 1 + (count - 1) * cosine
    # Updates that cancel say nothing of where the centre is; the base stays.
    share = torch.zeros_like(cosine) if denominator.abs() < 1e-6 else count * cosine / denominator
    return (share / count).expand(count)


def model_stock(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return t times the plain mean of the task vectors, t = n c / (1 + (n - 1) c), c their mean cosine.

    Model Stock: https://arxiv.org/abs/2403.19522. The angles say how far from the base the centre of all
    fine-tunes is. The weights do nothing. Updates at right angles have t = 0, which leaves the base; a negative
    c makes t negative.
    """
    return combine(vectors, coefficients(gram(vectors)))


METHOD = Method(
    name="model_stock",
    summary="From the base towards the mean of the models, as far as their updates agree.",
    reference="https://arxiv.org/abs/2403.19522",
    base="needed",
    merge=model_stock,
    least=2,
    weighted=False,
)

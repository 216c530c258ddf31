"""Slerp of task vectors one after another, as in phased training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.errors import InputError
from continual.merge.methods import Method, Parameter
from continual.merge.methods._geometry import gram, turn, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


def pairwise_slerp_coefficients(products: Tensor, t: Tensor) -> Tensor:
    """Return the factor of each task vector, (n,), differentiable in `t`.

    V = v_1, then V = slerp(V, v_{i+1}; t_i) for each further vector. V is a linear combination of the vectors, so its
    angle to the next one follows from their inner products.

    Args:
        products: Inner products, (n, n) in float64.
        t: The n - 1 positions t_i, 0 to 1, in float64. 0 stays at V, 1 goes to v_{i+1}.
    """
    import torch

    unit = torch.eye(len(products), dtype=products.dtype)
    factors = unit[0]
    for index, position in enumerate(t.unbind(), start=1):
        square = (factors @ products @ factors) * products[index, index]
        # A zero vector counts as orthogonal to all others; the square root has no gradient at 0.
        length = torch.where(square > 0, square, 1.0).sqrt()
        cosine = torch.where(square > 0, factors @ products[index] / length, 0.0).clamp(-1, 1)
        stay, go = turn(cosine, position)
        factors = stay * factors + go * unit[index]
    return factors


def positions(weights: Sequence[float]) -> Tensor:
    """Return t_i = w_{i+1} / (w_1 + ... + w_{i+1}), the positions that give each vector its share of the weights.

    Raises:
        InputError: The weights sum to zero, or one is negative.
    """
    import torch

    if min(weights) < 0 or sum(weights) <= 0:
        listed = ", ".join(f"{weight:g}" for weight in weights)
        raise InputError(
            f"pairwise_slerp takes weights of 0 or more, not all 0, but they are {listed}. Change --weights."
        )
    values = torch.tensor(list(weights), dtype=torch.float64)
    so_far = values.cumsum(0)[1:]
    return torch.where(so_far > 0, values[1:] / torch.where(so_far > 0, so_far, 1), 0.0)


def pairwise_slerp(vectors: Sequence[Tensor], weights: Sequence[float], lambda_: float = 1.0) -> Tensor:
    """Return lambda V, where V joins the task vectors by slerp one after another, in the given order.

    Here the weights give the positions t_i (see `positions`). Phased training finds them and lambda by gradient
    (Self Positioning, https://arxiv.org/abs/2410.15035; see `continual.merge.positioning`).

    Raises:
        InputError: The weights sum to zero, or one is negative.
    """
    return weighted_sum(vectors, lambda_ * pairwise_slerp_coefficients(gram(vectors), positions(weights)))


METHOD = Method(
    name="pairwise_slerp",
    summary="Task vectors joined by slerp one after another, scaled by lambda.",
    reference="https://arxiv.org/abs/2410.15035",
    base="needed",
    merge=pairwise_slerp,
    parameters={"lambda": Parameter(1.0, -10, 10, "scale of the merged task vector")},
    symmetric=False,
)

"""The scaled sum of task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method, Parameter
from continual.merge.methods._geometry import weight_shares, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


def task_arithmetic(
    vectors: Sequence[Tensor], weights: Sequence[float], lambda_: float = 1.0, normalize: bool = False
) -> Tensor:
    """Return lambda sum_i w_i v_i, divided by the sum of the weights if `normalize` is on.

    Task arithmetic: https://arxiv.org/abs/2212.04089.

    Raises:
        InputError: The weights sum to zero, and `normalize` is on.
    """
    factors = weight_shares("task_arithmetic", weights).tolist() if normalize else weights
    return weighted_sum(vectors, [lambda_ * factor for factor in factors])


METHOD = Method(
    name="task_arithmetic",
    summary="The sum of the models' changes, scaled by lambda.",
    reference="https://arxiv.org/abs/2212.04089",
    base="needed",
    merge=task_arithmetic,
    parameters={
        "lambda": Parameter(1.0, -10, 10, "scale of the merged task vector"),
        "normalize": Parameter(False, 0, 1, "divide by the sum of the weights"),
    },
)

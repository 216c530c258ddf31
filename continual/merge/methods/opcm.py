"""Add a new task vector without the directions that the merged one already uses (OPCM)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method, Parameter
from continual.merge.methods._geometry import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


def occupied(merged: Tensor, new: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return the part of `new` in the directions of `merged`, as two factors, [rows, k] and [k, columns].

    With merged = U S V' and C = U' new V the part is U K V', where K keeps the diagonal of C and its first r rows and
    columns, and is 0 elsewhere. r is the number of largest singular values whose sum is at most `alpha` of the total.

    Args:
        merged: Task vector of the merged model so far, fp32, two dimensions.
        new: Task vector to add, of the same shape.
        alpha: Share of the sum of singular values whose directions are protected, 0 to 1.
    """
    import torch

    left, singular, right = torch.linalg.svd(merged, full_matrices=False)  # [rows, k], [k], [k, columns]
    # Directions with a singular value of zero are arbitrary: LAPACK chooses them, not the merged vector.
    real = singular > singular[0] * max(merged.shape) * torch.finfo(torch.float32).eps
    share = singular.double().cumsum(0) / singular.double().sum()
    rank = int(((share <= alpha) | torch.tensor(alpha >= 1)).sum())
    inside = left.T @ new @ right.T  # [k, k]
    kept = torch.diag(inside.diagonal() * real)
    kept[:rank, :rank] = inside[:rank, :rank]
    kept *= real[:, None] & real[None, :]
    return left, kept @ right


def opcm(vectors: Sequence[Tensor], weights: Sequence[float], alpha: float = 0.5, previous: float = 1.0) -> Tensor:
    """Return previous * merged + P(new), where P removes the directions of `merged` (see `occupied`).

    OPCM: https://arxiv.org/abs/2501.09522. Tensors that are not matrices are added unprojected, and so is everything if
    `merged` is zero. The caller must then divide the whole model's task vector T_t = previous T_{t-1} + P(new) by
    lambda_t = |T_t| / (mean norm of all task vectors so far), and pass lambda_t as `previous` at the next step.

    Args:
        vectors: The merged task vector so far, already divided by its lambda, and the new one.
        weights: Ignored.
        alpha: Share of the sum of singular values of `merged` whose directions are protected, 0 to 1.
        previous: lambda_{t-1}; 1 at the first merge.
    """
    merged, new = vectors
    result = weighted_sum([merged, new], [previous, 1.0])
    if new.dim() == 2 and bool(merged.any()):
        left, right = occupied(merged, new, alpha)
        result.addmm_(left, right, alpha=-1)
    return result


METHOD = Method(
    name="opcm",
    summary="The merged model so far plus a new one, projected away from the directions already in use.",
    reference="https://arxiv.org/abs/2501.09522",
    base="needed",
    merge=opcm,
    parameters={
        "alpha": Parameter(0.5, 0, 1, "share of the merged singular values whose directions are protected"),
        "previous": Parameter(1.0, 0, math.inf, "lambda of the previous step", carried=True),
    },
    symmetric=False,
    weighted=False,
    rescaled=True,
)

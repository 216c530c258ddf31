"""A new task vector added off the directions that the merged one already uses (OPCM)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from continual.merge.methods import Method, Parameter
from continual.merge.methods._geometry import combine


def occupied(merged: Tensor, new: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return the part of `new` that lies where `merged` already is, as two factors, [rows, k] and [k, columns].

    With merged = U S V' and C = U' new V, that is U C' V', where C' keeps of C the diagonal and the square of the
    first r rows and columns. r is the number of largest singular values whose sum is at most `alpha` of all.

    Args:
        merged: Task vector of what was merged so far, fp32 of two dimensions.
        new: Task vector to add, of the same shape.
        alpha: Share of the singular values whose directions are protected, 0 to 1.
    """
    left, singular, right = torch.linalg.svd(merged, full_matrices=False)  # [rows, k], [k], [k, columns]
    # Directions of a singular value of zero are LAPACK's free choice, none of the merged vector's.
    real = singular > singular[0] * max(merged.shape) * torch.finfo(torch.float32).eps
    share = singular.double().cumsum(0) / singular.double().sum()
    rank = int(((share <= alpha) | torch.tensor(alpha >= 1)).sum())
    inside = left.T @ new @ right.T  # [k, k]
    kept = torch.diag(inside.diagonal() * real)
    kept[:rank, :rank] = inside[:rank, :rank]
    kept *= real[:, None] & real[None, :]
    return left, kept @ right


def opcm(vectors: Sequence[Tensor], weights: Sequence[float], alpha: float = 0.5, previous: float = 1.0) -> Tensor:
    """Return previous * merged + P(new), P taking out what lies where `merged` already is (see `occupied`).

    OPCM: https://arxiv.org/abs/2501.09522. Tensors that are no matrix are added whole, and a zero `merged` takes out
    nothing. The whole model's task vector T_t = previous T_{t-1} + P(new) must then be divided by
    lambda_t = |T_t| / (mean norm of all task vectors so far), and lambda_t is `previous` at the next step.

    Args:
        vectors: The merged task vector so far (as it is stored: divided by its lambda), and the new one.
        weights: They do nothing.
        alpha: Share of the singular values of `merged` whose directions are protected.
        previous: lambda_{t-1}; 1 at the first merge.
    """
    merged, new = vectors
    result = combine([merged, new], [previous, 1.0])
    if new.dim() == 2 and bool(merged.any()):
        left, right = occupied(merged, new, alpha)
        result.addmm_(left, right, alpha=-1)
    return result


METHOD = Method(
    name="opcm",
    summary="The merged models so far, plus a new one off the directions they use.",
    reference="https://arxiv.org/abs/2501.09522",
    base="needed",
    merge=opcm,
    parameters={
        "alpha": Parameter(0.5, 0, 1, "share of the merged singular values whose directions are protected"),
        "previous": Parameter(1.0, 0, math.inf, "lambda of the step before", carried=True),
    },
    symmetric=False,
    weighted=False,
    rescaled=True,
)

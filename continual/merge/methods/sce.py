"""The mean of task vectors, selected by variance, weighted by energy, where their signs agree (SCE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.merge.methods import Method, Parameter
from continual.merge.methods._blocks import blocks, flat, stacked
from continual.merge.methods._sparse import agreed, direction, ranked

if TYPE_CHECKING:
    from torch import Tensor


def _variance(parts: Tensor) -> Tensor:
    """Return the population variance over the vectors (first dimension), in fp32, rounded once."""
    wide = parts.double()
    return wide.sub_(wide.mean(0)).square_().mean(0).float()


def variance_floor(rows: Sequence[Tensor], select_topk: float) -> float | None:
    """Return the smallest variance among the `select_topk` share of elements that vary most, or None if it is empty.

    Args:
        rows: Vectors of one dimension, one per model.
        select_topk: Share of the elements with a variance above zero to select, 0 to 1.
    """
    import torch

    variance = torch.empty_like(rows[0])
    for block in blocks(variance.numel()):
        variance[block] = _variance(stacked(rows, block))
    keep = int(int(variance.count_nonzero()) * select_topk)
    return ranked(variance, [variance.numel() - keep])[0] if keep else None


def sce(vectors: Sequence[Tensor], weights: Sequence[float], select_topk: float = 1.0) -> Tensor:
    """Return the energy-weighted mean of the selected elements with the sign of their sum.

    SCE (FuseChat): https://arxiv.org/abs/2408.07990. Select: keep the `select_topk` share of elements with the largest
    variance over the models. Calculate: a model's weight is its share of the sum of squares of the kept elements.
    Erase: leave out elements whose sign differs from that of the sum. The weights have no effect.
    """
    import torch

    rows = flat(vectors)
    floor = variance_floor(rows, select_topk) if select_topk < 1 else 0.0
    result = torch.zeros(vectors[0].shape, dtype=torch.float32)
    if floor is None:
        return result
    whole = result.view(-1)

    def selected(block: slice) -> Tensor:
        parts = stacked(rows, block)
        return parts if select_topk >= 1 else parts.mul_(_variance(parts) >= floor)

    energies = torch.zeros(len(rows), dtype=torch.float64)
    for block in blocks(whole.numel()):
        energies += selected(block).double().square_().sum(1)
    if not float(energies.sum()) > 0:
        return result
    shares = (energies / energies.sum()).float()
    for block in blocks(whole.numel()):
        parts = selected(block)
        signs = direction(parts)  # unweighted changes elect the signs
        whole[block] = agreed(parts.mul_(shares[:, None]), shares, signs, normalize=True)
    return result


METHOD = Method(
    name="sce",
    summary="The mean of the changes that differ most between models, weighted by energy, where signs agree.",
    reference="https://arxiv.org/abs/2408.07990",
    base="needed",
    merge=sce,
    parameters={
        "select_topk": Parameter(
            1.0,
            0,
            1,
            "share of the elements to keep, those that vary most between models first",
            zero="keeps nothing of the updates",
        )
    },
    weighted=False,
)

"""Interpolation between what is in service and an update."""

from __future__ import annotations

from torch import Tensor, lerp


def interpolate(current: Tensor, update: Tensor, weight: float) -> Tensor:
    """Return current + weight (update - current).

    With task vectors t = theta - theta_root this is theta_root + (1 - weight) t_current + weight t_update: the
    root cancels, so it is never read and adds no rounding. WiSE-FT (https://arxiv.org/abs/2109.01903) is the
    case in which current is the root.

    Args:
        current: Weights in service, fp32, any shape.
        update: Weights of the update model, fp32, the same shape.
        weight: 0 gives `current` and 1 gives `update`, both bit for bit.
    """
    return lerp(current, update, weight)

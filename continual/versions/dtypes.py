"""The types of weights: what a base model stores, and what an export can store."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from continual.models.base import PACKAGED, resolve_base

if TYPE_CHECKING:
    import torch

    from continual.registry import Version

FP32 = "fp32"

NAMES = {FP32: "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Names of the types in torch, by the values of `export --dtype`."""


def torch_dtype(name: str) -> torch.dtype:
    """Return the type of a value of `export --dtype`."""
    import torch

    dtype: torch.dtype = getattr(torch, NAMES[name])
    return dtype


def stored_dtype(folder: Path) -> str:
    """Return the widest type of the floating-point tensors of a model folder: fp32, bf16 or fp16; fp32 if another."""
    import torch

    from continual.merge.sources import Model

    found = {entry.dtype for entry in Model(folder).entries.values() if entry.dtype.is_floating_point}
    eight_bit = any(dtype.itemsize == 1 for dtype in found)  # torch promotes these to nothing
    widest = torch.float32 if eight_bit or not found else reduce(torch.promote_types, found)
    return next((name for name in NAMES if torch_dtype(name) == widest), FP32)


def base_dtype(root: Version) -> str:
    """Return the type in which the root base came; fp32 if an older release made the workspace and the base is gone."""
    made = root.provenance
    if made.dtype is not None:
        return made.dtype
    if made.base is not None and (made.base == PACKAGED or Path(made.base).is_dir()):
        return stored_dtype(resolve_base(made.base))
    return FP32

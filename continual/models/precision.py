"""The precision that a model computes in: fp32, or bf16 for matrix products alone.

In bf16, sums over tokens, normalisations and softmax stay in fp32, as in mixed-precision training.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from torch import nn

Precision = Literal["fp32", "bf16"]

_CPU_BF16 = {"amx_bf16", "avx512_bf16", "bf16", "avx_ne_convert"}  # flags in /proc/cpuinfo, x86 and ARM


def resolve_precision(
    wanted: Precision | Literal["auto"], device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")
) -> Precision:
    """Return "bf16" or "fp32".

    Args:
        wanted: "fp32", "bf16", or "auto" for bf16 if the hardware supports it natively.
        device: The device that computes.
        cpuinfo: The file in which Linux lists the CPU's features.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type == "cpu":
        try:
            flags = set(cpuinfo.read_text("utf-8", "replace").split())
        except OSError:
            return "fp32"
        return "bf16" if flags & _CPU_BF16 else "fp32"
    return "fp32"


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which matrix products are computed in a precision, in the thread that enters it."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def store_for(model: nn.Module, precision: Precision) -> None:
    """Store the weights of linear layers in a precision, so that `computing` doesn't convert them for each batch."""
    if precision == "bf16":
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.to(torch.bfloat16)

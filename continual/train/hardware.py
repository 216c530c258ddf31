"""Settings that depend on the hardware: the precision, and the size of micro-batches."""

from __future__ import annotations

from pathlib import Path

import torch

from continual.config import TrainConfig

_CPU_TOKENS = 2048  # small enough for the caches: 5 % faster than 4096 on two server cores
_CPU_BF16 = {"amx_bf16", "avx512_bf16", "bf16", "avx_ne_convert"}  # flags in /proc/cpuinfo, x86 and ARM


def resolve_precision(wanted: str, device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return "bf16" or "fp32".

    Args:
        wanted: "fp32", "bf16", or "auto" for bf16 if the hardware supports it natively.
        device: Device of the training.
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


def micro_batch_limit(config: TrainConfig, device: torch.device) -> int:
    """Return the maximum number of padded tokens per micro-batch."""
    return min(config.micro_batch_tokens, _CPU_TOKENS) if device.type == "cpu" else config.micro_batch_tokens

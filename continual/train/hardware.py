"""What the machine computes best: its arithmetic, and how many tokens at once."""

from __future__ import annotations

from pathlib import Path

import torch

from continual.config import TrainConfig

_CPU_TOKENS = 2048  # activations stay near the caches: 5 % faster than 4096 on two server cores
_CPU_BF16 = {"amx_bf16", "avx512_bf16", "bf16", "avx_ne_convert"}  # as /proc/cpuinfo names them, x86 and ARM


def resolve_precision(wanted: str, device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return "bf16" or "fp32".

    Args:
        wanted: "fp32", "bf16" or "auto": bf16 where the hardware computes in it, not where it is emulated.
        device: Where the training runs.
        cpuinfo: Where Linux lists what the CPU can do.
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
    """Return the padded tokens to encode at once, at most."""
    return min(config.micro_batch_tokens, _CPU_TOKENS) if device.type == "cpu" else config.micro_batch_tokens

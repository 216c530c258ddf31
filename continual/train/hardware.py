"""The size of micro-batches, which depends on the hardware."""

from __future__ import annotations

import torch

from continual.config import TrainConfig

_CPU_TOKENS = 2048  # small enough for the caches: 5 % faster than 4096 on two server cores


def micro_batch_limit(config: TrainConfig, device: torch.device) -> int:
    """Return the maximum number of padded tokens per micro-batch."""
    return min(config.micro_batch_tokens, _CPU_TOKENS) if device.type == "cpu" else config.micro_batch_tokens

"""Training: a LoRA update of a text-embedding model, and its fold into full weights.

Knows model folders and Arrow tables, never workspaces. Names are looked up when they are used, so that finding
the packaged base does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from continual.train.encoder import load_encoder
    from continual.train.loop import Estimate, TrainResult, estimate, train
    from continual.train.lora import fold, prove_fold

__all__ = ["Estimate", "TrainResult", "estimate", "fold", "load_encoder", "prove_fold", "train"]

_PLACES = {
    "load_encoder": "encoder",
    "Estimate": "loop",
    "TrainResult": "loop",
    "estimate": "loop",
    "train": "loop",
    "fold": "lora",
    "prove_fold": "lora",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)

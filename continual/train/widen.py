"""A base in half precision becomes fp32 once, when it enters a workspace.

Versions are trained, folded, merged and compared in fp32. A root in half precision would be scored with other
arithmetic than its descendants, and small updates would be lost in its rounding.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from continual.registry.store import weight_files

HALF = (torch.float16, torch.bfloat16)


def widen(model: Path) -> None:
    """Store every fp16 or bf16 tensor of a model folder as fp32, in place; other tensors stay as they are.

    Args:
        model: A sentence-transformers folder.
    """
    for path in weight_files(model):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            metadata = file.metadata()
        if any(tensor.dtype in HALF for tensor in tensors.values()):
            wide = {name: tensor.float() if tensor.dtype in HALF else tensor for name, tensor in tensors.items()}
            save_file(wide, path, metadata=metadata)
            declare_fp32(path.with_name("config.json"))


def declare_fp32(config: Path) -> None:
    """Tell transformers that the weights beside this `config.json` are fp32 now; it may be missing."""
    if config.is_file():
        settings = json.loads(config.read_text(encoding="utf-8"))
        settings.pop("torch_dtype", None)
        config.write_text(json.dumps(settings | {"dtype": "float32"}, indent=2) + "\n", encoding="utf-8")

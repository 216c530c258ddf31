"""Models with other weights, and weights in other files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from continual.models.encoder import load_encoder
from continual.models.weights import weights_sha256
from continual.train.lora import attach, save_adapter


def moved(source: Path, target: Path, seed: int, scale: float = 0.1) -> Path:
    """Copy a model and add noise to its weights."""
    shutil.copytree(source, target)
    generator = torch.Generator().manual_seed(seed)
    for path in target.rglob("*.safetensors"):
        tensors = load_file(path)
        noisy = {
            name: tensor + scale * torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in tensors.items()
        }
        save_file(noisy, path, metadata={"format": "pt"})
    return target


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def shard(model: Path, target: Path, parts: int = 3) -> Path:
    """Copy a model and split its weights over some files, as transformers does."""
    shutil.copytree(model, target)
    tensors = weights(target)
    (target / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {name: f"model-{i % parts + 1:05}-of-{parts:05}.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, target / file, {"format": "pt"})
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": files}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return target


def task_norm(model: Path, base: Path) -> float:
    ours, origin = weights(model), weights(base)
    return float(np.sqrt(sum(((ours[n].double() - origin[n].double()) ** 2).sum() for n in ours)))


def make_adapter(model: Path, folder: Path, seed: int = 0) -> Path:
    """Save an adapter with random factors."""
    encoder = load_encoder(model, device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in attach(encoder, 4, 8, seed):
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    save_adapter(encoder, weights_sha256(model), folder)
    return folder

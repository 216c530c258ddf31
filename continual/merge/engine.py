"""The engine: merges model folders tensor by tensor, in fp32, from safetensors to safetensors."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from continual.errors import ModelError
from continual.merge.methods.interpolate import interpolate
from continual.registry.store import publish, weight_files


def merge_models(current: Path, update: Path, weight: float, out: Path) -> None:
    """Write the model folder current + weight (update - current).

    Everything but the weights (tokenizer, pooling, prompts, maximum length) is the update's, which has it from
    what it was trained on. The arithmetic is fp32, and a result is stored in the wider of the two dtypes.
    Integer tensors, which cannot be averaged, must be equal.

    Args:
        current: Folder of the model in service.
        update: Folder of the update model, with the same tensors.
        weight: Weight of the update, 0 to 1.
        out: Folder to publish; replaced if it is there.

    Raises:
        ModelError: A tensor is missing, or differs in shape; it is named.
    """
    with publish(out) as partial:
        shutil.copytree(update, partial)
        for path in weight_files(update):
            name = path.relative_to(update)
            if not (current / name).is_file():
                raise ModelError(f"{current} has no {name}, and {update} has: they are not the same architecture.")
            _merge_file(current / name, path, weight, partial / name)


def _merge_file(current: Path, update: Path, weight: float, out: Path) -> None:
    merged: dict[str, torch.Tensor] = {}
    with safe_open(current, "pt") as ours, safe_open(update, "pt") as theirs:
        unmatched = set(ours.keys()) ^ set(theirs.keys())
        if unmatched:
            raise ModelError(
                f"{current} and {update} do not hold the same tensors: {', '.join(sorted(unmatched)[:5])}."
            )
        for name in ours.keys():  # noqa: SIM118 - a safetensors file is no mapping
            a, b = ours.get_tensor(name), theirs.get_tensor(name)
            if a.shape != b.shape:
                raise ModelError(f"{name} is {tuple(a.shape)} in {current}, and {tuple(b.shape)} in {update}.")
            if a.is_floating_point():
                dtype = torch.promote_types(a.dtype, b.dtype)
                merged[name] = interpolate(a.float(), b.float(), weight).to(dtype)
            elif torch.equal(a, b):
                merged[name] = a
            else:
                raise ModelError(f"{name} holds integers that differ between {current} and {update}.")
        metadata = ours.metadata()
    save_file(merged, out, metadata=metadata)

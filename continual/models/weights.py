"""The weight files of a model folder, and the SHA-256 that identifies them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from continual.errors import ModelError


def weight_files(model: Path) -> list[Path]:
    """Return the safetensors files of a sentence-transformers folder, in a fixed order, without hidden ones.

    Raises:
        ModelError: The folder has none; pickled weights are never read.
    """
    files = sorted(
        path
        for path in model.rglob("*.safetensors")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(model).parts)
    )
    if not files:
        raise ModelError(
            f"{model} has no safetensors weights, and continual reads no other format. Load the model with "
            "sentence-transformers and save it with `model.save_pretrained(DIR)`."
        )
    return files


def weights_sha256(model: Path) -> str:
    """Return the SHA-256 over the relative names and bytes of the weight files; it identifies a version."""
    digest = hashlib.sha256()
    for path in weight_files(model):
        digest.update(path.relative_to(model).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()

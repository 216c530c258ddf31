"""Variants of the tiny model: other similarities, norms, leading dimensions, types of weights."""

from __future__ import annotations

from pathlib import Path


def variant(
    model: Path,
    folder: Path,
    *,
    similarity: str = "cosine",
    truncate_dim: int | None = None,
    stretch: float | None = None,
    dtype: str | None = None,
) -> Path:
    """Save a variant of a model that ends with a Normalize module.

    Args:
        model: The tiny model.
        folder: The new folder.
        similarity: Its similarity_fn_name.
        truncate_dim: Leading dimensions that it serves.
        stretch: Replaces Normalize by a linear map that adds multiples of the first coordinate to all, so
            that norms vary by text.
        dtype: Type of its weights.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    loaded = SentenceTransformer(str(model), device="cpu")
    modules = list(loaded)
    if stretch is not None:
        weight = torch.eye(32)
        weight[:, 0] += stretch * torch.linspace(-1, 1, 32)
        modules[-1] = Dense(32, 32, bias=False, activation_function=torch.nn.Identity(), init_weight=weight)
    made = SentenceTransformer(
        modules=modules,
        prompts=loaded.prompts,
        similarity_fn_name=similarity,
        truncate_dim=truncate_dim,
        device="cpu",
    )
    if dtype is not None:
        made = made.to(getattr(torch, dtype))
        made[0].auto_model.config.dtype = getattr(torch, dtype)
    made.save_pretrained(str(folder))
    return folder

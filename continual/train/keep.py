"""Keep the embeddings of texts that are not trained on: take out of an adapter what would change them.

An adapter changes what a layer gives for every input that has a part in the rows of A. The texts of the training use
some directions of a layer's inputs, and the texts to keep use others. Here the part of the update in the second ones is
shrunk. So an update is shrunk by direction, where a weight or a lower rate shrinks it everywhere.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from continual.merge.adapters import ADAPTER_PREFIX, ADAPTER_WEIGHTS
from continual.merge.methods.regmean import normalised
from continual.models.activations import Texts, input_grams, linear_layers, passes
from continual.models.encoder import inner_transformer, load_encoder
from continual.models.tensors import Writer, read_header
from continual.progress import SILENT, Progress
from continual.storage.files import publish

OFF_DIAGONAL = 0.95
"""Factor of the elements of a Gram matrix beside its diagonal, as in the paper."""

_A, _B = ".lora_A.weight", ".lora_B.weight"


def projected(a: Tensor, new: Tensor, keep: Tensor, weight: float) -> Tensor:
    """Return A' = A G_new (G_new + weight G_keep)^-1, in float64.

    With it, W + s B A' is the merge by RegMean of the model W + s B A (weight 1, texts of the training) and the model W
    (the given weight, texts to keep): the matrix that changes least what each gives for its own texts.

    Args:
        a: The factor A, (rank, inputs).
        new: G = X' X of the layer's inputs on the texts of the training, (inputs, inputs).
        keep: The same on the texts to keep.
        weight: Weight of the texts to keep, 0 or more; 0 changes nothing.

    Reference: https://arxiv.org/abs/2212.09849
    """
    learned = normalised(new, OFF_DIAGONAL)
    total = learned + weight * normalised(keep, OFF_DIAGONAL)
    shrunk: Tensor = torch.linalg.solve(total, a.double() @ learned, left=False)
    return shrunk


def keep_texts(
    start: Path,
    trained: Path,
    adapter: Path,
    new: Texts,
    keep: Texts,
    weight: float,
    *,
    max_length: int,
    trust_remote_code: bool = False,
    progress: Progress = SILENT,
) -> float:
    """Project an adapter, so that it changes the embeddings of the texts to keep less.

    The same models and texts give the same bytes, whatever the number of cores.

    Args:
        start: The folder that the adapter was trained on.
        trained: That model with the adapter folded in.
        adapter: The adapter as `save_adapter` wrote it; it is replaced.
        new: Texts of the training.
        keep: Texts to keep.
        weight: Weight of the texts to keep, above 0; see `projected`.
        max_length: Most tokens per text.
        trust_remote_code: Run code that the model brings with it.
        progress: A bar over the texts, of all passes.

    Returns:
        The norm of the update, divided by its norm before.
    """
    entries, metadata = read_header(adapter / ADAPTER_WEIGHTS)
    factors = {name: entry.read() for name, entry in entries.items()}
    before = after = 0.0
    models = [load_encoder(folder, trust_remote_code=trust_remote_code) for folder in (trained, start)]
    for model in models:
        model.max_seq_length = min(max_length, model.max_seq_length or max_length)
    inner = {id(module): name for name, module in inner_transformer(models[1]).named_modules()}
    layers = {
        name: f"{ADAPTER_PREFIX}{inner[id(module)]}"
        for name, module in linear_layers(models[1]).items()
        if f"{ADAPTER_PREFIX}{inner.get(id(module))}{_A}" in factors
    }
    both = [
        input_grams(model, texts.tokens(model), layers, progress=progress)
        for model, texts in zip(models, (new, keep), strict=True)
    ]
    progress.start("collecting layer inputs", (len(new) + len(keep)) * passes(models[0], layers), "texts")
    for (name, learned), (_, kept) in zip(*both, strict=True):
        layer = layers[name]
        a, b = factors[layer + _A], factors[layer + _B]
        shrunk = projected(a, learned, kept, weight).float()
        before, after = before + _squared_norm(a, b), after + _squared_norm(shrunk, b)
        factors[layer + _A] = shrunk.contiguous()
    progress.finish()
    _replace_factors(adapter, factors, metadata)
    return float((after / before) ** 0.5) if before else 1.0


def _squared_norm(a: Tensor, b: Tensor) -> float:
    """Return |B A|^2 from the two small products."""
    return float(((b.double().T @ b.double()) * (a.double() @ a.double().T)).sum())


def _replace_factors(adapter: Path, factors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Publish the adapter's folder with other factors and the same settings."""
    others = {path.name: path.read_bytes() for path in adapter.iterdir() if path.name != ADAPTER_WEIGHTS}
    with publish(adapter) as partial:
        partial.mkdir()
        for name, content in others.items():
            (partial / name).write_bytes(content)
        shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in factors.items()}
        with Writer(partial / ADAPTER_WEIGHTS, shapes, metadata) as writer:
            for name, tensor in factors.items():
                writer.write(name, tensor)

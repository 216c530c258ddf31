"""What the linear layers of a model to merge get as their inputs on some texts, by the keys of its tensors.

The matrices lie in files, so that the memory of a merge does not grow with the number of layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from continual.errors import ModelError
from continual.merge.sources import Model
from continual.models.activations import Texts, input_grams, linear_layers, passes
from continual.models.complete import depends_on
from continual.models.encoder import inner_transformer, load_encoder
from continual.models.folder import read_modules
from continual.progress import SILENT, Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def write_grams(model: Model, texts: Texts, folder: Path, progress: Progress = SILENT) -> dict[str, Path]:
    """Encode texts with a model, and write the Gram matrix of the inputs of each linear layer to a file.

    Layers that no embedding depends on, such as a pooler that is not used, are left out.

    Args:
        model: A model folder; an adapter must be folded into it before.
        texts: The texts to encode.
        folder: Folder for the files; it must not exist.
        progress: A bar over the texts.

    Returns:
        The file of each layer, by the key of the layer's weight.

    Raises:
        ModelError: The model cannot be loaded, or its layers have other names than its weights.
    """
    encoder = load_encoder(model.folder)
    layers = {name: layer.weight for name, layer in linear_layers(encoder).items()}
    keys = {name: _key(model, encoder, name) for name in depends_on(encoder, layers)}
    if not keys:
        raise ModelError(
            f"{model} has no linear layer that its embeddings depend on (GPT-2's are Conv1D), so a merge by what its "
            "layers get would be the plain mean. Use --method linear."
        )
    tokens = texts.tokens(encoder)
    folder.mkdir()
    files: dict[str, Path] = {}
    progress.start("collecting layer inputs", len(texts) * passes(encoder, keys), "texts")
    for name, gram in input_grams(encoder, tokens, keys, progress=progress):
        file = folder / f"{len(files)}.npy"
        np.save(file, gram.numpy())
        files[keys[name]] = file
    progress.finish()
    return files


def read_gram(files: Mapping[str, Path], key: str) -> Tensor | None:
    """Return the Gram matrix of a tensor, (inputs, inputs) in float64; None if it is not the weight of a layer."""
    return torch.from_numpy(np.load(files[key])) if key in files else None


def _key(model: Model, encoder: SentenceTransformer, name: str) -> str:
    """Return the key of the weight of a layer, named as in `encoder.named_modules()`."""
    layer = encoder.get_submodule(name)
    inner = {id(module): inside for inside, module in inner_transformer(encoder).named_modules()}
    if id(layer) in inner:
        whole = f"{inner[id(layer)]}.weight"
        wanted = [whole, whole.partition(".")[2]]  # a key has no prefix that all names of the transformer share
    else:
        place, _, rest = name.partition(".")
        module = read_modules(model.folder)[[*dict(encoder.named_children())].index(place)]
        wanted = [(Path(module.path) / f"{rest}.weight").as_posix()]
    for key in wanted:
        if key in model.entries and model.entries[key].shape == tuple(layer.weight.shape):
            return key
    raise ModelError(
        f"{model} stores no tensor for its layer {name}: transformers gives its layers other names as it loads them. "
        f"Store it under these names with `continual init DIR --base {model}` and `continual export v0 -w DIR --out "
        "MODEL`, and name MODEL."
    )

"""LoRA: attach it to the linear layers of a model, save it in peft's format, and fold it into full weights.

Reference: https://arxiv.org/abs/2106.09685
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from continual.errors import FoldError, ModelError
from continual.merge.adapters import (
    ADAPTER_CONFIG,
    ADAPTER_PREFIX,
    ADAPTER_WEIGHTS,
    TRAINED_ON,
)
from continual.merge.engine import save_model
from continual.merge.sources import Adapted
from continual.models.complete import depends_on
from continual.models.encoder import inner_transformer, load_encoder
from continual.models.tensors import Writer
from continual.storage.files import publish

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TOLERANCE = 1e-5
"""Largest allowed difference between embeddings of the folded model and of the model with its adapter."""


def attach(model: SentenceTransformer, rank: int, alpha: float, seed: int) -> list[tuple[str, nn.Parameter]]:
    """Freeze a model and attach LoRA to the linear layers of its transformer, in place.

    The layers are all `nn.Linear` modules of the transformer that the embedding depends on, found by their gradients.
    A pooler head whose output is not used gets no LoRA.

    Args:
        model: A model as `load_encoder` returns it.
        rank: Rank r of the factors.
        alpha: Alpha of the update, which is alpha / r * B A per layer.
        seed: Seed of the start values of A. B starts at zero, so that training starts from the model itself.

    Returns:
        The factors, which are all trained parameters, with their names, in a fixed order.

    Raises:
        ModelError: The transformer has no such layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    inner = inner_transformer(model)
    targets = _linear_layers(model, inner)
    model.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, inner)
    model.eval()
    return sorted((name, parameter) for name, parameter in inner.named_parameters() if parameter.requires_grad)


def _linear_layers(model: SentenceTransformer, inner: nn.Module) -> list[str]:
    layers = {name: module for name, module in inner.named_modules() if type(module) is nn.Linear}
    used = depends_on(model, {name: layer.weight for name, layer in layers.items()})
    names = [name for name in layers if name in used]
    if not names:
        convolutions = any(type(module).__name__ == "Conv1D" for module in inner.modules())
        raise ModelError(
            f"{type(inner).__name__} has no linear layer that its embeddings depend on, so LoRA cannot train it"
            f"{': its layers are Conv1D, which is not supported' if convolutions else ''}. Choose another base model."
        )
    return names


def save_adapter(model: SentenceTransformer, trained_on: str, directory: Path) -> None:
    """Publish the LoRA factors as a folder that `PeftModel.from_pretrained(AutoModel, directory)` loads.

    Equal factors give equal bytes. The weights file stores `trained_on`, the sha256 of the model that the adapter was
    trained on, so that it is not folded into another model.
    """
    from peft import get_peft_model_state_dict

    inner = inner_transformer(model)
    config = next(iter(inner.peft_config.values())).to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    config["inference_mode"] = True
    state = get_peft_model_state_dict(inner)
    tensors = {
        ADAPTER_PREFIX + name: value.detach().float().cpu().contiguous() for name, value in sorted(state.items())
    }
    with publish(directory) as partial:
        partial.mkdir()
        (partial / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n", "utf-8")
        # safetensors' `save_file` writes metadata entries in random order.
        metadata = {"format": "pt", TRAINED_ON: trained_on}
        shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        with Writer(partial / ADAPTER_WEIGHTS, shapes, metadata) as writer:
            for name, tensor in tensors.items():
                writer.write(name, tensor)


def fold(start: Path, adapter: Path, out: Path) -> None:
    """Publish a copy of the model folder `start` with the adapter folded into its weights, in fp32.

    All other tensors and files are copied, so the result has the prompts, pooling, tokenizer and maximum length of
    `start`.

    Args:
        start: The sentence-transformers folder that the adapter was trained on.
        adapter: A LoRA, rsLoRA or DoRA adapter in peft's format (see `continual.merge.sources.Adapted`).
        out: The folder to publish; an existing one is replaced.

    Raises:
        ModelError: The adapter does not belong to this model.
    """
    save_model(Adapted(start, adapter), out, torch.float32)


def prove_fold(start: Path, adapter: Path, folded: Path, texts: list[str], *, trust_remote_code: bool = False) -> float:
    """Check that a folded model encodes like the start model with its adapter, and unlike the start model alone.

    Args:
        start: The folder that the adapter was trained on.
        adapter: The adapter as `save_adapter` wrote it. Here peft applies it, not our own code.
        folded: The model as `fold` wrote it.
        texts: A few texts to encode.
        trust_remote_code: Run code that the models bring with them.

    Returns:
        Largest absolute difference between the two embeddings of a text, divided by the largest norm of an embedding.

    Raises:
        FoldError: The difference is above 1e-5, or the adapter changes no embedding.
    """
    from peft import PeftModel

    model = load_encoder(start, trust_remote_code=trust_remote_code)
    before = torch.as_tensor(model.encode(texts, show_progress_bar=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses a name that transformers has deprecated
        PeftModel.from_pretrained(inner_transformer(model), str(adapter))  # works in place
    adapted = torch.as_tensor(model.encode(texts, show_progress_bar=False))
    del model
    model = load_encoder(folded, trust_remote_code=trust_remote_code)
    after = torch.as_tensor(model.encode(texts, show_progress_bar=False))
    difference = float((after - adapted).abs().max() / adapted.norm(dim=-1).max())
    if not difference <= TOLERANCE:  # also when it is not a number
        raise FoldError(
            f"{folded} does not encode like {start} with its adapter: embeddings differ by {difference:.2g}, but at "
            f"most {TOLERANCE:g} is allowed. Lower train.learning_rate, which may be too high, and train again."
        )
    if torch.equal(before, adapted):
        raise FoldError(
            f"The adapter {adapter} changes no embedding of {start}, so nothing was learned. Raise "
            "train.learning_rate, or train on more rows."
        )
    return difference

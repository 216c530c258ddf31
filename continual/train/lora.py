"""LoRA: put on every linear layer that the embedding depends on, saved for peft, folded into full weights.

Reference: https://arxiv.org/abs/2106.09685
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from continual.errors import FoldError, ModelError
from continual.registry.base import UNUSED
from continual.registry.store import publish
from continual.train.encoder import embed, inner_transformer, load_encoder
from continual.train.widen import HALF, declare_fp32

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # what PeftModel puts before the names of the model it wraps

TOLERANCE = 1e-5


def attach(model: SentenceTransformer, rank: int, alpha: float, seed: int) -> list[tuple[str, nn.Parameter]]:
    """Freeze a model and put LoRA on all linear layers of its transformer; in place.

    Which layers these are is found, not named: every `nn.Linear` of the transformer that a gradient of the
    embedding reaches. A pooler head whose output no module uses is left out.

    Args:
        model: As `load_encoder` gives it.
        rank: Rank r of the factors.
        alpha: The update of a layer is alpha / r * B A.
        seed: Of the start values of A; B starts at zero, so that training starts from the model itself.

    Returns:
        The factors with their names, in a fixed order: all that is trained.

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
    weights = [layer.weight for layer in layers.values()]
    for weight in weights:
        weight.requires_grad_(True)
    features = {
        name: value.to(model.device) if isinstance(value, Tensor) else value
        for name, value in model.preprocess(["a"]).items()
    }
    total = embed(model, features).sum()
    reached = torch.autograd.grad(total, weights, allow_unused=True) if weights and total.requires_grad else []
    found = [name for name, gradient in zip(layers, reached, strict=False) if gradient is not None]
    if not found:
        raise ModelError(f"{type(inner).__name__} has no linear layer that its embeddings depend on; nothing to train.")
    return found


def save_adapter(model: SentenceTransformer, directory: Path) -> None:
    """Publish the LoRA factors as a folder that `PeftModel.from_pretrained(AutoModel, directory)` loads.

    Equal factors give equal bytes.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    inner = inner_transformer(model)
    config = next(iter(inner.peft_config.values())).to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    config["inference_mode"] = True
    state = get_peft_model_state_dict(inner)
    tensors = {_PREFIX + name: value.detach().float().cpu().contiguous() for name, value in sorted(state.items())}
    with publish(directory) as partial:
        partial.mkdir()
        (partial / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n", "utf-8")
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})


def fold(start: Path, adapter: Path, out: Path) -> None:
    """Publish the model folder `start` with the adapter added to its weights.

    W becomes W + alpha / r * B A, computed and stored in fp32, for each layer of the adapter. All other tensors
    keep their values, and all other files are copied, so prompts, pooling, tokenizer and maximum length are the
    start's. A start stored in half precision becomes fp32 throughout: a small update would be lost in its
    rounding.

    Args:
        start: The sentence-transformers folder that was trained from.
        adapter: As `save_adapter` wrote it.
        out: The folder to publish; replaced if it is there.

    Raises:
        ModelError: The adapter does not belong to this model.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    place = _transformer_folder(start)
    deltas = _deltas(adapter)
    files = sorted((start / place).glob("*.safetensors"))
    names = {}
    for file in files:
        with safe_open(file, "pt") as tensors:
            names.update(dict.fromkeys(tensors.keys(), file))
    targets = {_find(layer, names, start): delta for layer, delta in deltas.items()}
    with publish(out) as partial:
        shutil.copytree(start, partial, ignore=shutil.ignore_patterns(*UNUSED))
        widened = False
        for file in files:
            with safe_open(file, "pt") as tensors:
                metadata = tensors.metadata()
                stored = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
            for name, value in stored.items():
                if value.dtype in HALF:
                    stored[name], widened = value.float(), True
                if name in targets:
                    if value.shape != targets[name].shape:
                        raise ModelError(
                            f"{adapter} does not belong to {start}: {name} has shape {list(value.shape)}, "
                            f"its update {list(targets[name].shape)}."
                        )
                    stored[name] = stored[name] + targets[name]
            save_file(stored, partial / place / file.name, metadata=metadata)
        if widened:
            declare_fp32(partial / place / "config.json")


def prove_fold(start: Path, adapter: Path, folded: Path, texts: list[str], *, trust_remote_code: bool = False) -> float:
    """Show that the folded model is the start with its adapter, and not the start.

    Args:
        start: The folder that was trained from.
        adapter: As `save_adapter` wrote it; peft applies it here, not our own code.
        folded: As `fold` wrote it.
        texts: A few texts.
        trust_remote_code: Run code that the models bring with them.

    Returns:
        Largest absolute difference between the two embeddings of a text, as a share of the longest embedding: for
        embeddings of length one, the difference itself.

    Raises:
        FoldError: It is above 1e-5, or the adapter changes no embedding at all.
    """
    from peft import PeftModel

    model = load_encoder(start, trust_remote_code=trust_remote_code)
    before = torch.as_tensor(model.encode(texts, show_progress_bar=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is going away
        PeftModel.from_pretrained(inner_transformer(model), str(adapter))  # works in place
    adapted = torch.as_tensor(model.encode(texts, show_progress_bar=False))
    del model
    model = load_encoder(folded, trust_remote_code=trust_remote_code)
    after = torch.as_tensor(model.encode(texts, show_progress_bar=False))
    difference = float((after - adapted).abs().max() / adapted.norm(dim=-1).max())
    if not difference <= TOLERANCE:  # also when it is not a number
        raise FoldError(
            f"{folded} does not encode as {start} with its adapter does: embeddings differ by {difference:.2g}, "
            f"allowed are {TOLERANCE:g}. The learning rate may have been too high; lower train.learning_rate."
        )
    if torch.equal(before, adapted):
        raise FoldError(f"The adapter {adapter} changes no embedding of {start}: nothing was learned.")
    return difference


def _transformer_folder(model: Path) -> str:
    modules: list[dict[str, str]] = json.loads((model / "modules.json").read_text("utf-8"))
    return modules[0]["path"]


def _deltas(adapter: Path) -> dict[str, Tensor]:
    """Return alpha / r * B A in fp32 by layer name."""
    from safetensors.torch import load_file

    config: dict[str, Any] = json.loads((adapter / CONFIG).read_text("utf-8"))
    if config.get("use_dora") or config.get("use_rslora") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise ModelError(f"{adapter} uses a variant of LoRA that cannot be folded here; plain LoRA can.")
    scale = config["lora_alpha"] / config["r"]
    factors = load_file(adapter / WEIGHTS)
    deltas = {}
    for name, a in factors.items():
        layer, found, _ = name.removeprefix(_PREFIX).partition(".lora_A.")
        if found:
            b = factors[name.replace(".lora_A.", ".lora_B.")]
            deltas[layer] = scale * (b.float() @ a.float())
    return deltas


def _find(layer: str, names: dict[str, Path], start: Path) -> str:
    """Return the stored name of a layer's weight; a checkpoint may put the name of a wrapper before it."""
    wanted = f"{layer}.weight"
    found = [wanted] if wanted in names else [name for name in names if name.endswith(f".{wanted}")]
    if len(found) != 1:
        raise ModelError(
            f"The weights in {start} hold {'several tensors' if found else 'no tensor'} for the layer {layer}. "
            "Load the model once with sentence-transformers and save it with `model.save_pretrained(DIR)`."
        )
    return found[0]

"""What the engine reads from: a model folder, or a folder with a LoRA adapter folded in as it is read.

A tensor's key says what it is, wherever it is stored: `encoder.layer.0...` in the transformer, `2_Dense/linear.weight`
in another module. How a module is split into files does not matter, nor the folder of the transformer (some versions
of sentence-transformers have `0_Transformer`), nor a word that all its names begin with (`bert.`, `model.`).
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from continual.errors import ModelError
from continual.merge.files import Entry, read_header
from continual.registry.store import weight_files, weights_sha256

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TRAINED_ON = "trained_on_sha256"
"""Where an adapter's weights file keeps the identity of the model that it was trained on; peft's own do not."""
ADAPTER_PREFIX = "base_model.model."
"""What a PeftModel puts before the names of the model it wraps."""


class Model:
    """The weights of a sentence-transformers folder, read tensor by tensor.

    Args:
        folder: The folder.

    Attributes:
        transformer: Folder of its transformer, relative to the model's.
        files: Per weight file, relative to the folder: the keys of its tensors, and its metadata.
        entries: Where each tensor lies, by key.

    Raises:
        ModelError: It has no safetensors weights, or a file cannot be read, or a tensor is in two files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self.files: dict[Path, tuple[list[str], dict[str, str]]] = {}
        self.transformer = transformer_folder(folder)
        headers = {path.relative_to(folder): read_header(path) for path in weight_files(folder)}
        names = [name for place, (found, _) in headers.items() if place.parent == self.transformer for name in found]
        wrapper = _common_word(names)
        for place, (found, metadata) in headers.items():
            inside = place.parent == self.transformer
            keys = {
                name.removeprefix(wrapper) if inside else (place.parent / name).as_posix(): entry
                for name, entry in found.items()
            }
            twice = self.entries.keys() & keys.keys()
            if twice:
                raise ModelError(f"{folder} holds {min(twice)} in {place} and in another file. Remove one of the two.")
            self.entries |= keys
            self.files[place] = (list(keys), metadata)

    def read(self, key: str) -> Tensor:
        """Return a tensor in memory of its own."""
        return self.entries[key].read()

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the folder's weight files, as versions are known by."""
        return weights_sha256(self.folder)

    def __str__(self) -> str:
        return str(self.folder)


class Adapted(Model):
    """A model folder with a LoRA, rsLoRA or DoRA adapter folded into its weights.

    With s = alpha / r (rsLoRA: alpha / sqrt(r)) a layer's weight W becomes V = W + s B A; with DoRA every row of V
    is scaled to the length that the adapter learned for it. References: https://arxiv.org/abs/2106.09685 (LoRA),
    https://arxiv.org/abs/2312.03732 (rsLoRA), https://arxiv.org/abs/2402.09353 (DoRA).

    Args:
        folder: The model that the adapter was trained on.
        adapter: A folder as peft saves it.

    Raises:
        ModelError: The adapter is of another kind, or does not belong to this model.
    """

    def __init__(self, folder: Path, adapter: Path) -> None:
        super().__init__(folder)
        self.adapter = adapter
        self._config: dict[str, Any] = _adapter_config(adapter)
        self._factors, metadata = read_header(adapter / ADAPTER_WEIGHTS)
        self.trained_on = metadata.get(TRAINED_ON)
        self._layers = {self._key(layer): layer for layer in _layers(self._factors, adapter)}
        for key, layer in self._layers.items():
            a, b = (self._factor(layer, part) for part in ("lora_A.weight", "lora_B.weight"))
            shape = (b.shape[0], a.shape[1])
            if self.entries[key].shape != (shape[::-1] if self._config.get("fan_in_fan_out") else shape):
                raise ModelError(
                    f"{adapter} does not belong to {folder}: {key} has shape {list(self.entries[key].shape)}, its "
                    f"update {list(shape)}."
                )

    def read(self, key: str) -> Tensor:
        """Return a tensor in memory of its own; in fp32 with the update added where the adapter has one."""
        tensor = super().read(key)
        layer = self._layers.get(key)
        if layer is None:
            return tensor
        a, b = (self._factor(layer, part).read().float() for part in ("lora_A.weight", "lora_B.weight"))
        update = (b @ a).mul_(self._scale(layer))
        folded = tensor.float().add_(update.T if self._config.get("fan_in_fan_out") else update)
        if self._config.get("use_dora"):
            length = self._factor(layer, "lora_magnitude_vector").read().float()
            folded.mul_((length / folded.norm(dim=1))[:, None])
        return folded

    def __str__(self) -> str:
        return f"{self.folder} with {self.adapter}"

    @cached_property
    def _rank_patterns(self) -> tuple[dict[str, int], dict[str, float]]:
        return self._config.get("rank_pattern") or {}, self._config.get("alpha_pattern") or {}

    def _scale(self, layer: str) -> float:
        ranks, alphas = self._rank_patterns
        rank = _of_pattern(ranks, layer, self._config["r"])
        alpha = _of_pattern(alphas, layer, self._config["lora_alpha"])
        return float(alpha / rank**0.5 if self._config.get("use_rslora") else alpha / rank)

    def _factor(self, layer: str, part: str) -> Entry:
        name = f"{ADAPTER_PREFIX}{layer}.{part}"
        found = self._factors.get(name) or self._factors.get(f"{name}.weight")  # peft has had both for DoRA
        if found is None:
            raise ModelError(f"{self.adapter} has no {name}: its adapter is not complete.")
        return found

    def _key(self, layer: str) -> str:
        """Return the key of a layer's weight; a checkpoint may put the name of a wrapper before it."""
        keys = [key for file, (keys, _) in self.files.items() if file.parent == self.transformer for key in keys]
        names, wanted = {self.entries[key].name: key for key in keys}, f"{layer}.weight"
        found = [names[wanted]] if wanted in names else [names[name] for name in names if name.endswith(f".{wanted}")]
        if len(found) != 1:
            raise ModelError(
                f"The weights in {self.folder} hold {'several tensors' if found else 'no tensor'} for the layer "
                f"{layer} of {self.adapter}. Load the model once with sentence-transformers and save it with "
                "`model.save_pretrained(DIR)`."
            )
        return found[0]


def transformer_folder(model: Path) -> Path:
    """Return the folder of a model's transformer, relative to the model's."""
    modules: list[dict[str, str]] = json.loads((model / "modules.json").read_text("utf-8"))
    return Path(modules[0]["path"])


def _common_word(names: list[str]) -> str:
    """Return the word, with its dot, that all names begin with, or an empty string."""
    words = {name.partition(".")[0] for name in names if "." in name}
    return f"{words.pop()}." if len(words) == 1 and all("." in name for name in names) else ""


def _adapter_config(adapter: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((adapter / ADAPTER_CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{adapter} is no PEFT adapter: {ADAPTER_CONFIG} cannot be read ({error}).") from None
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f"{adapter} has no {ADAPTER_WEIGHTS}; pickled adapters are never read.")
    kind = config.get("peft_type", "LORA")
    if kind != "LORA" or config.get("lora_bias") or config.get("bias", "none") != "none":
        raise ModelError(f"{adapter} is {kind} with trained biases or of another kind; LoRA, rsLoRA and DoRA can fold.")
    start = str(config.get("init_lora_weights", True)).lower()
    if start.startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
        raise ModelError(
            f"{adapter} was trained from weights that its start ({start}) had changed. Convert it to plain LoRA with "
            "peft first."
        )
    if config.get("use_dora") and config.get("fan_in_fan_out"):
        raise ModelError(f"{adapter} is a DoRA of transposed layers (fan_in_fan_out), which cannot be folded here.")
    return config


def _layers(factors: dict[str, Entry], adapter: Path) -> list[str]:
    layers = []
    for name in factors:
        layer, _, part = name.removeprefix(ADAPTER_PREFIX).partition(".lora_")
        if part == "A.weight":
            layers.append(layer)
        elif part not in ("B.weight", "magnitude_vector", "magnitude_vector.weight"):
            raise ModelError(f"{adapter} holds {name}, which is no LoRA factor of a linear layer and cannot be folded.")
    if not layers:
        raise ModelError(f"{adapter} holds no LoRA factors.")
    return layers


def _of_pattern(patterns: dict[str, Any], layer: str, default: Any) -> Any:
    """Return what patterns say of a layer; as in peft, one is a regular expression for the end of its name."""
    return next((value for name, value in patterns.items() if re.fullmatch(rf"(.*\.)?({name})", layer)), default)

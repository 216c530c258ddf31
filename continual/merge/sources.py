"""Inputs of the merge engine: a model folder, or a model folder with a LoRA adapter folded in as it is read.

A tensor's key does not depend on how the model is stored: `encoder.layer.0...` in the transformer,
`2_Dense/linear.weight` in another module. It leaves out the weight file, the folder of the transformer (some versions
of sentence-transformers have `0_Transformer`) and a prefix that all names of the transformer share (`bert.`, `model.`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from torch import Tensor

from continual.errors import ModelError
from continual.merge.adapters import (
    ADAPTER_PREFIX,
    ADAPTER_WEIGHTS,
    FOLD_WITH_PEFT,
    TRAINED_ON,
    read_adapter,
)
from continual.models.folder import (
    CONFIG,
    INDEX,
    read_index,
    read_json,
    read_modules,
    whole_file,
)
from continual.models.tensors import Entry, is_finite, read_header
from continual.models.weights import weight_files, weights_sha256

_logger = logging.getLogger(__name__)

_WRAPPERS = {"base_model", "model", "module", "0", "auto_model", "transformers_model", "encoder_model"}
"""Names of a transformer within the models that it is trained in."""


class Model:
    """The weights of a sentence-transformers folder, read tensor by tensor.

    Attributes:
        transformer: Folder of the transformer, relative to `folder`.
        files: The keys of the tensors and the metadata of each weight file, by its path relative to `folder`.
        entries: Where each tensor is stored, by key.

    Raises:
        ModelError: There are no safetensors weights, a file is missing or unreadable, or two files hold one tensor.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self.files: dict[Path, tuple[list[str], dict[str, str]]] = {}
        self.transformer = transformer_folder(folder)
        headers = {path.relative_to(folder): read_header(path) for path in weight_files(folder)}
        names = [name for path, (stored, _) in headers.items() if path.parent == self.transformer for name in stored]
        prefix = _common_prefix(names)
        for path, (stored, metadata) in headers.items():
            inside = path.parent == self.transformer
            keys = {
                name.removeprefix(prefix) if inside else (path.parent / name).as_posix(): entry
                for name, entry in stored.items()
            }
            duplicates = self.entries.keys() & keys.keys()
            if duplicates:
                raise ModelError(
                    f"{folder} holds the tensor {min(duplicates)} in {path} and in another file, so it is unclear "
                    "which one counts. Remove one of the two files."
                )
            self.entries |= keys
            self.files[path] = (list(keys), metadata)
        self._check_indices(headers)

    def _check_indices(self, headers: Mapping[Path, tuple[dict[str, Entry], dict[str, str]]]) -> None:
        """Check that every tensor is in the weight file that the index of its module names."""
        for module in {file.parent for file in headers}:
            for index in (self.folder / module).glob(INDEX):
                if whole_file(index).is_file():
                    continue  # an outdated index: the whole file is loaded
                for name, file in read_index(index).items():
                    if name not in headers[module / file][0]:
                        raise ModelError(
                            f"{index} says that the tensor {name} is in {file}, but it is not there. Copy the model "
                            "again."
                        )

    def read(self, key: str) -> Tensor:
        """Return a copy of a tensor.

        Raises:
            ModelError: The file is cut short, or a value is not finite.
        """
        return self._check_finite(key, self.entries[key].read())

    def _check_finite(self, key: str, tensor: Tensor) -> Tensor:
        if not is_finite(tensor):
            raise ModelError(
                f"{key} of {self} holds values that are infinite or not a number (NaN). Its training diverged, or the "
                "file is damaged. Train the model again with a lower learning rate, or copy it again."
            )
        return tensor

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the weight files, which identifies the model."""
        return weights_sha256(self.folder)

    def __str__(self) -> str:
        return str(self.folder)


class Adapted(Model):
    """A model folder with a LoRA, rsLoRA or DoRA adapter folded into its weights.

    With s = alpha / r (rsLoRA: alpha / sqrt(r)) a layer's weight W becomes V = W + s B A. With DoRA every row of V
    is then scaled to its learned length. References: https://arxiv.org/abs/2106.09685 (LoRA),
    https://arxiv.org/abs/2312.03732 (rsLoRA), https://arxiv.org/abs/2402.09353 (DoRA).

    Args:
        folder: The model that the adapter was trained on.
        adapter: An adapter folder in peft's format.

    Raises:
        ModelError: The adapter has a type that cannot be folded, or does not belong to this model.
    """

    def __init__(self, folder: Path, adapter: Path) -> None:
        super().__init__(folder)
        self.adapter = adapter
        self.config = read_adapter(adapter)
        self._factors, metadata = read_header(adapter / ADAPTER_WEIGHTS)
        self.trained_on = metadata.get(TRAINED_ON)
        # peft puts its prefix before the names, but a bare state dict of an adapter has none.
        self._prefix = ADAPTER_PREFIX if all(name.startswith(ADAPTER_PREFIX) for name in self._factors) else ""
        self._layers: dict[str, str] = {}
        for layer in _layers(self._factors, self._prefix, adapter):
            key = self._key(layer)
            if key in self._layers:
                raise ModelError(
                    f"{adapter} has two updates for {key}: {self._layers[key]} and {layer}. It is unclear which one "
                    "counts. Copy the adapter again, or save it again with peft."
                )
            self._layers[key] = layer
            self._check_factors(key, layer)
        self.config.check_targets(self._layers.values())
        if any(self._transposed(key) != self.config.transposed for key in self._layers):
            _logger.warning(
                "%s says fan_in_fan_out: %s, but the layers of %s are stored the other way, so the adapter is folded "
                "that way, as peft does.",
                self.config.path,
                str(self.config.transposed).lower(),
                folder,
            )

    def _check_factors(self, key: str, layer: str) -> None:
        """Check that the factors of a layer fit its weight and have the rank in the settings, which sets the scale."""
        a, b = (self._factor(layer, part).shape for part in ("lora_A.weight", "lora_B.weight"))
        if len(a) != 2 or len(b) != 2:
            raise ModelError(
                f"{self.adapter} cannot be folded here: the factors of {layer} have shapes {list(a)} and {list(b)}, "
                f"but only matrices (linear layers) are supported. {FOLD_WITH_PEFT}"
            )
        rank, shape = self.config.rank_of(layer), (b[0], a[1])
        if not a[0] == b[1] == rank:
            actual = f"{a[0]}" if a[0] == b[1] else f"{a[0]} and {b[1]}"
            raise ModelError(
                f"{self.config.path} says rank {rank} for {layer}, but its factors have rank {actual}, so the scale "
                "would be wrong. Restore the settings that were saved with these weights."
            )
        transposed = self._transposed(key)
        if transposed and self.config.dora:
            raise ModelError(
                f"{self.adapter} cannot be folded here: it is a DoRA, but {layer} stores its weights as [inputs, "
                f"outputs]. {FOLD_WITH_PEFT}"
            )
        if self.entries[key].shape != (shape[::-1] if transposed else shape):
            raise ModelError(
                f"{self.adapter} does not belong to {self.folder}: {key} has shape {list(self.entries[key].shape)}, "
                f"but its update has {list(shape)}. Name the model that the adapter was trained on."
            )
        if self.config.dora and self._factor(layer, "lora_magnitude_vector").shape != shape[:1]:
            raise ModelError(
                f"The DoRA magnitudes of {layer} in {self.adapter} do not have one value for each of its {shape[0]} "
                "rows. Copy the adapter again."
            )

    def read(self, key: str) -> Tensor:
        """Return a copy of a tensor; if the adapter updates it, in fp32 and with the update added."""
        tensor = super().read(key)
        layer = self._layers.get(key)
        if layer is None:
            return tensor
        a, b = (self._factor(layer, part).read().float() for part in ("lora_A.weight", "lora_B.weight"))
        update = (b @ a).mul_(self.config.scale_of(layer))
        folded = tensor.float().add_(update.T if self._transposed(key) else update)
        if self.config.dora:
            length = self._factor(layer, "lora_magnitude_vector").read().float()
            folded.mul_((length / folded.norm(dim=1))[:, None])
        return self._check_finite(key, folded)

    def _transposed(self, key: str) -> bool:
        """Return whether a layer stores its weights as [inputs, outputs], as Conv1D of transformers (GPT-2) does.

        The layer decides, not `fan_in_fan_out`, which peft corrects. The bias of a Conv1D has one value for each column
        of its weights. A square layer is one if others of the model are.
        """
        shape = self.entries[key].shape
        return self._bias_fits_columns(key) and (shape[0] != shape[1] or self._has_conv1d)

    @cached_property
    def _has_conv1d(self) -> bool:
        return any(self._bias_fits_columns(key) for key, e in self.entries.items() if len(set(e.shape)) == 2)

    def _bias_fits_columns(self, key: str) -> bool:
        shape, bias = self.entries[key].shape, self.entries.get(f"{key.removesuffix('.weight')}.bias")
        return len(shape) == 2 and bias is not None and bias.shape == shape[1:]

    def __str__(self) -> str:
        return f"{self.folder} with {self.adapter}"

    def _factor(self, layer: str, part: str) -> Entry:
        name = f"{self._prefix}{layer}.{part}"
        factor = self._factors.get(name) or self._factors.get(f"{name}.weight")  # peft has written both for DoRA
        if factor is None:
            raise ModelError(f"{self.adapter} has no tensor {name}: the adapter is incomplete. Copy it again.")
        return factor

    def _key(self, layer: str) -> str:
        """Return the key of a layer's weight. The name in the weight file may have a prefix."""
        keys = [key for file, (keys, _) in self.files.items() if file.parent == self.transformer for key in keys]
        names, wanted = {self.entries[key].name: key for key in keys}, f"{self._unwrapped(layer, keys)}.weight"
        if wanted in keys and wanted not in names:
            return wanted
        matches = [names[wanted]] if wanted in names else [names[name] for name in names if name.endswith(f".{wanted}")]
        if len(matches) != 1:
            raise ModelError(
                f"The weights in {self.folder} hold {'several tensors' if matches else 'no tensor'} for the layer "
                f"{layer} of {self.adapter}. Name the model that the adapter was trained on. If it is that model, "
                "transformers gives its layers other names as it loads them: store it under these names with "
                f"`continual init DIR --base {self.folder}` and `continual export v0 -w DIR --out MODEL`, and name "
                "MODEL."
            )
        return matches[0]

    def _unwrapped(self, layer: str, keys: list[str]) -> str:
        """Return a layer's name without the names of the classes that the model was wrapped in for training.

        A layer is `0.auto_model.encoder...` of a SentenceTransformer, and `bert.encoder...` or `model.layers...` of a
        model with a head.
        """
        kind = str(read_json(self.folder / self.transformer / CONFIG, dict).get("model_type") or "")
        wrappers, parts = _WRAPPERS | set(re.split("[-_]", kind)), {key.partition(".")[0] for key in keys}
        first, _, rest = layer.partition(".")
        while first not in parts and first in wrappers and rest:
            layer = rest
            first, _, rest = layer.partition(".")
        return layer


def transformer_folder(model: Path) -> Path:
    """Return the folder of a model's transformer, relative to the model folder."""
    return Path(read_modules(model)[0].path)


def _common_prefix(names: list[str]) -> str:
    """Return the first part, with its dot, that all names share, or an empty string."""
    words = {name.partition(".")[0] for name in names if "." in name}
    return f"{words.pop()}." if len(words) == 1 and all("." in name for name in names) else ""


def _layers(factors: dict[str, Entry], prefix: str, adapter: Path) -> list[str]:
    layers = []
    for name in factors:
        layer, _, part = name.removeprefix(prefix).partition(".lora_")
        if part == "A.weight":
            layers.append(layer)
        elif part not in ("B.weight", "magnitude_vector", "magnitude_vector.weight"):
            raise ModelError(
                f"{adapter} cannot be folded here: it holds {name}, which is not a LoRA factor of a linear layer. "
                f"{FOLD_WITH_PEFT}"
            )
    if not layers:
        raise ModelError(f"{adapter} holds no LoRA factors, so there is nothing to fold. Copy the adapter again.")
    return layers

"""What the engine reads from: a model folder, or a folder with a LoRA adapter folded in as it is read.

A tensor's key says what it is, wherever it is stored: `encoder.layer.0...` in the transformer, `2_Dense/linear.weight`
in another module. How a module is split into files does not matter, nor the folder of the transformer (some versions
of sentence-transformers have `0_Transformer`), nor a word that all its names begin with (`bert.`, `model.`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from torch import Tensor

from continual.errors import ModelError
from continual.merge.adapters import (
    ADAPTER_PREFIX,
    ADAPTER_WEIGHTS,
    TRAINED_ON,
    WAY_OUT,
    read_adapter,
)
from continual.models.folder import (
    INDEX,
    read_index,
    read_modules,
    whole_file,
)
from continual.models.tensors import Entry, is_finite, read_header
from continual.models.weights import weight_files, weights_sha256


class Model:
    """The weights of a sentence-transformers folder, read tensor by tensor.

    Args:
        folder: The folder.

    Attributes:
        transformer: Folder of its transformer, relative to the model's.
        files: Per weight file, relative to the folder: the keys of its tensors, and its metadata.
        entries: Where each tensor lies, by key.

    Raises:
        ModelError: It has no safetensors weights, a file cannot be read or is missing, or a tensor is in two files.
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
        self._check_indices(headers)

    def _check_indices(self, headers: Mapping[Path, tuple[dict[str, Entry], dict[str, str]]]) -> None:
        """Refuse weight files that are not all that their index names."""
        for place in {file.parent for file in headers}:
            for index in (self.folder / place).glob(INDEX):
                if whole_file(index).is_file():
                    continue  # it is loaded, and the index is left from before
                for name, file in read_index(index).items():
                    if name not in headers[place / file][0]:
                        raise ModelError(f"{index} says that {name} is in {file}, and it is not. Copy the model again.")

    def read(self, key: str) -> Tensor:
        """Return a tensor in memory of its own.

        Raises:
            ModelError: The file is cut short, or it holds what is no finite number.
        """
        return self._finite(key, self.entries[key].read())

    def _finite(self, key: str, tensor: Tensor) -> Tensor:
        if not is_finite(tensor):
            raise ModelError(
                f"{key} of {self} holds values that are infinite or no numbers (NaN), and so would whatever is made of "
                "it. The training that made it diverged, or the file is damaged."
            )
        return tensor

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
        self.config = read_adapter(adapter)
        self._factors, metadata = read_header(adapter / ADAPTER_WEIGHTS)
        self.trained_on = metadata.get(TRAINED_ON)
        self._layers = {self._key(layer): layer for layer in _layers(self._factors, adapter)}
        for key, layer in self._layers.items():
            self._check_factors(key, layer)

    def _check_factors(self, key: str, layer: str) -> None:
        """Refuse factors of another layer, or of another rank than the settings say, whose scale would be wrong."""
        a, b = (self._factor(layer, part).shape for part in ("lora_A.weight", "lora_B.weight"))
        if len(a) != 2 or len(b) != 2:
            raise ModelError(
                f"{self.adapter} cannot be folded here: the factors of {layer} are of shape {list(a)} and {list(b)}, "
                f"and those of a linear layer are matrices. {WAY_OUT}"
            )
        rank, shape = self.config.rank_of(layer), (b[0], a[1])
        if not a[0] == b[1] == rank:
            found = f"{a[0]}" if a[0] == b[1] else f"{a[0]} and {b[1]}"
            raise ModelError(
                f"{self.config.path} says rank {rank} of {layer}, and its factors have rank {found}: the scale would "
                "be wrong. Put back the settings that were saved with these weights."
            )
        if self.entries[key].shape != (shape[::-1] if self.config.transposed else shape):
            raise ModelError(
                f"{self.adapter} does not belong to {self.folder}: {key} has shape {list(self.entries[key].shape)}, "
                f"its update {list(shape)}."
            )
        if self.config.dora and self._factor(layer, "lora_magnitude_vector").shape != shape[:1]:
            raise ModelError(f"{self.adapter} has for {layer} not one length for each of its {shape[0]} rows.")

    def read(self, key: str) -> Tensor:
        """Return a tensor in memory of its own; in fp32 with the update added where the adapter has one."""
        tensor = super().read(key)
        layer = self._layers.get(key)
        if layer is None:
            return tensor
        a, b = (self._factor(layer, part).read().float() for part in ("lora_A.weight", "lora_B.weight"))
        update = (b @ a).mul_(self.config.scale_of(layer))
        folded = tensor.float().add_(update.T if self.config.transposed else update)
        if self.config.dora:
            length = self._factor(layer, "lora_magnitude_vector").read().float()
            folded.mul_((length / folded.norm(dim=1))[:, None])
        return self._finite(key, folded)

    def __str__(self) -> str:
        return f"{self.folder} with {self.adapter}"

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
    return Path(read_modules(model)[0].path)


def _common_word(names: list[str]) -> str:
    """Return the word, with its dot, that all names begin with, or an empty string."""
    words = {name.partition(".")[0] for name in names if "." in name}
    return f"{words.pop()}." if len(words) == 1 and all("." in name for name in names) else ""


def _layers(factors: dict[str, Entry], adapter: Path) -> list[str]:
    layers = []
    for name in factors:
        layer, _, part = name.removeprefix(ADAPTER_PREFIX).partition(".lora_")
        if part == "A.weight":
            layers.append(layer)
        elif part not in ("B.weight", "magnitude_vector", "magnitude_vector.weight"):
            raise ModelError(
                f"{adapter} cannot be folded here: it holds {name}, which is no LoRA factor of a linear layer. "
                f"{WAY_OUT}"
            )
    if not layers:
        raise ModelError(f"{adapter} holds no LoRA factors.")
    return layers

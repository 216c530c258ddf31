"""The settings of a PEFT adapter: which ranks and scales its layers have, and whether it can be folded at all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual.errors import ModelError
from continual.models.folder import read_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TRAINED_ON = "trained_on_sha256"
"""Where an adapter's weights file keeps the identity of the model that it was trained on; peft's own do not."""
ADAPTER_PREFIX = "base_model.model."
"""What a PeftModel puts before the names of the model it wraps."""

WAY_OUT = (
    "Fold it with peft: load its base as a SentenceTransformer `model`, call "
    "`PeftModel.from_pretrained(model[0].auto_model, ADAPTER).merge_and_unload()`, save it with "
    "`model.save_pretrained(DIR)`, and merge DIR."
)

_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin an adapter that change the weights it is trained on."""

_MORE = (
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
)
"""Settings of peft under which an adapter holds more than two factors for each linear layer."""


@dataclass(frozen=True)
class AdapterConfig:
    """What `adapter_config.json` says of a LoRA, rsLoRA or DoRA adapter.

    Attributes:
        path: The file.
        rank: Rank of a layer's factors where no pattern says another.
        alpha: Its alpha, likewise.
        ranks: Ranks by pattern.
        alphas: Alphas by pattern.
        rslora: Whether the scale is alpha / sqrt(rank) instead of alpha / rank.
        dora: Whether each row of a layer has a length of its own.
        transposed: Whether the layers keep their weights as [inputs, outputs].
        base: What its trainer called the model that it was trained on; empty if nobody said.
    """

    path: Path
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rslora: bool
    dora: bool
    transposed: bool
    base: str

    def rank_of(self, layer: str) -> int:
        """Return the rank of a layer's factors."""
        return int(_of_pattern(self.ranks, layer, self.rank))

    def scale_of(self, layer: str) -> float:
        """Return what the product of a layer's factors is multiplied with."""
        alpha, rank = float(_of_pattern(self.alphas, layer, self.alpha)), self.rank_of(layer)
        return alpha / rank**0.5 if self.rslora else alpha / rank


def read_adapter(adapter: Path) -> AdapterConfig:
    """Return the settings of an adapter.

    Raises:
        ModelError: They cannot be read, or it cannot be folded; the message says why, and what to do.
    """
    path = adapter / ADAPTER_CONFIG
    config = read_json(path, dict)
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        pickled = next((file.name for file in sorted(adapter.glob("adapter_model.*"))), None)
        raise ModelError(
            f"{adapter} has its weights only as {pickled}, and pickled adapters are never read. Load it with peft and "
            "save it again with `save_pretrained(DIR)`."
            if pickled
            else f"{adapter} has no {ADAPTER_WEIGHTS}. Copy the adapter again."
        )
    _check_kind(adapter, config)
    return AdapterConfig(
        path=path,
        rank=_rank(path, "r", config.get("r")),
        alpha=_alpha(path, "lora_alpha", config.get("lora_alpha")),
        ranks=_patterns(path, config, "rank_pattern", _rank),
        alphas=_patterns(path, config, "alpha_pattern", _alpha),
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
        transposed=bool(config.get("fan_in_fan_out")),
        base=str(config.get("base_model_name_or_path") or ""),
    )


def _check_kind(adapter: Path, config: Mapping[str, Any]) -> None:
    """Refuse an adapter that is more than two factors for each linear layer."""
    kind, bias = config.get("peft_type") or "LORA", config.get("bias") or "none"
    start = str(config.get("init_lora_weights", True)).lower()
    cause = None
    if kind != "LORA":
        cause = f"it is of the type {kind}"
    elif bias != "none":
        cause = f"biases were trained with it (bias: {bias})"
    elif start.startswith(_STARTS):
        cause = f"its start ({start}) changed the weights that it was trained on"
    elif config.get("use_dora") and config.get("fan_in_fan_out"):
        cause = "it is a DoRA of transposed layers (fan_in_fan_out)"
    else:
        more = [name for name in _MORE if config.get(name)]
        if more:
            cause = f"it was trained with {more[0]}: {config[more[0]]}"
    if cause:
        raise ModelError(
            f"{adapter} cannot be folded here: {cause}. LoRA, rsLoRA and DoRA of linear layers can. {WAY_OUT}"
        )


def _rank(path: Path, name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(path, name, value, "a whole number from 1 up")
    return value


def _alpha(path: Path, name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _wrong(path, name, value, "a number")
    return float(value)


def _patterns(path: Path, config: Mapping[str, Any], name: str, check: Any) -> dict[str, Any]:
    given = config.get(name) or {}
    if not isinstance(given, dict):
        raise _wrong(path, name, given, "an object of numbers by layer")
    for pattern in given:
        try:
            re.compile(pattern)
        except re.error as error:
            raise _wrong(path, name, pattern, f"names of layers or regular expressions ({error})") from None
    return {pattern: check(path, f"{name} of {pattern}", value) for pattern, value in given.items()}


def _wrong(path: Path, name: str, value: Any, wanted: str) -> ModelError:
    said = "is missing" if value is None else f"is {value!r}"
    return ModelError(f"{path}: {name} {said}, and must be {wanted}. Copy the file again as peft saved it.")


def _of_pattern(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    """Return what patterns say of a layer; as in peft, one is a regular expression for the end of its name."""
    return next((value for name, value in patterns.items() if re.fullmatch(rf"(.*\.)?({name})", layer)), default)

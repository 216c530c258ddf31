"""The settings of a PEFT adapter: rank and scale of each layer, and whether the adapter can be folded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual.errors import ModelError
from continual.models.folder import ADAPTER, check_links, read_json

ADAPTER_CONFIG = ADAPTER
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TRAINED_ON = "trained_on_sha256"
"""Metadata key of the weights file: the sha256 of the model that the adapter was trained on. peft does not write it."""
ADAPTER_PREFIX = "base_model.model."
"""Prefix that PeftModel puts before the names of the wrapped model."""

FOLD_WITH_PEFT = (
    "Fold it with peft: load its base as a SentenceTransformer `model`, call "
    "`PeftModel.from_pretrained(model[0].auto_model, ADAPTER).merge_and_unload()`, save it with "
    "`model.save_pretrained(DIR)`, and merge DIR."
)

_BASE_CHANGING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""LoRA initialisations that change the base's weights."""

_TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")

_UNDERSTOOD = frozenset(
    (
        "task_type",
        "auto_mapping",
        "peft_type",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "lora_alpha",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
        "use_dora",
        "fan_in_fan_out",
        "bias",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "lora_dropout",
        "init_lora_weights",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "velora_config",
        "qalora_group_size",
        "megatron_core",
        "ensure_weight_tying",
        "runtime_config",
    )
)
"""peft settings that are read here, or that change nothing in a trained adapter of linear layers. With any other one,
the adapter can hold or compute something else."""


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of a LoRA, rsLoRA or DoRA adapter, from `adapter_config.json`.

    Attributes:
        path: The settings file.
        rank: Rank of layers that match no pattern in `ranks`.
        alpha: Alpha of layers that match no pattern in `alphas`.
        ranks: Ranks by layer pattern.
        alphas: Alphas by layer pattern.
        rslora: Whether the scale is alpha / sqrt(rank) instead of alpha / rank.
        dora: Whether each row of a layer has a learned length (DoRA).
        transposed: Whether layers are said to store their weights as [inputs, outputs].
        base: Name of the base model, as the trainer wrote it; empty if missing.
        targets: The settings that select layers, by name.
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
    targets: Mapping[str, Any]

    def rank_of(self, layer: str) -> int:
        """Return the rank of a layer's factors."""
        return int(_of_pattern(self.ranks, layer, self.rank))

    def scale_of(self, layer: str) -> float:
        """Return the factor s of a layer's update s B A."""
        alpha, rank = float(_of_pattern(self.alphas, layer, self.alpha)), self.rank_of(layer)
        return alpha / rank**0.5 if self.rslora else alpha / rank

    def check_targets(self, layers: Iterable[str]) -> None:
        """Check that the settings select the layers, because peft ignores the factors of all others.

        Raises:
            ModelError: They do not select one of them, or are no settings that peft takes.
        """
        from peft import LoraConfig
        from peft.tuners.tuners_utils import check_target_module_exists

        stated = ", ".join(f"{name}: {value}" for name, value in self.targets.items())
        try:
            chosen = LoraConfig(**self.targets)
            ignored = [layer for layer in layers if not check_target_module_exists(chosen, layer)]
        except (ValueError, TypeError, AttributeError, re.error) as error:
            raise ModelError(
                f"{self.path} does not select layers as peft does ({stated or 'target_modules is missing'}): {error}. "
                "Copy the file again as peft saved it."
            ) from None
        if ignored and self.targets.get("target_modules") != "all-linear":
            raise ModelError(
                f"{self.path} does not select {ignored[0]} ({stated}), but the weights hold an update of it, which "
                "peft would ignore. Restore the settings that were saved with these weights."
            )


def read_adapter(adapter: Path) -> AdapterConfig:
    """Return the settings of an adapter.

    Raises:
        ModelError: The adapter cannot be read or cannot be folded; the message says why and what to do.
    """
    check_links(adapter)
    path = adapter / ADAPTER_CONFIG
    config = read_json(path, dict)
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        pickled = next((file.name for file in sorted(adapter.glob("adapter_model.*"))), None)
        raise ModelError(
            f"{adapter} has its weights only as {pickled}, but pickled adapters are never read: a pickle can run code. "
            "Load it with peft and save it again with `save_pretrained(DIR)`."
            if pickled
            else f"{adapter} has no {ADAPTER_WEIGHTS}. Copy the adapter again."
        )
    _check_foldable(adapter, config)
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
        targets={name: config[name] for name in _TARGETS if config.get(name) is not None},
    )


def _check_foldable(adapter: Path, config: Mapping[str, Any]) -> None:
    """Refuse an adapter with anything other than two factors per linear layer."""
    peft_type, bias = config.get("peft_type") or "LORA", config.get("bias") or "none"
    start = str(config.get("init_lora_weights", True)).lower()
    cause = None
    if peft_type != "LORA":
        cause = f"its peft_type is {peft_type}"
    elif bias != "none":
        cause = f"biases were trained with it (bias: {bias})"
    elif start.startswith(_BASE_CHANGING_STARTS):
        cause = f"its initialisation ({start}) changed the weights of its base"
    else:
        extra = [name for name, value in config.items() if value and name not in _UNDERSTOOD]
        if extra:
            cause = f"it was trained with {extra[0]}: {config[extra[0]]}"
    if cause:
        raise ModelError(
            f"{adapter} cannot be folded here: {cause}. Only LoRA, rsLoRA and DoRA of linear layers are supported. "
            f"{FOLD_WITH_PEFT}"
        )


def _rank(path: Path, name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _invalid(path, name, value, "a whole number of 1 or more")
    return value


def _alpha(path: Path, name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _invalid(path, name, value, "a finite number")
    return float(value)


def _patterns(path: Path, config: Mapping[str, Any], name: str, check: Any) -> dict[str, Any]:
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict):
        raise _invalid(path, name, patterns, "an object of numbers by layer")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise _invalid(path, name, pattern, f"names of layers or regular expressions ({error})") from None
    return {pattern: check(path, f"{name} of {pattern}", value) for pattern, value in patterns.items()}


def _invalid(path: Path, name: str, value: Any, expected: str) -> ModelError:
    stated = "is missing" if value is None else f"is {value!r}"
    return ModelError(f"{path}: {name} {stated}, but must be {expected}. Copy the file again as peft saved it.")


def _of_pattern(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the end of a layer's name, as peft matches them."""
    return next((value for name, value in patterns.items() if re.fullmatch(rf"(.*\.)?({name})", layer)), default)

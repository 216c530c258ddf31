"""Whether the weights of two models mean the same: their modules, architecture and tokenizer are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continual.errors import ModelError
from continual.merge.sources import transformer_folder
from continual.models.folder import CONFIG, read_json, read_modules

_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")

_VOCABULARIES = ("vocab.*", "merges.txt", "*.model", "*.spm", "*.tiktoken")
"""What a tokenizer is read from where there is no tokenizer.json."""


def check_match(ours: Path, theirs: Path) -> None:
    """Refuse two models whose weights do not mean the same.

    Compared are the modules and their settings (pooling, dense layers, normalisation), the architecture, and the
    tokenizer.

    Raises:
        ModelError: They differ; the message shows how.
    """
    differences = []
    for what, read in _COMPARED.items():
        if what == "module" and _stored_alike(ours, theirs):
            continue  # without the library, which takes seconds to import
        a, b = read(ours), read(theirs)
        if what == "tokenizer" and ("tokenizer.json" in a) != ("tokenizer.json" in b):
            lacking = theirs if "tokenizer.json" in a else ours
            raise ModelError(
                f"{lacking} has no tokenizer.json, and the other model has: they cannot be compared. Load it once with "
                "sentence-transformers and save it with `model.save_pretrained(DIR)`."
            )
        differences += [
            f"{what} {key}: {_short(a.get(key))} and {_short(b.get(key))}"
            for key in sorted(a.keys() | b.keys())
            if a.get(key) != b.get(key)
        ]
    if differences:
        raise ModelError(f"{ours} and {theirs} cannot be merged: they differ in {'; '.join(differences)}.")


def prompts(model: Path) -> dict[str, str]:
    """Return what a model puts before a text, by kind of text; "default" names the kind that holds for any text."""
    config = _settings(model / "config_sentence_transformers.json")
    named = config.get("prompts")
    found = {str(kind): str(text) for kind, text in named.items() if text} if isinstance(named, dict) else {}
    default = config.get("default_prompt_name")
    return found | ({"default": str(default)} if default else {})


def _stored_alike(ours: Path, theirs: Path) -> bool:
    """Return whether two models write the same modules in the same words."""

    def stored(model: Path) -> list[Any]:
        modules = read_modules(model)
        return [(module.type, module.path and _settings(model / module.path / CONFIG)) for module in modules[1:]]

    return stored(ours) == stored(theirs)


def _modules(model: Path) -> dict[str, Any]:
    """Return the modules after the transformer with their settings, as the library understands their files.

    Its versions write the same settings in different words, so the files themselves cannot be compared.
    """
    from sentence_transformers.util import import_from_string

    found: dict[str, Any] = {}
    for number, module in enumerate(read_modules(model)):
        found[f"{number}"] = module.class_name
        if number:
            place = model / module.path
            try:
                loaded = import_from_string(module.type).load(str(place), local_files_only=True)
                settings = loaded.get_config_dict()
            except (ImportError, AttributeError, TypeError, OSError, ValueError, KeyError):
                settings = _settings(place / CONFIG)  # a module of the model's own code, or values it cannot have
            found |= {f"{number} ({module.class_name}) {key}": value for key, value in settings.items()}
    return found


def _architecture(model: Path) -> dict[str, Any]:
    config = read_json(model / transformer_folder(model) / CONFIG, dict)
    return {key: config[key] for key in _SHAPE if key in config}


def _tokenizer(model: Path) -> dict[str, Any]:
    place = model / transformer_folder(model)
    if (place / "tokenizer.json").is_file():
        tokenizer = read_json(place / "tokenizer.json", dict)
        # Truncation and padding are settings of a call, which saving a model writes down.
        kept = {key: value for key, value in tokenizer.items() if key not in ("truncation", "padding")}
        return {"tokenizer.json": hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]}
    vocabularies = sorted({path for pattern in _VOCABULARIES for path in place.glob(pattern)})
    if not vocabularies:
        raise ModelError(
            f"{place} has no tokenizer: neither tokenizer.json nor a vocabulary. Copy the model again, or save it once "
            "more with `model.save_pretrained(DIR)`."
        )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in vocabularies}


_COMPARED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "architecture": _architecture,
    "tokenizer": _tokenizer,
    "module": _modules,
}


def _settings(path: Path) -> dict[str, Any]:
    """Return what a settings file holds that a model may lack."""
    return read_json(path, dict) if path.is_file() else {}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

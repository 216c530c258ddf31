"""Check that two models can be merged: same modules, same architecture, same tokenizer."""

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
"""Vocabulary files of a tokenizer without tokenizer.json."""


def check_match(ours: Path, theirs: Path) -> None:
    """Check that two models have the same modules with the same settings, architecture and tokenizer.

    Raises:
        ModelError: They differ; the message lists the differences.
    """
    differences = []
    for aspect, read in _COMPARED.items():
        if aspect == "module" and _same_module_files(ours, theirs):
            continue  # saves the import of sentence-transformers, which takes seconds
        a, b = read(ours), read(theirs)
        if aspect == "tokenizer" and ("tokenizer.json" in a) != ("tokenizer.json" in b):
            lacking, other = (theirs, ours) if "tokenizer.json" in a else (ours, theirs)
            raise ModelError(
                f"{lacking} has no tokenizer.json, but {other} has one, so the tokenizers cannot be compared. Load "
                f"{lacking} with sentence-transformers and save it with `model.save_pretrained(DIR)`."
            )
        differences += [
            f"{aspect} {key}: {_short(a.get(key))} and {_short(b.get(key))}"
            for key in sorted(a.keys() | b.keys())
            if a.get(key) != b.get(key)
        ]
    if differences:
        raise ModelError(
            f"{ours} and {theirs} cannot be merged: they differ in {'; '.join(differences)}. Merge models that were "
            "fine-tuned from one base model."
        )


def stored_prompts(model: Path) -> dict[str, str]:
    """Return the prompts of a model by name. The key "default" holds the name of the default prompt."""
    config = _settings(model / "config_sentence_transformers.json")
    texts = config.get("prompts")
    prompts = {str(name): str(text) for name, text in texts.items() if text} if isinstance(texts, dict) else {}
    default = config.get("default_prompt_name")
    return prompts | ({"default": str(default)} if default else {})


def _same_module_files(ours: Path, theirs: Path) -> bool:
    """Return whether the module settings of two models are equal as stored."""

    def stored(model: Path) -> list[Any]:
        modules = read_modules(model)
        return [(module.type, module.path and _settings(model / module.path / CONFIG)) for module in modules[1:]]

    return stored(ours) == stored(theirs)


def _modules(model: Path) -> dict[str, Any]:
    """Return the modules after the transformer with their settings, as sentence-transformers reads them.

    Versions of the library write the same settings differently, so the files themselves cannot be compared.
    """
    from sentence_transformers.util import import_from_string

    modules: dict[str, Any] = {}
    for number, module in enumerate(read_modules(model)):
        modules[f"{number}"] = module.class_name
        if number:
            folder = model / module.path
            try:
                loaded = import_from_string(module.type).load(str(folder), local_files_only=True)
                settings = loaded.get_config_dict()
            except (ImportError, AttributeError, TypeError, OSError, ValueError, KeyError):
                settings = _settings(folder / CONFIG)  # the model's own code, or settings that the class rejects
            modules |= {f"{number} ({module.class_name}) {key}": value for key, value in settings.items()}
    return modules


def _architecture(model: Path) -> dict[str, Any]:
    config = read_json(model / transformer_folder(model) / CONFIG, dict)
    return {key: config[key] for key in _SHAPE if key in config}


def _tokenizer(model: Path) -> dict[str, Any]:
    folder = model / transformer_folder(model)
    if (folder / "tokenizer.json").is_file():
        tokenizer = read_json(folder / "tokenizer.json", dict)
        # Truncation and padding belong to the last call before saving, not to the vocabulary.
        kept = {key: value for key, value in tokenizer.items() if key not in ("truncation", "padding")}
        return {"tokenizer.json": hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]}
    vocabularies = sorted({path for pattern in _VOCABULARIES for path in folder.glob(pattern)})
    if not vocabularies:
        raise ModelError(
            f"{folder} has no tokenizer: neither tokenizer.json nor a vocabulary file. Copy the model again, or save "
            "it again with `model.save_pretrained(DIR)`."
        )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in vocabularies}


_COMPARED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "architecture": _architecture,
    "tokenizer": _tokenizer,
    "module": _modules,
}


def _settings(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, or an empty dict if the file is missing."""
    return read_json(path, dict) if path.is_file() else {}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Check that two models can be merged: everything that decides what they compute, except the weights, is the same."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from continual.errors import ModelError
from continual.merge.match_tokens import TOKENIZER_CONFIG, token_defaults, token_settings
from continual.merge.sources import transformer_folder
from continual.models.folder import CONFIG, LIBRARY, Module, read_json, read_modules

_MAY_DIFFER = re.compile(
    r"_?name_or_path|architectures|(torch_)?dtype|.*_version|__version__|_.*|.*dropout.*|initializer_.*|use_cache|"
    r"gradient_checkpointing|id2label|label2id|num_labels|problem_type|finetuning_task|task_specific_params|"
    r"return_dict|output_(attentions|hidden_states|past)|torchscript|use_bfloat16|chunk_size_feed_forward|"
    r"(bos|eos|sep|cls|mask|decoder_start)_token_id|quantization_config"
)
"""Keys of a config.json that decide nothing in an embedding: names, versions, types, and settings of training."""

_CONFIG_DEFAULTS = {"position_embedding_type": "absolute"}
"""Settings that older versions of transformers wrote, and newer ones leave out."""

_LIBRARY_DEFAULTS: dict[str, Any] = {"similarity_fn_name": "cosine", "model_type": "SentenceTransformer"}
_LIBRARY_SAID = ("prompts", "default_prompt_name")

_TRANSFORMER_DEFAULTS: dict[str, Any] = {
    "do_lower_case": False,
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}

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
        if aspect == TOKENIZER_CONFIG and a.keys() != b.keys():
            # Versions of the library leave out different settings.
            every = a.keys() | b.keys()
            a, b = (
                {key: token_defaults(model).get(key) for key in every} | side
                for model, side in ((ours, a), (theirs, b))
            )
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
    config = _settings(model / LIBRARY)
    texts = config.get("prompts")
    prompts = {str(name): str(text) for name, text in texts.items() if text} if isinstance(texts, dict) else {}
    default = config.get("default_prompt_name")
    return prompts | ({"default": str(default)} if default else {})


def stored_length(model: Path) -> int | None:
    """Return the number of tokens at which a model cuts texts, as stored; None if no file says so."""
    length = _transformer_settings(model).get("max_seq_length")
    if length is None:
        length = _settings(model / transformer_folder(model) / TOKENIZER_CONFIG).get("model_max_length")
    return int(length) if isinstance(length, int | float) and length < 1e9 else None


def _same_module_files(ours: Path, theirs: Path) -> bool:
    """Return whether the module settings of two models are equal as stored."""

    def stored(model: Path) -> list[Any]:
        modules = read_modules(model)
        stated = [(module.type, module.path and _settings(model / module.path / CONFIG)) for module in modules[1:]]
        return [None if modules[0].of_library else modules[0].type, *stated]

    return stored(ours) == stored(theirs)


def _modules(model: Path) -> dict[str, Any]:
    """Return the modules after the transformer with their settings, as sentence-transformers reads them.

    Versions of the library write the same settings differently, so the files themselves cannot be compared. Only
    modules of the library are loaded. A module of another package is compared by its import path and its file.
    """
    modules: dict[str, Any] = {}
    for number, module in enumerate(read_modules(model)):
        modules[f"{number}"] = module.class_name if module.of_library else module.type
        if number:
            folder = model / module.path
            settings = _loaded_settings(module, folder) if module.of_library else None
            if settings is None:
                settings = _settings(folder / CONFIG)
            modules |= {f"{number} ({module.class_name}) {key}": value for key, value in settings.items()}
    return modules


def _loaded_settings(module: Module, folder: Path) -> dict[str, Any] | None:
    """Return the settings of a module of sentence-transformers with their defaults; None if it cannot be loaded."""
    from safetensors import SafetensorError
    from sentence_transformers.base.modules import Module as LibraryModule
    from sentence_transformers.util import import_module_class

    try:
        kind = import_module_class(module.type, str(folder), trust_remote_code=False, local_files_only=True)
        if not (inspect.isclass(kind) and issubclass(kind, LibraryModule)):
            return None  # a name that the library itself imports, such as torch
        loader: Any = kind
        settings = dict(loader.load(str(folder), local_files_only=True, trust_remote_code=False).get_config_dict())
    except (
        ImportError,
        AttributeError,
        TypeError,
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        MemoryError,
        SafetensorError,
    ):
        return None  # settings that the class rejects, or weights that do not fit them
    stated = _settings(folder / CONFIG).get("activation_function")
    if isinstance(stated, str) and not stated.startswith("torch."):
        settings["activation_function"] = stated  # the library loads Tanh instead
    return settings


def _architecture(model: Path) -> dict[str, Any]:
    """Return the settings of the transformer with their defaults, which versions of transformers write differently."""
    path = model / transformer_folder(model) / CONFIG
    config = read_json(path, dict)
    if "auto_map" not in config:  # the model's own code could have defaults of its own
        from transformers import AutoConfig

        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError):
            loaded = AutoConfig.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)
            config = loaded.to_dict()
    return _stated(_CONFIG_DEFAULTS | _without(config, _MAY_DIFFER))


def _library(model: Path) -> dict[str, Any]:
    """Return the settings of the library; prompts are returned by `stored_prompts`."""
    settings = {key: value for key, value in _settings(model / LIBRARY).items() if value is not None}
    return _stated(_without(_LIBRARY_DEFAULTS | settings, re.compile("__version__|" + "|".join(_LIBRARY_SAID))))


def _text_settings(model: Path) -> dict[str, Any]:
    """Return the settings of the transformer module, except the maximum length, which `stored_length` returns."""
    settings = {key: value for key, value in _transformer_settings(model).items() if value is not None}
    return _stated(_without(_TRANSFORMER_DEFAULTS | settings, re.compile("max_seq_length")))


def _transformer_settings(model: Path) -> dict[str, Any]:
    files = sorted((model / transformer_folder(model)).glob("sentence_*_config.json"))
    return _settings(files[0]) if files else {}


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
    CONFIG: _architecture,
    LIBRARY: _library,
    "sentence_bert_config.json": _text_settings,
    "tokenizer": _tokenizer,
    TOKENIZER_CONFIG: token_settings,
    "module": _modules,
}
"""What is compared, by the name for messages."""


def _without(settings: Mapping[str, Any], keys: re.Pattern[str]) -> dict[str, Any]:
    """Return settings without some keys, at any depth, and with the keys of nested objects joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if keys.fullmatch(key):
            continue
        nested = _without(value, keys) if isinstance(value, dict) else {}
        flat |= {f"{key}.{inner}": item for inner, item in nested.items()} if nested else {key: value}
    return flat


def _stated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those that are null, which is the same as leaving them out."""
    return {key: value for key, value in settings.items() if value is not None}


def _settings(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, or an empty dict if the file is missing."""
    return read_json(path, dict) if path.is_file() else {}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""The settings of a tokenizer that decide the tokens of a text, and their defaults, for the check before a merge."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from continual.merge.sources import transformer_folder
from continual.models.folder import CONFIG, read_json

TOKENIZER_CONFIG = "tokenizer_config.json"

_MAY_DIFFER = re.compile(
    r"_?name_or_path|.*_version|.*_file|.*tokenizer_class|auto_map|model_max_length|max_length|backend|is_local|"
    r"local_files_only|added_tokens_decoder|(additional_|extra_)?special_tokens(_map)?|pad_to_multiple_of|stride|"
    r"pad_token_type_id|padding|truncation(_strategy)?|legacy|clean_up_tokenization_spaces|never_split|"
    r"do_basic_tokenize|processor_class|chat_template|use_fast|trust_remote_code|device(_map)?|max_lengths?"
)
"""Keys that do not decide the tokens of a text; the special tokens are compared as such."""

_DEFAULTS: dict[str, Any] = {
    "padding_side": "right",
    "truncation_side": "right",
    "split_special_tokens": False,
    "wordpieces_prefix": "##",
}
"""Settings that all tokenizers have."""


def token_settings(model: Path) -> dict[str, Any]:
    """Return the settings in a model's tokenizer_config.json that decide the tokens of a text."""
    settings = {}
    for key, value in _stored(model).items():
        if not _MAY_DIFFER.fullmatch(key) and value not in (None, {}, []):  # null and empty: as if left out
            # A special token is a text, or an object with the text.
            settings[key] = value["content"] if isinstance(value, dict) and "content" in value else value
    return settings


def token_defaults(model: Path) -> dict[str, Any]:
    """Return the settings that a model's tokenizer has if its file leaves them out, as far as they are known.

    They are the defaults of its class, if that is one of transformers. Code of the model is never run.
    """
    from transformers.models.auto import tokenization_auto as auto

    stored, config = _stored(model), read_json(model / transformer_folder(model) / CONFIG, dict)
    names = [stored.get("tokenizer_class"), auto.TOKENIZER_MAPPING_NAMES.get(config.get("model_type"))]
    name = next((name for name in names if isinstance(name, str)), "")
    kind = auto.tokenizer_class_from_name(name) or auto.tokenizer_class_from_name(name.removesuffix("Fast"))
    defaults = dict(_DEFAULTS)
    for parent in reversed(inspect.getmro(kind) if kind else ()):
        for parameter in inspect.signature(parent).parameters.values():
            if parameter.default not in (inspect.Parameter.empty, None):
                defaults[parameter.name] = parameter.default
    return {key: getattr(value, "content", value) for key, value in defaults.items()}


def _stored(model: Path) -> dict[str, Any]:
    path = model / transformer_folder(model) / TOKENIZER_CONFIG
    return read_json(path, dict) if path.is_file() else {}

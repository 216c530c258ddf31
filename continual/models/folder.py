"""The small files of a sentence-transformers folder: what loading it needs is there and can be read. Imports no torch.

A model is read tensor by tensor here, so a broken settings file would otherwise be copied into a result that nothing
loads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from continual.errors import ModelError
from continual.storage.files import publish

MODULES = "modules.json"
CONFIG = "config.json"
INDEX = "*.safetensors.index.json"

LIBRARY = "config_sentence_transformers.json"
"""The file of the library's own settings, a model's prompts among them; old models have none."""

OBJECTS = (
    CONFIG,
    LIBRARY,
    "sentence_*_config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "processor_config.json",
    "preprocessor_config.json",
)
"""Files of a model and of its transformer that the library reads where they are there, each a JSON object."""

RESERVED_PROMPTS = ("query", "document", "passage", "corpus")
"""Names of prompts that the library or mteb puts before every text of a kind."""

SETTINGS = "*config.json"
"""The same of every other module, whose settings have several names."""

_PLAIN = ("Normalize", "Dropout")
"""Modules of the library that load without a file of their own."""

_CURE = "Copy the model again, or save it once more with `model.save_pretrained(DIR)`."

Kind = TypeVar("Kind", dict[str, Any], list[Any])


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a model.

    Attributes:
        type: Import path of its class.
        path: Its folder, relative to the model's; empty or "." is the model's own.
    """

    type: str
    path: str

    @property
    def class_name(self) -> str:
        """Return the name of its class."""
        return self.type.rpartition(".")[2]


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """Return what a settings file holds.

    Args:
        path: The file.
        kind: `dict` or `list`: what it must hold.

    Raises:
        ModelError: It is missing, is no JSON, or holds something else.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing. {_CURE}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path} cannot be read as JSON: {reason}. {_CURE}") from None
    if not isinstance(found, kind):
        wanted = "an object" if kind is dict else "a list"
        raise ModelError(f"{path} holds {_called(found)}, and must hold {wanted}. {_CURE}")
    return found


def read_modules(folder: Path) -> list[Module]:
    """Return the modules of a model, in their order.

    Raises:
        ModelError: There is no modules.json, or it names no modules with a type and a path inside the folder.
    """
    path = folder / MODULES
    if not path.exists():
        raise ModelError(
            f"{folder} is no sentence-transformers model: it has no {MODULES}. Save one with "
            "`SentenceTransformer(...).save_pretrained(DIR)` and give that folder."
        )
    found = []
    for entry in read_json(path, list):
        kind, place = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(place, str):
            raise ModelError(f"{path} is no list of modules, each with a type and a path. {_CURE}")
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise ModelError(f"{path} names {place}, which is outside the model's folder.")
        found.append(Module(kind, place))
    if not found:
        raise ModelError(f"{path} names no module. {_CURE}")
    return found


def check_layout(folder: Path) -> list[Module]:
    """Return the modules of a model after a look at every file, weights aside, that loading it needs.

    Raises:
        ModelError: One is missing or cannot be read; it is named.
    """
    modules = read_modules(folder)
    first, *others = (folder / module.path for module in modules)
    read = dict.fromkeys((folder, first), OBJECTS)
    for place, patterns in (dict.fromkeys(others, (SETTINGS,)) | read).items():
        for path in sorted(path for pattern in patterns for path in place.glob(pattern)):
            read_json(path, dict)
    for number, module in enumerate(modules):
        place = folder / module.path
        ours = module.type.startswith("sentence_transformers.")  # what another class needs is not known
        if number == 0:
            missing = not (place / CONFIG).is_file()
        else:
            missing = ours and module.class_name not in _PLAIN and not any(place.glob(SETTINGS))
        if missing:
            raise ModelError(f"{place / CONFIG} is missing, the settings of the module {module.class_name}. {_CURE}")
    tokenizer = first / "tokenizer.json"
    if tokenizer.is_file() and not isinstance(read_json(tokenizer, dict).get("model"), dict):
        raise ModelError(f"{tokenizer} describes no tokenizer: it has no model. {_CURE}")
    return modules


def read_index(path: Path) -> dict[str, str]:
    """Return the weight file of every tensor, as the index of a sharded module names it.

    Raises:
        ModelError: It is no index, or a file that it names is missing.
    """
    files = read_json(path, dict).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(f"{path} is no index of weight files: it has no weight_map. {_CURE}")
    for file in sorted(set(files.values())):
        if Path(file).name != file or not (path.parent / file).is_file():
            raise ModelError(f"{path.parent} is missing {file}, which {path.name} names. Copy the model again.")
    return files


def whole_file(index: Path) -> Path:
    """Return the file that is loaded instead of the shards of an index, if it is there."""
    return index.with_name(index.name.removesuffix(".index.json"))


def _called(value: Any) -> str:
    names = {list: "a list", dict: "an object", str: "a text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")


def add_prompts(folder: Path, prompts: Mapping[str, str]) -> None:
    """Give a model's folder more prompts: `encode(texts, prompt_name=NAME)` puts one before each text.

    Args:
        folder: The folder; its other settings stay.
        prompts: By name; one that it has already is replaced.
    """
    file = folder / LIBRARY
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    settings["prompts"] = dict(settings.get("prompts") or {}) | dict(prompts)
    with publish(file) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def prompt_names(folder: Path) -> list[str]:
    """Return the names of a model's own prompts."""
    file = folder / LIBRARY
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return list(settings.get("prompts") or {})

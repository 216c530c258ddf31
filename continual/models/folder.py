"""Read and check the settings files of a sentence-transformers folder, without importing torch.

Merging reads models tensor by tensor and never loads them. Without these checks, a damaged settings file would be
copied into a result that cannot be loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from continual.errors import ModelError
from continual.storage.files import publish

MODULES = "modules.json"
CONFIG = "config.json"
INDEX = "*.safetensors.index.json"
ADAPTER = "adapter_config.json"
"""File of a folder that holds a peft adapter."""

LIBRARY = "config_sentence_transformers.json"
"""File of the library's own settings, including the model's prompts; old models don't have it."""

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
"""JSON files with an object that the library reads, if they exist, from the model's folder and its transformer's."""

RESERVED_PROMPTS = ("query", "document", "passage", "corpus")
"""Names of prompts that the library or mteb puts before all queries or all documents."""

SETTINGS = "*config.json"
"""Settings files of all other modules, whose names vary."""

_PLAIN = ("Normalize", "Dropout")
"""Modules of the library that load without a settings file."""

_FIX = "Copy the model again, or save it again with `model.save_pretrained(DIR)`."

Json = TypeVar("Json", dict[str, Any], list[Any])


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a model.

    Attributes:
        type: Import path of its class.
        path: Its folder, relative to the model's folder; empty or "." for the model's folder itself.
    """

    type: str
    path: str

    @property
    def class_name(self) -> str:
        """Return the name of the class without its import path."""
        return self.type.rpartition(".")[2]

    @property
    def of_library(self) -> bool:
        """Return whether the class is one of sentence-transformers: any other one is code of a stranger."""
        return self.type.startswith("sentence_transformers.")


def read_json(path: Path, expected: type[Json]) -> Json:
    """Return the content of a settings file.

    Args:
        path: The file.
        expected: Type that the content must have, `dict` or `list`.

    Raises:
        ModelError: The file is missing, is not JSON, or holds another type.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing. {_FIX}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path} cannot be read as JSON: {reason}. {_FIX}") from None
    if not isinstance(content, expected):
        wanted = "an object" if expected is dict else "a list"
        raise ModelError(f"{path} holds {_json_type(content)}, but {wanted} is expected. {_FIX}")
    return content


def read_modules(folder: Path) -> list[Module]:
    """Return the modules of a model, in their order.

    Raises:
        ModelError: There is no modules.json, or it is not a list of modules with a type and a path inside the folder;
            or the folder holds a pipe or the like.
    """
    odd = next((path for path in folder.rglob("*") if path.exists() and not (path.is_file() or path.is_dir())), None)
    if odd is not None:  # reading a pipe may never end
        raise ModelError(f"{odd} is a pipe, a socket or a device, not a file. {_FIX}")
    path = folder / MODULES
    if not path.exists():
        raise ModelError(
            f"{folder} is not a sentence-transformers model: it has no {MODULES}. Save one with "
            "`SentenceTransformer(...).save_pretrained(DIR)` and give that folder."
        )
    modules = []
    for entry in read_json(path, list):
        class_path, place = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(class_path, str) or not isinstance(place, str):
            raise ModelError(f"{path} is not a list of modules with a type and a path. {_FIX}")
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise ModelError(f"{path} names {place}, which is outside the model's folder. {_FIX}")
        if any(part.startswith(".") for part in Path(place).parts):
            raise ModelError(f"{path} names {place}, a hidden folder, but hidden files are not copied. {_FIX}")
        modules.append(Module(class_path, place))
    if not modules:
        raise ModelError(f"{path} names no module. {_FIX}")
    return modules


def check_links(folder: Path) -> None:
    """Check that the files of a model or adapter are files of its folder, so that none of another place is copied.

    A link may lead to another file of the folder or, in the cache of the Hub, to the blobs beside the snapshots. Hidden
    files are not checked, because they are never copied.

    Raises:
        ModelError: A link leads elsewhere or to a folder, or something is neither a file nor a folder.
    """
    root = folder.resolve()
    roots = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place, name) for name in sorted([*folders, *files]) if not name.startswith(".")):
            target = path.resolve()
            if path.is_symlink() and (path.is_dir() or not any(map(target.is_relative_to, roots))):
                raise ModelError(
                    f"{folder / path.relative_to(root)} is a link to {target}, which is not a file of the model's "
                    f"folder. If that is meant, copy the model with `cp -rL {folder} DIR`, and give DIR."
                )
            if not (path.is_dir() or path.is_file()):
                raise ModelError(f"{folder / path.relative_to(root)} is neither a file nor a folder. {_FIX}")


def check_layout(folder: Path) -> list[Module]:
    """Return the modules of a model after checking all files needed to load it, except the weights.

    Raises:
        ModelError: A file is missing or cannot be read; the message names it.
    """
    modules = read_modules(folder)
    first, *others = (folder / module.path for module in modules)
    read = dict.fromkeys((folder, first), OBJECTS)
    for place, patterns in (dict.fromkeys(others, (SETTINGS,)) | read).items():
        for path in sorted(path for pattern in patterns for path in place.glob(pattern)):
            read_json(path, dict)
    for number, module in enumerate(modules):
        place = folder / module.path
        if number == 0:
            missing = not (place / CONFIG).is_file()
        else:
            # Other classes can need other files.
            missing = module.of_library and module.class_name not in _PLAIN and not any(place.glob(SETTINGS))
        if missing:
            raise ModelError(f"{place / CONFIG} is missing; it holds the settings of {module.class_name}. {_FIX}")
    tokenizer = first / "tokenizer.json"
    if tokenizer.is_file() and not isinstance(read_json(tokenizer, dict).get("model"), dict):
        raise ModelError(f"{tokenizer} does not describe a tokenizer: it has no model. {_FIX}")
    return modules


def read_index(path: Path) -> dict[str, str]:
    """Return the weight file of every tensor from the index of a sharded module.

    Raises:
        ModelError: The file is not an index, or a weight file that it names is missing.
    """
    files = read_json(path, dict).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(f"{path} is not an index of weight files: it has no weight_map. {_FIX}")
    for file in sorted(set(files.values())):
        if Path(file).name != file or not (path.parent / file).is_file():
            raise ModelError(f"{path.parent} is missing {file}, which {path.name} names. Copy the model again.")
    return files


def whole_file(index: Path) -> Path:
    """Return the path of the weight file that, if it exists, is loaded instead of the shards of an index."""
    return index.with_name(index.name.removesuffix(".index.json"))


def _json_type(value: Any) -> str:
    names = {list: "a list", dict: "an object", str: "a text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")


def add_prompts(folder: Path, prompts: Mapping[str, str]) -> None:
    """Add prompts to a model's folder; `encode(texts, prompt_name=NAME)` puts the prompt before each text.

    Args:
        folder: The model's folder; its other settings stay.
        prompts: Prompts by name; existing prompts of the same name are replaced.
    """
    file = folder / LIBRARY
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    settings["prompts"] = dict(settings.get("prompts") or {}) | dict(prompts)
    with publish(file) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def prompt_names(folder: Path) -> list[str]:
    """Return the names of the prompts in a model's folder."""
    file = folder / LIBRARY
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return list(settings.get("prompts") or {})


def start_key(folder: Path, sha256: str) -> str:
    """Return what identifies a model that trainings start from: its weights, and how it compares embeddings.

    For cosines of whole embeddings it is the sha256 of the weights alone, as in keys of older releases.
    """
    file = folder / LIBRARY
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    compared = {name: settings.get(name) for name in ("similarity_fn_name", "truncate_dim")}
    if compared["similarity_fn_name"] == "cosine":
        compared["similarity_fn_name"] = None
    return f"{sha256} {json.dumps(compared)}" if any(compared.values()) else sha256

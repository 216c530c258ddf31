"""Merging models from anywhere: folders, Hub ids or adapters, checked against each other, with a card of the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from continual.errors import InputError, ModelError
from continual.merge.engine import merge_models
from continual.merge.methods import Method, find_method
from continual.merge.sequence import merge_sequence
from continual.merge.sources import ADAPTER_CONFIG, Adapted, Model, transformer_folder
from continual.progress import SILENT, Progress
from continual.registry.base import resolve_base
from continual.registry.store import empty_folder, replace, scratch

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What `--dtype` takes."""

_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")


def merge(
    models: Sequence[str | Path],
    directory: str | Path,
    *,
    method: str = "linear",
    base: str | Path | None = None,
    weights: Sequence[float] | None = None,
    parameters: Mapping[str, float] | None = None,
    seed: int = 0,
    dtype: str | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Merge sentence-transformers models into one, in memory that does not grow with their size.

    Pooling, prompts, tokenizer and maximum length are those of the first model; a model card names the parents.

    Args:
        models: Folders or Hub ids; a folder with a PEFT adapter is folded into the base as it is read.
        directory: The folder to make.
        method: A name of `continual merge --list`.
        base: The model that the others come from, for methods that merge task vectors, and that adapters were trained
            on.
        weights: One per model; 1 each by default.
        parameters: Of the method.
        seed: Of the method's random numbers.
        dtype: "fp32", "fp16" or "bf16"; by default that of the models.
        workers: Tensors on their way at once; by default as many as there are cores, or as free memory holds.
        progress: Shows how far it is.

    Returns:
        The absolute path of the result.

    Raises:
        ModelError: A model cannot be read, or two do not match; the difference is named.
        InputError: The method does not merge this many models, or a parameter is out of its range.
    """
    chosen, target = find_method(method), empty_folder(directory)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"--dtype takes {', '.join(DTYPES)}, not {dtype!r}.")
    if weights is not None and len(weights) != len(models):
        raise InputError(f"{len(models)} models take {len(models)} weights, and {len(weights)} were given.")
    if weights is not None and not chosen.weighted:
        raise InputError(f"{method} takes no weights: the models decide. Leave --weights out.")
    adapters = any((Path(name).expanduser() / ADAPTER_CONFIG).is_file() for name in map(str, models))
    # What an adapter was trained on is read with it, and a method that takes no base is given none.
    joined = base is not None and not (chosen.base == "none" and adapters)
    if not chosen.rescaled:
        chosen.check(len(models), joined)
    elif base is None:
        raise InputError(f"{method} merges what models learned since a base. Name the base with --base.")
    chosen.resolve(parameters or {})
    for name in models:
        if target.is_relative_to(Path(name).expanduser().resolve()):
            raise InputError(f"{target} lies inside {name}, which is merged. Name a folder beside it.")
    root = Model(resolve_base(str(base))) if base is not None else None
    opened = [_open(str(name), root) for name in models]
    for model in [*opened[1:], *([root] if root else [])]:
        check_match(opened[0].folder, model.folder)
    options: dict[str, Any] = {"parameters": parameters or {}, "dtype": DTYPES.get(dtype or ""), "progress": progress}
    try:
        with scratch(target.parent, target.name) as folder:
            result = folder / "model"
            if chosen.rescaled and root is not None:
                merge_sequence(opened, root, chosen, result, **options)
            else:
                options |= {"base": root if joined else None, "seed": seed, "layout": opened[0], "workers": workers}
                weighed = _weights(chosen, weights, joined)
                merge_models(opened, chosen, result, weights=weighed, **options)
            _write_card(result, chosen, models, base, weights, parameters or {}, seed, dtype)
            replace(result, target)
    except OSError as error:
        raise InputError(f"The merge cannot be written to {target}: {error.strerror or error}.") from None
    return target


def _open(name: str, base: Model | None) -> Model:
    folder = Path(name).expanduser()
    if (folder / ADAPTER_CONFIG).is_file():
        if base is None:
            raise InputError(f"{name} is an adapter. Name the model it was trained on with --base.")
        adapted = Adapted(base.folder, folder)
        if adapted.trained_on is not None and adapted.trained_on != base.sha256:
            raise ModelError(
                f"{name} was trained on a model with the weights {adapted.trained_on[:12]}, and {base} has "
                f"{base.sha256[:12]}. Name that model with --base: the version that `continual versions show` says it "
                "was trained from, as `continual export` writes it."
            )
        return adapted
    return Model(resolve_base(name))


def _weights(method: Method, weights: Sequence[float] | None, has_base: bool) -> list[float] | None:
    """Return a weight for each vector: where the base is the first of them, what the one model leaves it."""
    if weights is None or not (method.base == "first" and has_base):
        return list(weights) if weights is not None else None
    if not 0 <= weights[0] <= 1:
        raise InputError(f"{method.name} takes a weight from 0 (the base) to 1 (the model), not {weights[0]:g}.")
    return [1 - weights[0], weights[0]]


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
        differences += [
            f"{what} {key}: {_short(a.get(key))} and {_short(b.get(key))}"
            for key in sorted(a.keys() | b.keys())
            if a.get(key) != b.get(key)
        ]
    if differences:
        raise ModelError(f"{ours} and {theirs} cannot be merged: they differ in {'; '.join(differences)}.")


def _stored_alike(ours: Path, theirs: Path) -> bool:
    """Return whether two models write the same modules in the same words."""

    def stored(model: Path) -> list[Any]:
        modules = _json(model / "modules.json")
        places = [(module["type"], module["path"]) for module in modules] if isinstance(modules, list) else []
        return [(kind, _json(model / path / "config.json") if path else None) for kind, path in places[1:]]

    return stored(ours) == stored(theirs)


def _modules(model: Path) -> dict[str, Any]:
    """Return the modules after the transformer with their settings, as the library understands their files.

    Its versions write the same settings in different words, so the files themselves cannot be compared.
    """
    from sentence_transformers.util import import_from_string

    modules = _json(model / "modules.json")
    found: dict[str, Any] = {}
    for number, module in enumerate(modules if isinstance(modules, list) else []):
        kind = module["type"].rpartition(".")[2]
        found[f"{number}"] = kind
        if number:
            try:
                settings = import_from_string(module["type"]).load(str(model / module["path"])).get_config_dict()
            except (ImportError, AttributeError, TypeError, OSError):  # a module of the model's own code
                settings = _json(model / module["path"] / "config.json")
            found |= {f"{number} ({kind}) {key}": value for key, value in settings.items()}
    return found


def _architecture(model: Path) -> dict[str, Any]:
    config = _json(model / transformer_folder(model) / "config.json")
    return {key: config[key] for key in _SHAPE if key in config}


def _tokenizer(model: Path) -> dict[str, Any]:
    place = model / transformer_folder(model)
    vocabularies = {path.name: path for name in ("tokenizer.json", "vocab.txt") if (path := place / name).is_file()}
    if "tokenizer.json" in vocabularies:
        tokenizer = _json(vocabularies["tokenizer.json"])
        # Truncation and padding are settings of a call, which saving a model writes down.
        kept = {key: value for key, value in tokenizer.items() if key not in ("truncation", "padding")}
        return {"sha256": hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for name, path in vocabularies.items()}


_COMPARED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "architecture": _architecture,
    "tokenizer": _tokenizer,
    "module": _modules,
}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}.") from None


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _write_card(
    folder: Path,
    method: Method,
    models: Sequence[str | Path],
    base: str | Path | None,
    weights: Sequence[float] | None,
    parameters: Mapping[str, float],
    seed: int,
    dtype: str | None,
) -> None:
    """Write a README.md that says what was merged and how; the parents' cards are about the parents."""
    parents = [*([base] if base is not None else []), *models]
    rows = [
        f"| {name} | {'base' if base is not None and number == 0 else _weight(weights, number - (base is not None))} |"
        for number, name in enumerate(parents)
    ]
    settings = method.resolve(parameters)
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, merge, continual]",
        "base_model:",
        *(f"  - {json.dumps(str(name))}" for name in parents),
        "---",
        "",
        "# A merged embedding model",
        "",
        f"Made by `continual merge` with the method [{method.name}]({method.reference}).",
        "",
        "| parent | weight |",
        "|---|---|",
        *rows,
        "",
        *(f"- {name}: {value}" for name, value in settings.items()),
        *([f"- seed: {seed}"] if method.seeded else []),
        *([f"- stored as: {dtype}"] if dtype else []),
        "",
        "Pooling, prompts, tokenizer and maximum length are those of the first model.",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", "utf-8")


def _weight(weights: Sequence[float] | None, number: int) -> str:
    return "1" if weights is None else f"{weights[number]:g}"

"""Merging models from anywhere: folders, Hub ids or adapters, checked against each other, with a card of the result."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from continual.errors import InputError, ModelError
from continual.merge.adapters import ADAPTER_CONFIG
from continual.merge.engine import merge_models
from continual.merge.match import check_match, prompts
from continual.merge.methods import Method, find_method
from continual.merge.sequence import merge_sequence
from continual.merge.sources import Adapted, Model
from continual.models.base import resolve_base
from continual.progress import SILENT, Progress
from continual.storage.files import empty_folder, replace, scratch

_logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What `--dtype` takes."""


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
    joined = _check_call(chosen, models, target, base, weights, dtype, seed)
    chosen.resolve(parameters or {})
    root = Model(resolve_base(str(base))) if base is not None else None
    opened = [_open(str(name), root, str(base)) for name in models]
    for model in [*opened[1:], *([root] if root else [])]:
        check_match(opened[0].folder, model.folder)
    _warn_of_prompts(opened)
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


def _check_call(
    method: Method,
    models: Sequence[str | Path],
    target: Path,
    base: str | Path | None,
    weights: Sequence[float] | None,
    dtype: str | None,
    seed: int,
) -> bool:
    """Return whether the method merges what was learned since the base, or refuse a call before a model is read."""
    if not all(str(name).strip() for name in [*models, *([base] if base is not None else [])]):
        raise InputError("The name of a model is empty. Name sentence-transformers folders or Hub ids.")
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"--dtype takes {', '.join(DTYPES)}, not {dtype!r}.")
    if weights is not None and len(weights) != len(models):
        raise InputError(f"{len(models)} models take {len(models)} weights, and {len(weights)} were given.")
    if weights is not None and not method.weighted:
        raise InputError(f"{method.name} takes no weights: the models decide. Leave --weights out.")
    if seed < 0:
        raise InputError(f"--seed takes an integer from 0 up, not {seed}.")
    for name in models:
        if target.is_relative_to(Path(name).expanduser().resolve()):
            raise InputError(f"{target} lies inside {name}, which is merged. Name a folder beside it.")
    adapters = any((Path(name).expanduser() / ADAPTER_CONFIG).is_file() for name in models)
    # What an adapter was trained on is read with it, and a method that takes no base is given none.
    joined = base is not None and not (method.base == "none" and adapters)
    method.check(len(models), joined)
    return joined


def _open(name: str, base: Model | None, base_name: str) -> Model:
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
        if adapted.trained_on is None:
            _warn_of_base(adapted, base_name)
        return adapted
    return Model(resolve_base(name))


def _warn_of_base(adapter: Adapted, base: str) -> None:
    """Say that an adapter names another base: a name is all that peft keeps of the weights it was trained on."""
    named, known = adapter.config.base, {Path(base).name, adapter.folder.resolve().name}
    if named and Path(named).name.lower() not in {name.lower() for name in known}:
        _logger.warning(
            "%s says that it was trained on %s, and it is folded into %s. If these are not the same weights, name the "
            "first with --base.",
            adapter.adapter,
            named,
            base,
        )


def _warn_of_prompts(models: Sequence[Model]) -> None:
    """Say that the result puts the first model's words before a text, where others were trained with their own."""
    ours = prompts(models[0].folder)
    for folder in dict.fromkeys(model.folder for model in models[1:]):
        theirs = prompts(folder)
        if theirs != ours:
            _logger.warning(
                "%s has the prompts %s, and %s has %s. The result has the first.",
                models[0].folder,
                ours,
                folder,
                theirs,
            )


def _weights(method: Method, weights: Sequence[float] | None, has_base: bool) -> list[float] | None:
    """Return a weight for each vector: where the base is the first of them, what the one model leaves it."""
    if weights is None or not (method.base == "first" and has_base):
        return list(weights) if weights is not None else None
    if not 0 <= weights[0] <= 1:
        raise InputError(f"{method.name} takes a weight from 0 (the base) to 1 (the model), not {weights[0]:g}.")
    return [1 - weights[0], weights[0]]


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
    roles = ["base"] * (base is not None) + [_role(method, weights, number) for number in range(len(models))]
    rows = [f"| {name} | {role} |" for name, role in zip(parents, roles, strict=True)]
    settings = {name: value for name, value in method.resolve(parameters).items() if name in method.settable}
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
        f"| parent | {'weight' if method.weighted else 'part'} |",
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


def _role(method: Method, weights: Sequence[float] | None, number: int) -> str:
    if not method.weighted:
        return "merged" if method.symmetric else f"merged as number {number + 1}"
    return "1" if weights is None else f"{weights[number]:g}"

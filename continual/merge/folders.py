"""`continual merge`: merge folders, Hub ids and adapters, check that they match, and write a model card."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from continual.errors import InputError, ModelError
from continual.merge.adapters import ADAPTER_CONFIG
from continual.merge.engine import merge_models, save_model
from continual.merge.inputs import write_grams
from continual.merge.match import check_match, stored_length, stored_prompts
from continual.merge.methods import Method, find_method
from continual.merge.sequence import merge_sequence
from continual.merge.sources import Adapted, Model
from continual.models.activations import Texts
from continual.models.base import check_model, find_folder, resolve_base
from continual.models.complete import has_all_names, runs_own_code
from continual.models.encoder import load_encoder
from continual.progress import SILENT, Progress
from continual.storage.files import empty_folder, replace, scratch

_logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Values of `--dtype`."""


def merge_folders(
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
    texts: Sequence[Texts] | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Merge sentence-transformers models into one. Memory does not grow with the size of the models.

    The result has the pooling, prompts, tokenizer and maximum length of the first model, and a model card that names
    the parents.

    Args:
        models: Folders or Hub ids. A folder with a PEFT adapter is read as the base with the adapter folded in.
        directory: The folder to create; it must be missing or empty.
        method: A name from `continual merge --list`.
        base: The model that task vectors are measured from, and that adapters were trained on.
        weights: One per model; 1 each by default.
        parameters: Values for the method's parameters; its defaults otherwise.
        seed: Seed of the method's random numbers, 0 or more.
        dtype: "fp32", "fp16" or "bf16"; by default the type of the models.
        workers: Tensors merged at the same time; by default one per core, fewer if half of the free memory does not
            hold them.
        texts: For a method that needs texts: those that each model is good at, or one for all models.

    Returns:
        The absolute path of the result.

    Raises:
        ModelError: A model cannot be read, or two models do not match; the message names the difference.
        InputError: The method does not take this number of models, or an argument is out of its range.
    """
    chosen, target = find_method(method), empty_folder(directory)
    _check_call(chosen, models, target, base, weights, dtype, seed)
    _check_texts(chosen, models, texts)
    chosen.resolve(parameters or {})
    places = [find_folder(str(name)) for name in models]
    # A method without a base still needs --base to read adapters, but must not get it as a base.
    joined = base is not None and not (chosen.base == "none" and any(map(_is_adapter, places)))
    chosen.check(len(models), joined)
    root = Model(resolve_base(str(base))) if base is not None else None
    opened = [_open(str(name), place, root, str(base)) for name, place in zip(models, places, strict=True)]
    _check_complete([*opened, *([root] if root else [])])
    for model in [*opened[1:], *([root] if root else [])]:
        check_match(opened[0].folder, model.folder)
    _warn_of_what_is_kept(opened)
    if dtype is None:
        _warn_of_types([*opened, *([root] if joined and root else [])])
    options: dict[str, Any] = {"parameters": parameters or {}, "dtype": DTYPES.get(dtype or ""), "progress": progress}
    try:
        with scratch(target.parent, target.name) as folder:
            result = folder / "model"
            if chosen.rescaled and root is not None:
                merge_sequence(opened, root, chosen, result, **options)
            else:
                options |= {"base": root if joined else None, "seed": seed, "layout": opened[0], "workers": workers}
                vector_weights = _vector_weights(chosen, weights, joined)
                if texts:
                    each = list(texts) if len(texts) > 1 else list(texts) * len(opened)
                    options["grams"] = _grams(opened, each, folder, progress)
                merge_models(opened, chosen, result, weights=vector_weights, **options)
            _write_card(result, chosen, models, base, weights, parameters or {}, seed, dtype)
            replace(result, target)
    except OSError as error:
        raise InputError(
            f"The merge cannot be written to {target}: {error.strerror or error}. Free space there, or choose another "
            "folder with --out."
        ) from None
    return target


def _check_call(
    method: Method,
    models: Sequence[str | Path],
    target: Path,
    base: str | Path | None,
    weights: Sequence[float] | None,
    dtype: str | None,
    seed: int,
) -> None:
    """Check the arguments before any model is read."""
    if not all(str(name).strip() for name in [*models, *([base] if base is not None else [])]):
        raise InputError("A model name is empty. Give a sentence-transformers folder or a Hub id.")
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"--dtype is {dtype!r}, but takes {', '.join(DTYPES)}.")
    if weights is not None and len(weights) != len(models):
        raise InputError(
            f"{len(models)} models need {len(models)} weights, but --weights has {len(weights)}. Give one weight per "
            "model, or leave --weights out."
        )
    if weights is not None and not method.weighted:
        raise InputError(f"{method.name} takes no weights: they would have no effect. Leave --weights out.")
    if seed < 0:
        raise InputError(f"--seed is {seed}, but takes an integer of 0 or more.")
    for name in models:
        if target.is_relative_to(Path(name).expanduser().resolve()):
            raise InputError(
                f"The output folder {target} lies inside {name}, one of the models to merge. Choose a folder outside "
                "it with --out."
            )
    # Before anything is downloaded. Whether models of the Hub are adapters is not known yet.
    known = all(Path(name).expanduser().exists() for name in models)
    adapters = any(_is_adapter(Path(name).expanduser()) for name in models)
    if known or method.base != "none":
        method.check(len(models), base is not None and not (method.base == "none" and adapters))


def _check_texts(method: Method, models: Sequence[str | Path], texts: Sequence[Texts] | None) -> None:
    if not method.needs_texts:
        if texts:
            raise InputError(f"{method.name} reads no texts: they would have no effect. Leave --texts out.")
        return
    if not texts:
        raise InputError(
            f"{method.name} keeps what each model does on the texts it is good at. Give them with --texts FILE, once "
            "for each model in their order, or once for all."
        )
    if len(texts) not in (1, len(models)):
        raise InputError(
            f"{len(models)} models were given, and --texts {len(texts)} times. Give it once for each model in their "
            "order, or once for all."
        )


def _grams(models: Sequence[Model], texts: Sequence[Texts], folder: Path, progress: Progress) -> list[dict[str, Path]]:
    """Write the Gram matrices of each model's layers on its texts. Adapters are folded first, to be loaded."""
    grams = []
    for number, (model, own) in enumerate(zip(models, texts, strict=True)):
        if isinstance(model, Adapted):
            save_model(model, folder / f"folded-{number}")
            model = Model(folder / f"folded-{number}")
        grams.append(write_grams(model, own, folder / f"grams-{number}", progress))
    return grams


def _is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).is_file()


def _open(name: str, folder: Path, base: Model | None, base_name: str) -> Model:
    if _is_adapter(folder):
        if base is None:
            raise InputError(f"{name} is an adapter, not a full model. Name the model it was trained on with --base.")
        adapted = Adapted(base.folder, folder)
        if adapted.trained_on is not None and adapted.trained_on != base.sha256:
            raise ModelError(
                f"{name} was trained on a model with the weights {adapted.trained_on[:12]}, but {base} has "
                f"{base.sha256[:12]}. Name the right model with --base: `continual versions show` tells which version "
                "the adapter was trained from, and `continual export` writes that version to a folder."
            )
        if adapted.trained_on is None:
            _warn_of_base(adapted, base_name)
        return adapted
    return Model(check_model(folder))


def _check_complete(models: Sequence[Model]) -> None:
    """Check that every model stores what it computes with. Only a model with unusual names is loaded for that."""
    for folder in dict.fromkeys(model.folder for model in models):
        if runs_own_code(folder):
            _logger.warning(
                "%s comes with code of its own, which a merge does not run. So it is not checked that its weights are "
                "complete; check that the merged model encodes.",
                folder,
            )
        elif not has_all_names(folder):
            load_encoder(folder)


def _warn_of_base(adapter: Adapted, base: str) -> None:
    """Warn if an adapter names another base. peft stores only the base's name, not the identity of its weights."""
    adapter_base, base_names = adapter.config.base, {Path(base).name, adapter.folder.resolve().name}
    if adapter_base and Path(adapter_base).name.lower() not in {name.lower() for name in base_names}:
        _logger.warning(
            "%s says that it was trained on %s, but it is folded into %s. If these are different weights, name %s with "
            "--base.",
            adapter.adapter,
            adapter_base,
            base,
            adapter_base,
        )


def _warn_of_what_is_kept(models: Sequence[Model]) -> None:
    """Warn if a model has other prompts or another maximum length than the first model, whose the result keeps."""
    first = models[0].folder
    for folder in dict.fromkeys(model.folder for model in models[1:]):
        for what, read in (("the prompts", stored_prompts), ("the maximum length", stored_length)):
            ours, theirs = read(first), read(folder)
            if ours != theirs:
                _logger.warning(
                    "%s has %s %s, but %s has %s. The result keeps %s of %s. To keep another model's, name that model "
                    "first.",
                    first,
                    what,
                    ours,
                    folder,
                    theirs,
                    what,
                    first,
                )


def _warn_of_types(models: Sequence[Model]) -> None:
    """Warn if the models are stored in different types, because the result then takes the widest."""
    types: dict[str, set[torch.dtype]] = {}
    for model in models:
        stored = {entry.dtype for entry in model.entries.values() if entry.dtype.is_floating_point}
        types.setdefault(str(model), set()).update(stored)
    if len(set().union(*types.values())) > 1:
        named = "; ".join(
            f"{name}: {', '.join(sorted(str(dtype).removeprefix('torch.') for dtype in stored))}"
            for name, stored in types.items()
        )
        _logger.warning(
            "The models are stored in different types (%s). Each tensor of the result has the widest type that it has "
            "in them. Choose one for all with --dtype.",
            named,
        )


def _vector_weights(method: Method, weights: Sequence[float] | None, has_base: bool) -> list[float] | None:
    """Return one weight per vector. If the base is the first vector, it gets 1 minus the model's weight."""
    if weights is None or not (method.base == "first" and has_base):
        return list(weights) if weights is not None else None
    if not 0 <= weights[0] <= 1:
        raise InputError(
            f"--weights is {weights[0]:g}, but {method.name} with a base takes a weight from 0 (the base) to 1 (the "
            "model)."
        )
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
    """Write the model card, README.md. The copied card would describe the first model, not the merge."""
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
        f"| parent | {'weight' if method.weighted else 'role'} |",
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

"""Merge one update into the current version, with the state that a method keeps between steps.

OPCM (https://arxiv.org/abs/2501.09522) needs the whole model, not one tensor at a time: it rescales the merged task
vector to the mean norm of all updates so far. Its state is lambda and these norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from continual.merge.engine import (
    merge_models,
    rewrite,
    shared_keys,
    stored_types,
)
from continual.merge.methods import Method
from continual.merge.methods._geometry import gram
from continual.merge.sources import Model
from continual.progress import SILENT, Progress
from continual.storage.files import remove, scratch


def merge_next(
    current: Model,
    update: Model,
    root: Model,
    method: Method,
    out: Path,
    *,
    weight: float,
    parameters: Mapping[str, float],
    state: Mapping[str, Any],
    seed: int | str,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Publish the merge of the current version (weight 1 - w) with an update (weight w).

    Args:
        current: The current version.
        update: The update model. The result takes its tokenizer, pooling and prompts.
        root: The root base, from which task vectors are measured.
        method: The merge method.
        out: Folder to publish; an existing one is replaced.
        weight: w, 0 to 1.
        parameters: Values for the method's parameters.
        state: The state that the previous merge returned; empty at the first one.
        seed: Seed of the method's random numbers.

    Returns:
        The state for the next merge.
    """
    if method.rescaled:
        return _merge_rescaled(current, update, root, method, out, parameters, state, progress)
    merge_models(
        [current, update],
        method,
        out,
        weights=[1 - weight, weight],
        base=root if method.base in ("needed", "optional") else None,
        parameters=parameters,
        seed=seed,
        layout=update,
        progress=progress,
    )
    return dict(state)


def merge_sequence(
    models: Sequence[Model],
    base: Model,
    method: Method,
    out: Path,
    *,
    parameters: Mapping[str, float],
    dtype: torch.dtype | None = None,
    progress: Progress = SILENT,
) -> None:
    """Publish the merge of models in the given order by a method that keeps a state, as repeated `merge_next` does."""
    with scratch(out.parent, out.name) as folder:
        merged, state = base, dict[str, Any]()
        for number, model in enumerate(models, start=1):
            last = number == len(models)
            target = out if last else folder / str(number)
            state = _merge_rescaled(
                merged,
                model,
                base,
                method,
                target,
                parameters,
                state,
                progress,
                dtype if last else torch.float32,
                models[0],
            )
            if merged is not base:
                remove(merged.folder)
            merged = Model(target)


def _merge_rescaled(
    current: Model,
    update: Model,
    root: Model,
    method: Method,
    out: Path,
    parameters: Mapping[str, float],
    state: Mapping[str, Any],
    progress: Progress,
    dtype: torch.dtype | None = None,
    layout: Model | None = None,
) -> dict[str, Any]:
    layout = layout or update
    keys = shared_keys([update, current, root])
    floats = [key for key in keys if update.entries[key].dtype.is_floating_point]
    settings = method.resolve(parameters) | {"previous": float(state.get("lambda", 1.0))}
    squared_norms: dict[str, tuple[float, float]] = {}  # by tensor, of the update's and of the merged task vector

    def merge_tensor(key: str) -> Tensor:
        origin = root.read(key).float()
        before, new = current.read(key).float().sub_(origin), update.read(key).float().sub_(origin)
        merged = method([before, new], [1.0, 1.0], **settings)
        squared_norms[key] = _squared_norm(new), _squared_norm(merged)
        return merged

    with scratch(out.parent, out.name) as folder:
        dtypes = dict.fromkeys(floats, torch.float32)
        rewrite(layout, folder / "vectors", merge_tensor, dtypes, None, progress, models=3)
        vectors = Model(folder / "vectors")
        norms = [*state.get("norms", []), sum(squared_norms[key][0] for key in floats) ** 0.5]
        length = sum(squared_norms[key][1] for key in floats) ** 0.5
        mean = sum(norms) / len(norms)
        scale = mean / length if length else 1.0

        def rescale(key: str) -> Tensor:
            if key not in squared_norms:
                return update.read(key)
            return vectors.read(key).mul_(scale).add_(root.read(key).float())

        rewrite(layout, out, rescale, stored_types([update, current], keys, dtype), None, progress, models=2)
    return {"lambda": 1.0 / scale, "norms": norms}


def _squared_norm(tensor: Tensor) -> float:
    return float(gram([tensor])[0, 0])
